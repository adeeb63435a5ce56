"""Label pairs: check everything first, label with each labeler in turn, measure; for `rlaif label`, write files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rlaif_framework.assembly.identity import find_models
from rlaif_framework.assembly.preflight import check_component
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs_file import Inspect, PairsFile, scan_pairs
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import locked, remove_leftovers
from rlaif_framework.labelling.exports import export_labels
from rlaif_framework.labelling.job import Job, LabelSettings, check_existing, check_paths
from rlaif_framework.labelling.loop import LabelRecord, label_pairs
from rlaif_framework.labelling.report import build_report, write_report
from rlaif_framework.labelling.report_model import LabelReport
from rlaif_framework.labelling.rows import LabelRow
from rlaif_framework.labelling.wording import GENERAL, FormCounts
from rlaif_framework.memory import release_memory
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.progress import Progress
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison

Labels = dict[str, tuple[LabelRecord, Path]]
"""For each labeler's name, the record and the file of its labels."""


def label_file(job: Job, manager: PluginManager, progress: Progress) -> LabelReport:
    """Label a file of pairs with each labeler, write what the job asks for, and return the report.

    Raises:
        RlaifError: Something that the user can fix. Everything is checked before the first comparison is labelled.
    """
    check_paths(job)
    with _locked_outputs(job):
        return _label_file(job, manager, progress)


@contextmanager
def _locked_outputs(job: Job) -> Iterator[None]:
    """Keep other processes from writing the same files."""
    with ExitStack() as stack:
        for path in (*job.outputs.values(), *(path for _, path in job.products)):
            stack.enter_context(locked(path, f"writes {path}"))
            remove_leftovers(path.parent)
        yield


def _label_file(job: Job, manager: PluginManager, progress: Progress) -> LabelReport:
    if not job.overwrite:
        check_existing(job)

    def scan(inspect: Inspect) -> PairsFile:
        return scan_pairs(job.pairs, inspect, job.fields)

    with open_pairs(job, scan, manager, progress) as (settings, pairs):
        labels: Labels = {}
        progress.detail(f"task: {_dump(settings.task)}")
        for name, labeler in settings.labelers.items():
            progress.detail(f"labeler{f' {name}' if name else ''}: {_dump(labeler)}")
        for name, record, path in label_with_each(settings, pairs, job.outputs, manager, progress):
            labels[name] = record, path
            _describe_labels(record, path, progress)
        report = report_labels(settings, pairs, labels, progress)
    _note_products(job, labels)
    _write_products(job, report, labels, progress)
    return report


def _dump(config: ComponentConfig | None) -> str:
    """Return settings with their defaults as one line of JSON."""
    return "none" if config is None else json.dumps(config.model_dump(mode="json"), ensure_ascii=False)


@contextmanager
def open_pairs(
    settings: LabelSettings,
    scan: Callable[[Inspect], PairsFile],
    manager: PluginManager,
    progress: Progress,
    option: str = "--skip-invalid",
) -> Iterator[tuple[LabelSettings, PairsFile]]:
    """Check the labelers, then read the pairs, and print what is wrong with them.

    Args:
        settings: How the pairs are labelled.
        scan: Reads the pairs, and calls its argument with each of them.
        manager: Provides the components.
        progress: Where to print.
        option: How a user sets `skip_invalid`, for errors.

    Yields:
        The settings with a task, which is chosen by the form of the pairs if there was none, and the pairs.

    Raises:
        RlaifError: A labeler cannot be built, or pairs are invalid or lack what a labeler needs.
    """
    # Before the pairs are read, so that a wrong setting is reported without waiting for a large file.
    _check_labelers(settings, manager)
    missing: dict[str, DataError] = {}

    forms = FormCounts()

    def inspect(row: Row, pair: PairRow, comparison: Comparison) -> None:
        _note_missing_fields(settings, missing, row, comparison)
        forms.add([*row.values, *settings.fields.values()], comparison)

    with scan(inspect) as pairs:
        pairs.check(settings.skip_invalid, option)
        for name, error in missing.items():
            with _prefix_errors(name):
                raise error
        if pairs.skipped:
            progress.print(f"{pairs.name}: skipped {pairs.skipped} invalid rows of {pairs.rows}")
            for line in pairs.faults.describe(with_file=pairs.files > 1):
                progress.print(f"  {line}")
        task = settings.task or narrow("task", forms.choose(), manager)
        progress.print(f"annotator prompts: those of task '{task.kind}'" if settings.task else forms.describe())
        if settings.task is None:
            settings = replace(settings, task=task)
            _check_prompts(settings, manager)
        for text in pairs.find_warnings(task.kind):
            progress.print(f"warning: {text}")
        yield settings, pairs


def label_with_each(
    settings: LabelSettings,
    pairs: PairsFile,
    outputs: Mapping[str, Path],
    manager: PluginManager,
    progress: Progress,
    titles: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, LabelRecord, Path]]:
    """Label the pairs with each labeler in turn.

    Args:
        settings: The labelers.
        pairs: The pairs.
        outputs: The file of each labeler's labels.
        manager: Provides the components.
        progress: Where to print.
        titles: Names of the labels in messages; by default their paths.

    Yields:
        The labeler's name in the report, the record of its labels, and their file.
    """
    for name, config in settings.labelers.items():
        path, title = outputs[name], (titles or {}).get(name, "")
        with _prefix_errors(name):
            record = label_pairs(pairs, config, settings.create_context(manager), path, progress, title)
        release_memory()  # before the next labeler loads its model
        yield name or config.kind, record, path  # a single labeler has no name, so the report uses its kind


def report_labels(settings: LabelSettings, pairs: PairsFile, labels: Labels, progress: Progress) -> LabelReport:
    """Measure the labels, and print the findings."""
    report = build_report(pairs, labels, settings.published)
    for line in report.describe():
        progress.print(line)
    kind = settings.task.kind if settings.task else GENERAL
    # The warnings about the pairs have been printed already, before labelling.
    return report.model_copy(update={"warnings": [*pairs.find_warnings(kind), *report.warnings]})


@contextmanager
def _prefix_errors(labeler: str) -> Iterator[None]:
    """Add the labeler's name to errors if there are several labelers."""
    try:
        yield
    except RlaifError as error:
        raise type(error)(f"{labeler}: {error}") if labeler else error from error


def _check_labelers(settings: LabelSettings, manager: PluginManager) -> None:
    """Import the components, and look up their annotator prompts and models. No model is loaded.

    Raises:
        RlaifError: Something is missing.
    """
    for config in (*([settings.task] if settings.task else []), *settings.labelers.values()):
        check_component(config, settings.create_context(manager))
    if settings.task is not None:
        _check_prompts(settings, manager)
    for name, labeler in settings.labelers.items():
        with _prefix_errors(name):
            find_models(labeler, settings.create_context(manager))


def _check_prompts(settings: LabelSettings, manager: PluginManager) -> None:
    """Check that the task has the annotator prompts that the labelers refer to.

    Raises:
        DataError: Something is missing.
    """
    prompts = settings.create_context(manager).task.annotator_prompts()
    for name, config in settings.labelers.items():
        with _prefix_errors(name):
            config.check_prompts(prompts)


def _note_missing_fields(settings: LabelSettings, missing: dict[str, DataError], row: Row, pair: Comparison) -> None:
    """Keep the first row for each labeler that lacks a field which the labeler needs."""
    for name, config in settings.labelers.items():
        if name not in missing and (field := config.missing_field(pair)) is not None:
            missing[name] = DataError(
                f"{row.where}: the row {field}, which labeler '{config.kind}' needs; add it, or use 'mix' "
                "to label such rows with another labeler"
            )


def _describe_labels(record: LabelRecord, path: Path, progress: Progress) -> None:
    """Write a copy of the labels as Parquet, and print what was written."""
    from rlaif_framework.records.parquet import write_parquet  # imports pyarrow

    parquet = path.with_suffix(".parquet")
    write_parquet(parquet, (row for _, row in read_rows(path)), LabelRow)
    counts = {
        "unparsed": record.counts.unparsed,
        "inconsistent": record.counts.inconsistent,
        "refused": record.counts.refused,
        "with a truncated source": record.counts.source_truncated,
        "with a truncated response": record.counts.responses_truncated,
    }
    details = "".join(f", {count} {what}" for what, count in counts.items() if count)
    progress.print(f"labels: {path} and {parquet.name}, {record.comparisons} comparisons{details}")


def _note_products(job: Job, labels: Labels) -> None:
    """Note the report and the export in the records before they are written, so that the next run may replace them."""
    products = {os.path.realpath(path) for _, path in job.products}
    for record, path in labels.values():
        if not products <= set(record.made):
            record.made = sorted({*products, *record.made})
            record.save(path)


def _write_products(job: Job, report: LabelReport, labels: Labels, progress: Progress) -> None:
    if job.export is not None:
        # Only a single labeler can be exported (see `check_paths`), and its labels are in `job.out`.
        ((config, found),) = zip(job.labelers.values(), report.labelers.values(), strict=True)
        written, left_out = export_labels(job.export, job.out, found, config)
        progress.print(f"preference data set: {job.export}, {written} rows; {left_out} missing or tied labels left out")
    if job.report is not None:
        write_report(report, {name: path for name, (_, path) in labels.items()}, job.report)
        progress.print(f"report: {os.path.realpath(job.report)}")
