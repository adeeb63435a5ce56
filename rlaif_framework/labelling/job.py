"""The `rlaif label` command: check everything first, label with each labeler in turn, measure, write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import describe_component
from rlaif_framework.assembly.preflight import check_component
from rlaif_framework.data.pairs import PairsFile, read_pairs, scan_pairs
from rlaif_framework.errors import DataError, RlaifError, SpecError
from rlaif_framework.labelling.loop import Record, label_context, label_pairs, read_record, record_path, save_record
from rlaif_framework.labelling.report import build_report, write_report
from rlaif_framework.memory import release_memory
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.report.page import percent

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


@dataclass(frozen=True)
class Job:
    """What `rlaif label` was asked to do."""

    pairs: Path
    labelers: Mapping[str, LabelerConfig]
    """By name; a single one has none."""
    task: TaskConfig
    out: Path
    report: Path | None = None
    export: Path | None = None
    skip_invalid: bool = False
    overwrite: bool = False
    """Whether files that no earlier run made may be replaced."""
    seed: int = 0
    """Of every random choice: orders, exemplars, principles, sampled text, the share of a mix."""
    batch_tokens: int | None = None
    """Tokens of local models in one pass; None is the default of a spec's `policy.batch_tokens`."""

    def context(self, manager: PluginManager) -> Context:
        """What its labelers are given."""
        return label_context(self.task, manager, self.seed, self.batch_tokens)

    @property
    def outputs(self) -> dict[str, Path]:
        """Where each labeler's labels go: `labels.jsonl`, or `labels.NAME.jsonl` of several."""
        return {name: self.out.with_stem(f"{self.out.stem}.{name}") if name else self.out for name in self.labelers}

    def check_paths(self) -> None:
        """Refuse to write where something else is read or written, or under a name that says another format.

        Raises:
            SpecError: Which option to change.
        """
        if self.export is not None and len(self.labelers) > 1:
            raise SpecError("--export takes one labeler; choose the best with --compare, then export with --labeler")
        written = []
        for option, path, suffixes in (
            ("--out", self.out, (".jsonl",)),
            ("--report", self.report, (".html",)),
            ("--export", self.export, (".jsonl", ".parquet")),
        ):
            if path is None:
                continue
            if path.suffix not in suffixes:
                raise SpecError(f"{option} {path}: its name must end in {' or '.join(suffixes)}")
            written.append((option, path))
        for labels in self.outputs.values():
            written += [("--out", labels.with_suffix(end)) for end in (".parquet", ".meta.json")]
        if self.report is not None:
            written.append(("--report", self.report.with_suffix(".json")))
        taken = {self.pairs.resolve(): "the pairs"}
        for option, path in written:
            if path.is_dir():
                raise SpecError(f"{option} {path}: it is a folder")
            if path.resolve() in taken:
                raise SpecError(f"{option} would write {path}, which is {taken[path.resolve()]}; choose another name")
            taken[path.resolve()] = f"written by {option} too"
        if not self.overwrite:
            self._check_existing()

    def _check_existing(self) -> None:
        """Refuse to replace a file that no record beside the labels knows.

        Raises:
            SpecError: Which file it is.
        """
        made: set[str] = set()
        for labels in self.outputs.values():
            record = read_record(labels)
            made.update(record.made if record else ())
            for path in (labels, labels.with_suffix(".parquet"), record_path(labels)):
                if path.exists() and record is None:
                    raise _refuse(
                        "--out", path, f"and {record_path(labels).name} beside it does not say that it is ours"
                    )
            if labels.exists() and record and record.complete and labels.stat().st_size != record.size:
                raise _refuse("--out", labels, "and was changed since it was written")
        for option, other in (("--report", self.report), ("--export", self.export)):
            if other is not None and other.exists() and str(other.resolve()) not in made:
                raise _refuse(option, other, "and no earlier run with this --out made it")


def _refuse(option: str, path: Path, why: str) -> SpecError:
    return SpecError(f"{option} {path}: the file is there already, {why}; choose another name, or give --overwrite")


def label_file(job: Job, manager: PluginManager, progress: Progress) -> dict[str, Any]:
    """Do a job and give its report, which is also written where the job says.

    Raises:
        RlaifError: Anything a user can mend.
    """
    job.check_paths()
    for config in (job.task, *job.labelers.values()):
        check_component(config, manager)
    pairs = scan_pairs(job.pairs)
    pairs.check(job.skip_invalid)
    for name, config in job.labelers.items():
        with _naming(name):
            _check_labeler(config, job.context(manager), pairs)
    if pairs.skipped:
        progress.print(f"{job.pairs}: skipped {pairs.skipped} bad rows of {pairs.count + pairs.skipped}")
    doubts = pairs.doubt(job.task.kind)
    for text in doubts:
        progress.print(f"warning: {text}")
    labels: dict[str, tuple[Record, Path]] = {}
    for name, config in job.labelers.items():
        path = job.outputs[name]
        labels[name or config.kind] = _label_one(job, name, config, pairs, manager, progress), path
    report = build_report(pairs, labels)
    for line in (*report["summary"], *(f"warning: {text}" for text in report["warnings"])):
        progress.print(line)
    report["warnings"] = [*doubts, *report["warnings"]]
    _note_made(job, labels.values())
    _write_rest(job, report, progress)
    return report


@contextmanager
def _naming(labeler: str) -> Iterator[None]:
    """Say in errors which of several labelers they are about."""
    try:
        yield
    except RlaifError as error:
        raise type(error)(f"{labeler}: {error}") if labeler else error from error


def _check_labeler(config: LabelerConfig, context: Context, pairs: PairsFile) -> None:
    """Find what is wrong with a labeler before the first comparison of any is labelled, and without loading a model.

    Raises:
        RlaifError: The annotator prompts have not what it names, a model is not there, or a row lacks something.
    """
    config.check_prompts(context.task.annotator_prompts())
    describe_component(config, context)  # finds its models
    for number, pair in enumerate(read_pairs(pairs.path), 1):
        lack = config.missing_field(pair) if isinstance(pair, Comparison) else None
        if lack is not None:
            raise DataError(
                f"{pairs.path}, line {number}: the row {lack}, and labeler '{config.kind}' cannot do without; add it, "
                "or let 'mix' label such rows with another labeler"
            )


def _label_one(
    job: Job, name: str, config: LabelerConfig, pairs: PairsFile, manager: PluginManager, progress: Progress
) -> Record:
    from rlaif_framework.labelling.export import write_parquet

    path = job.outputs[name]
    with _naming(name):
        record = label_pairs(pairs, config, job.context(manager), path, progress)
    release_memory()  # of one model, before the next is loaded
    parquet = path.with_suffix(".parquet")
    write_parquet(path, parquet)
    counts = {
        "unparsed": record.unparsed,
        "inconsistent": record.inconsistent,
        "refused": record.refused,
        "with a source_truncated source": record.source_truncated,
        "with a source_truncated response": record.responses_truncated,
    }
    of_them = "".join(f", {count} of them {what}" for what, count in counts.items() if count)
    progress.print(f"labels: {path} and {parquet.name}, {record.done} comparisons{of_them}")
    return record


def _note_made(job: Job, labels: Iterable[tuple[Record, Path]]) -> None:
    """Note in the records what is about to be made of their labels, so that the next run may replace it."""
    for record, path in labels:
        made = {str(other.resolve()) for other in (job.report, job.export) if other is not None}
        if not made <= set(record.made):
            record.made = sorted(made | set(record.made))
            save_record(record, path)


def _write_rest(job: Job, report: dict[str, Any], progress: Progress) -> None:
    if job.export is not None:
        from rlaif_framework.labelling.export import export_preferences

        job.export.parent.mkdir(parents=True, exist_ok=True)
        written, left_out = export_preferences(job.out, job.export)
        progress.print(f"preference set: {job.export}, {written} rows; {left_out} unparsed or tied labels left out")
    if job.report is not None:
        write_report(report, job.report)
        progress.print(f"report: {job.report.resolve()}")


def comparison_tables(report: dict[str, Any]) -> Iterator[Table]:
    """The labelers side by side, and each against each other, as heads and rows of text."""
    rows: list[tuple[str, ...]] = []
    for name, x in report["labelers"].items():
        use, calibration = x["per_thousand"], x["calibration"]
        rows.append(
            (
                name,
                percent(x["agreement"]),
                percent(x["same_position"]),
                percent(x["unparsed"]),
                f"{calibration['brier']['value']:.3f}" if calibration else "-",
                f"{use['prompt_tokens'] + use['generated_tokens']:,.0f}",
                f"{use['seconds']:,.1f}",
                "-" if use["dollars"] is None else f"{use['dollars']:,.2f}",
            )
        )
    yield ("labeler", "agreement", "same position", "unparsed", "Brier", "tokens/1000", "s/1000", "$/1000"), rows
    tested = [pair for pair in report["paired"] if pair["p"] is not None]
    if tested:
        yield (
            ("first", "second", "difference", "only first right", "only second right", "comparisons", "p", "p, Holm"),
            [
                (
                    pair["first"],
                    pair["second"],
                    f"{100 * pair['difference']:+.1f} points",
                    str(pair["first_only"]),
                    str(pair["second_only"]),
                    str(pair["count"]),
                    f"{pair['p']:.3g}",
                    f"{pair['p_holm']:.3g}",
                )
                for pair in tested
            ],
        )
