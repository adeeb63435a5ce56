"""The `rlaif label` command: check everything first, label with each labeler in turn, measure, write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rlaif_framework.assembly.identity import find_models
from rlaif_framework.assembly.preflight import check_component
from rlaif_framework.data.pairs_file import PairsFile, scan_pairs
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import locked, remove_leftovers
from rlaif_framework.labelling.job import Job, check_existing, check_paths
from rlaif_framework.labelling.loop import LabelRecord, label_pairs
from rlaif_framework.labelling.report import build_report, write_report
from rlaif_framework.labelling.report_model import LabelReport
from rlaif_framework.labelling.wording import FormCounts
from rlaif_framework.memory import release_memory
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.progress import Progress
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
        for path in (*job.outputs.values(), *job.products.values()):
            stack.enter_context(locked(path, f"writes {path}"))
            remove_leftovers(path.parent)
        yield


def _label_file(job: Job, manager: PluginManager, progress: Progress) -> LabelReport:
    if not job.overwrite:
        check_existing(job)
    # Before the pairs are read, so that a wrong setting is reported without waiting for a large file.
    _check_labelers(job, manager)
    missing: dict[str, DataError] = {}
    forms = FormCounts()

    def inspect(row: Row, pair: Comparison) -> None:
        _note_missing_fields(job, missing, row, pair)
        forms.add([*row.values, *job.fields.values()], pair)

    with scan_pairs(job.pairs, inspect, job.fields) as pairs:
        pairs.check(job.skip_invalid)
        for name, error in missing.items():
            with _prefix_errors(name):
                raise error
        if pairs.skipped:
            progress.print(f"{job.pairs}: skipped {pairs.skipped} invalid rows of {pairs.rows}")
            for line in pairs.faults.describe(with_file=False):
                progress.print(f"  {line}")
        task = job.task or narrow("task", forms.choose(), manager)
        progress.print(f"annotator prompts: those of task '{task.kind}'" if job.task else forms.describe())
        if job.task is None:
            job = replace(job, task=task)
            _check_prompts(job, manager)
        warnings = pairs.find_warnings(task.kind)
        for text in warnings:
            progress.print(f"warning: {text}")
        # A single labeler has no name, so the report uses its kind.
        labels = {
            name or config.kind: (_label(job, name, pairs, manager, progress), job.outputs[name])
            for name, config in job.labelers.items()
        }
    report = build_report(pairs, labels)
    for line in (*report.summary, *(f"warning: {text}" for text in report.warnings)):
        progress.print(line)
    # The warnings about the pairs have been printed already, before labelling.
    report = report.model_copy(update={"warnings": [*warnings, *report.warnings]})
    _note_products(job, labels)
    _write_products(job, report, progress)
    return report


@contextmanager
def _prefix_errors(labeler: str) -> Iterator[None]:
    """Add the labeler's name to errors if there are several labelers."""
    try:
        yield
    except RlaifError as error:
        raise type(error)(f"{labeler}: {error}") if labeler else error from error


def _check_labelers(job: Job, manager: PluginManager) -> None:
    """Import the components, and look up their annotator prompts and models. No model is loaded.

    Raises:
        RlaifError: Something is missing.
    """
    for config in (*([job.task] if job.task else []), *job.labelers.values()):
        check_component(config, job.create_context(manager))
    if job.task is not None:
        _check_prompts(job, manager)
    for name, labeler in job.labelers.items():
        with _prefix_errors(name):
            find_models(labeler, job.create_context(manager))


def _check_prompts(job: Job, manager: PluginManager) -> None:
    """Check that the task has the annotator prompts that the labelers refer to.

    Raises:
        DataError: Something is missing.
    """
    prompts = job.create_context(manager).task.annotator_prompts()
    for name, config in job.labelers.items():
        with _prefix_errors(name):
            config.check_prompts(prompts)


def _note_missing_fields(job: Job, missing: dict[str, DataError], row: Row, pair: Comparison) -> None:
    """Keep the first row for each labeler that lacks a field which the labeler needs."""
    for name, config in job.labelers.items():
        if name not in missing and (field := config.missing_field(pair)) is not None:
            missing[name] = DataError(
                f"{row.where}: the row {field}, which labeler '{config.kind}' needs; add it, or use 'mix' "
                "to label such rows with another labeler"
            )


def _label(job: Job, name: str, pairs: PairsFile, manager: PluginManager, progress: Progress) -> LabelRecord:
    """Label the pairs with one labeler, and write its labels as JSON Lines and as Parquet."""
    from rlaif_framework.labelling.export import write_parquet

    path = job.outputs[name]
    with _prefix_errors(name):
        record = label_pairs(pairs, job.labelers[name], job.create_context(manager), path, progress)
    release_memory()  # before the next labeler loads its model
    parquet = path.with_suffix(".parquet")
    write_parquet(path, parquet)
    counts = {
        "unparsed": record.counts.unparsed,
        "inconsistent": record.counts.inconsistent,
        "refused": record.counts.refused,
        "with a truncated source": record.counts.source_truncated,
        "with a truncated response": record.counts.responses_truncated,
    }
    details = "".join(f", {count} {what}" for what, count in counts.items() if count)
    progress.print(f"labels: {path} and {parquet.name}, {record.comparisons} comparisons{details}")
    return record


def _note_products(job: Job, labels: Labels) -> None:
    """Note the report and the export in the records before they are written, so that the next run may replace them."""
    products = {os.path.realpath(path) for path in job.products.values()}
    for record, path in labels.values():
        if not products <= set(record.made):
            record.made = sorted({*products, *record.made})
            record.save(path)


def _write_products(job: Job, report: LabelReport, progress: Progress) -> None:
    if job.export is not None:
        from rlaif_framework.labelling.export import export_preferences

        job.export.parent.mkdir(parents=True, exist_ok=True)
        # Only a single labeler can be exported (see `check_paths`), and its labels are in `job.out`.
        written, left_out = export_preferences(job.out, job.export)
        progress.print(f"preference data set: {job.export}, {written} rows; {left_out} missing or tied labels left out")
    if job.report is not None:
        write_report(report, job.report)
        progress.print(f"report: {os.path.realpath(job.report)}")
