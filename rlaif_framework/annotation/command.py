"""The command `rlaif annotate`: read the pairs, check the options, then serve the page or write the labels."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlaif_framework.annotation.answers import Answer, AnswerFile, Drawn
from rlaif_framework.annotation.assignment import AssignmentSettings, Desk, order_items
from rlaif_framework.annotation.export import check_export, export_labels
from rlaif_framework.annotation.instructions import find_instructions, read_instructions
from rlaif_framework.annotation.item import Item
from rlaif_framework.annotation.items import ItemSet, read_items
from rlaif_framework.annotation.summary import AnnotationSummary, summarise_answers
from rlaif_framework.annotation.wording import count_of
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.files import locked
from rlaif_framework.plugins.configs import TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress


@dataclass(frozen=True, kw_only=True)
class AnnotationJob:
    """The arguments of `rlaif annotate`."""

    pairs: Path
    """Pairs in any form that `rlaif label` reads, or the folder of a run."""
    out: Path
    """The file of answers."""
    labels: Sequence[Path] = ()
    """Files of labels of the same pairs; the first is that of the labeler for `uncertain` and `show_judge`."""
    gold: Path | None = None
    """Pairs whose preference is known."""
    order: Drawn = "random"
    overlap: int = 1
    repeat: float = 0.0
    limit: int | None = None
    seed: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    skip_invalid: bool = False
    name: str = ""
    instructions: Path | None = None
    task: TaskConfig | None = None
    strength: bool = False
    min_seconds: float = 0.0
    show_judge: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None


def serve_annotation(
    job: AnnotationJob, manager: PluginManager, progress: Progress, ready: Callable[[str, str], None]
) -> AnnotationSummary:
    """Serve the page until Ctrl-C, and return the measurements.

    Args:
        job: The arguments.
        manager: Provides the task, for the instructions.
        progress: Where to print.
        ready: Called with the URLs of the pages for comparing and `progress` once the server listens.

    Raises:
        RlaifError: Something that the user can fix. Everything is checked before the server listens.
        ModuleNotFoundError: The packages of the extra `annotate` are not installed.
    """
    from rlaif_framework.annotation.access import Access, SavedAccess
    from rlaif_framework.annotation.server import Annotation, PageSettings, create_app
    from rlaif_framework.annotation.serving import make_urls, serve_app

    saved = SavedAccess.read(job.out)
    access = Access.create(job.host, job.token, saved)
    pairs, gold = _read_pairs(job, progress)
    labeler = _find_labeler(job, pairs)
    text = read_instructions(job.instructions) if job.instructions else ""
    settings = PageSettings(
        instructions=text or find_instructions(job.pairs, job.task, manager, progress),
        name=job.name,
        strength=job.strength,
        min_seconds=job.min_seconds,
        show_judge=labeler if job.show_judge else "",
    )
    assigned = AssignmentSettings(job.overlap, job.repeat, job.order, job.seed)
    keys = [key for key in pairs.items if key not in gold]
    order = order_items(keys, assigned, pairs.opinions.get(labeler), job.limit)
    with locked(job.out, f"collects answers in {job.out}"), AnswerFile.create(job.out) as file:
        desk = Desk(file, order, list(gold), assigned)
        _check_answers(job, desk.answers, pairs, gold)
        _check_order(job, file, order)
        listening = _listen(job, saved.port if saved else 0, progress)
        port = listening.getsockname()[1]
        SavedAccess(token=access.token, progress_token=access.progress_token, port=port).write(job.out)
        app = create_app(Annotation(desk, pairs, gold, settings), access)
        serve_app(app, listening, lambda: ready(*make_urls(listening, access)))
        return summarise_answers(desk.answers, pairs, gold, len(order))


def export_annotation(job: AnnotationJob, export: Path, overwrite: bool, progress: Progress) -> AnnotationSummary:
    """Write the labels to a file, also while the page is served, and return the measurements.

    Args:
        job: The arguments.
        export: The file.
        overwrite: If True, replace files that no earlier export of these answers wrote.
        progress: Where to print.

    Raises:
        RlaifError: There are no answers about these pairs, or the file cannot be written.
    """
    with AnswerFile.read(job.out) as file:
        read = [job.pairs, *job.labels, *([job.gold] if job.gold else [])]
        check_export(export, file, read, overwrite)
        with locked(export, f"writes {export}"):
            pairs, gold = _read_pairs(job, progress)
            answers = file.read_answers()
            _check_answers(job, answers, pairs, gold)
            written = export_labels(export, file, answers, pairs)
    if not written:
        raise DataError(f"{job.out} has no answers that state a preference; nothing was written")
    for path, count in written.items():
        kind = "" if path == export else ", of pairs that were not drawn at random: not for evaluate.human_labels"
        progress.print(f"labels: {path}, {count_of(count, 'row')}{kind}")
    return summarise_answers(answers, pairs, gold, None if job.limit is None else min(job.limit, len(pairs.items)))


def _listen(job: AnnotationJob, last: int, progress: Progress) -> socket.socket:
    """Listen on the port that was asked for, or else that of the last start, so that pages which are open go on."""
    from rlaif_framework.annotation.serving import open_socket

    if job.port or not last:
        return open_socket(job.host, job.port)
    try:
        return open_socket(job.host, last)
    except SpecError:
        found = open_socket(job.host, 0)
    progress.print(
        f"warning: port {last} of the last start is taken, so pages that are open cannot go on; free it and start "
        "again, or open the new URL"
    )
    return found


def _check_order(job: AnnotationJob, file: AnswerFile, order: Sequence[str]) -> None:
    """Check that items which are drawn at random are a random sample: those drawn otherwise would be missing from it.

    Raises:
        SpecError: Some of the items were drawn by the uncertainty of a labeler before.
    """
    keys = {*order}
    other = [x for x in file.read_assignments() if x.kind == "item" and x.drawn == "uncertain" and x.item in keys]
    if job.order == "random" and other:
        raise SpecError(
            f"{job.out} has {count_of(len(other), 'pair')} drawn by the uncertainty of a labeler, so that the others "
            "are no random sample; go on with --order uncertain, or choose another --out"
        )


def _read_pairs(job: AnnotationJob, progress: Progress) -> tuple[ItemSet, dict[str, Item]]:
    """Read the pairs and the gold items, and print what was left out."""
    pairs = read_items(job.pairs, job.labels, job.fields, job.skip_invalid)
    for note in pairs.notes:
        progress.print(note)
    if pairs.repeated:
        progress.print(f"{pairs.name}: {count_of(pairs.repeated, 'row')} with the texts of an earlier row, shown once")
    gold = read_items(job.gold).items if job.gold else {}
    known = {key: item for key, item in gold.items() if item.comparison.preference not in (None, 0.5)}
    if job.gold and not known:
        raise DataError(f"--gold {job.gold}: none of the rows has a preference; set their 'label' to a or b")
    return pairs, known


def _find_labeler(job: AnnotationJob, pairs: ItemSet) -> str:
    """Return the name of the labeler whose opinions are used; empty if there is none.

    Raises:
        SpecError: There is none, and an option needs it.
    """
    if pairs.opinions:
        return next(iter(pairs.opinions))
    needed = "--order uncertain" if job.order == "uncertain" else "--show-judge" if job.show_judge else ""
    if needed:
        raise SpecError(f"{needed} needs the labels of a labeler: --labels FILE, which `rlaif label` wrote")
    return ""


def _check_answers(job: AnnotationJob, answers: Sequence[Answer], pairs: ItemSet, gold: Mapping[str, Item]) -> None:
    """Refuse a file of answers that are all about other pairs.

    Raises:
        DataError: It is such a file.
    """
    if answers and not any(x.assignment.item in pairs.items or x.assignment.item in gold for x in answers):
        raise DataError(
            f"{job.out} has {count_of(len(answers), 'answer')}, none of them about the pairs of {job.pairs}; "
            "choose another --out"
        )
