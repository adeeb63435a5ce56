"""Write the labels of people to files that `evaluate.human_labels`, `rlaif label` and tasks read."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rlaif_framework.annotation.answers import Answer, AnswerFile, Drawn
from rlaif_framework.annotation.item import Item
from rlaif_framework.annotation.items import ItemSet
from rlaif_framework.annotation.runs import is_run
from rlaif_framework.annotation.summary import collect_labels
from rlaif_framework.data.row_files import is_read_with
from rlaif_framework.errors import SpecError
from rlaif_framework.files import atomic_path
from rlaif_framework.records.jsonl import write_rows


def check_export(path: Path, file: AnswerFile, read: Collection[Path], overwrite: bool) -> None:
    """Check that no file would be replaced, except those that an earlier export of the same answers wrote.

    Args:
        path: The file to write.
        file: The answers.
        read: The files that the command reads, which are never replaced.
        overwrite: If True, other files may be replaced.

    Raises:
        SpecError: There is such a file, or the name of the file has another suffix.
    """
    if path.suffix != ".jsonl":
        raise SpecError(f"--export {path}: its name must end in .jsonl")
    kept = {os.path.realpath(place) for place in (file.path, *read)}
    for place in name_exports(path).values():
        if os.path.realpath(place) in kept:
            raise SpecError(f"--export {place}: the command reads this file; choose another name")
        if any(is_read_with(place, data) for data in read if not is_run(data)):
            raise SpecError(f"--export {place}: the command reads all files in this folder; choose another folder")
        if place.exists() and not overwrite and not file.has_exported(os.path.realpath(place)):
            raise SpecError(
                f"--export {place}: the file already exists, and was not made by an earlier export of {file.path}; "
                "choose another name, or use --overwrite"
            )


def name_exports(path: Path) -> dict[Drawn, Path]:
    """Return the file of the items that were drawn in each way: `labels.jsonl` and `labels.uncertain.jsonl`.

    Kept apart, since a win rate must be corrected by labels of pairs that were drawn at random.
    """
    return {"random": path, "uncertain": path.with_stem(f"{path.stem}.uncertain")}


def export_labels(path: Path, file: AnswerFile, answers: Sequence[Answer], pairs: ItemSet) -> dict[Path, int]:
    """Write a row for each item with a label.

    Returns:
        The number of rows of each file that was written. A file without rows is not written.
    """
    own = [x for x in answers if x.assignment.item in pairs.items and x.assignment.kind == "item"]
    labels = collect_labels(own)
    bad: dict[str, int] = {}
    drawn: dict[str, Drawn] = {}
    for x in own:
        drawn.setdefault(x.assignment.item, x.assignment.drawn)
        bad[x.assignment.item] = bad.get(x.assignment.item, 0) + (x.choice == "bad")
    written = {}
    for draw, place in name_exports(path).items():
        rows = [
            make_row(item, list(labels[key].values()), bad[key], draw)
            for key, item in pairs.items.items()
            if key in labels and drawn[key] == draw
        ]
        if rows:
            place.parent.mkdir(parents=True, exist_ok=True)
            file.note_export(os.path.realpath(place))
            with atomic_path(place) as temporary:
                write_rows(temporary, rows)
            written[place] = len(rows)
    return written


def make_row(item: Item, votes: Sequence[float], both_bad: int, drawn: Drawn) -> dict[str, Any]:
    """Return the row of an item: the mean of people's preferences is the probability `human`.

    Args:
        item: The item.
        votes: The preferences for its first response.
        both_bad: Number of people who found both bad.
        drawn: How the item was chosen.
    """
    pair = item.comparison
    row = {
        "id": pair.id,
        "prompt": pair.prompt.text,
        "responses": list(pair.raw_responses or pair.responses),
        "human": fmean(votes),
        "annotators": len(votes),
        "both_bad": both_bad,
        "drawn": drawn,
    }
    optional = {"reference": pair.prompt.reference, "slice": pair.slice}
    return row | {name: value for name, value in optional.items() if value is not None}
