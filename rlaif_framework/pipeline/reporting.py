"""Build the report of a run from what its steps recorded, when it has finished and again later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.lifecycle import RunInfo, StepInfo
from rlaif_framework.contracts.panels import Panel
from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import locked, read_own
from rlaif_framework.metrics.evaluation import EVALUATION, Evaluation
from rlaif_framework.metrics.seeds import Measure
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.member_measures import list_measures
from rlaif_framework.pipeline.run_folder import LARGEST_RECORD
from rlaif_framework.pipeline.run_record import RERUN, SUMMARY, RunRecord, RunStatus, read_family_keys
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.report.family_report import FAMILY, PAGE, FamilyMember, FamilyReport
from rlaif_framework.report.run_charts import LoggedMetric, list_training
from rlaif_framework.report.run_report import RunReport, StepReport
from rlaif_framework.spec.loading import load_spec
from rlaif_framework.store import Manifest


class FinishedStep(NamedTuple):
    """A step of a finished run, as lifecycle hooks receive it."""

    name: str
    stage: str
    key: str


@dataclass(frozen=True)
class FinishedSteps:
    """A finished run, as lifecycle hooks receive it."""

    folder: Path
    steps: Sequence[FinishedStep]
    notes: dict[str, Any] = field(default_factory=dict)

    def artefact(self, step: StepInfo) -> Path:
        """Return the folder of a step's artefact in the run folder."""
        return self.folder / step.name


class _Environment(BaseModel):
    """The content of `environment.json`."""

    model_config = ConfigDict(extra="allow")  # reports show everything

    rlaif_framework: str
    python: str
    platform: str
    processor: str
    threads: int
    gpus: list[str]
    packages: dict[str, str]


def build_report(
    spec: dict[str, Any],
    evaluation: Evaluation,
    manifests: Mapping[str, Manifest],
    status: RunStatus,
    environment: dict[str, Any],
    panels: list[Panel],
) -> RunReport:
    """Build the report of a run.

    Args:
        spec: The resolved spec as plain JSON.
        evaluation: Its evaluation.
        manifests: The manifest of each step by name, in order.
        status: What else the run has recorded.
        environment: Versions and hardware.
        panels: What plugins add.
    """
    steps = [
        StepReport(
            name=name,
            reused=name in status.reused,
            seconds=manifest.seconds,
            peak_memory_bytes=manifest.peak_memory_bytes,
            facts=manifest.facts,
        )
        for name, manifest in manifests.items()
    ]
    report = RunReport.build(spec, evaluation, steps, environment)
    more = {
        "summary": [*status.choices, *report.summary],
        "warnings": [*report.warnings, *status.data_notes],
        "panels": [*report.panels, *panels],
    }
    return report.model_copy(update=more)


def collect_panels(run: RunInfo, manager: PluginManager, progress: Progress) -> list[Panel]:
    """Return the panels that plugins add to the report; a plugin that fails is reported and does not stop the run."""
    panels: list[Panel] = []
    for plugin, found in manager.collect_panels(run):
        if isinstance(found, str):
            progress.print(f"warning: plugin '{plugin}' failed in rlaif_report_panels: {' '.join(found.split())}")
        else:
            panels += found
    return panels


def rebuild_report(folder: Path, manager: PluginManager, progress: Progress) -> list[Path]:
    """Write the report of a finished run again, from its artefacts; for a family, also those of its members.

    Args:
        folder: The folder of a run or a family.
        manager: Provides the panels, and for a family the components.
        progress: Where to print what could not be done.

    Returns:
        The HTML pages.

    Raises:
        RlaifError: The run is not finished, has no evaluation, or is damaged.
    """
    if not (folder / FAMILY).exists():
        return [_rebuild_run(RunRecord.read(folder), manager, progress)]
    with _locked_report(folder):
        return list(_rebuild_family(folder, manager, progress))


def _locked_report(folder: Path) -> AbstractContextManager[None]:
    """Prevent a run from writing the report in the same folder."""
    return locked(folder, f"writes the report in {folder}")


def _rebuild_run(record: RunRecord, manager: PluginManager, progress: Progress) -> Path:
    with _locked_report(record.folder):
        return _write_report(record, manager, progress)


def _write_report(record: RunRecord, manager: PluginManager, progress: Progress) -> Path:
    evaluation = record.read_evaluation()
    if evaluation is None or record.stage is not None:
        reason = "has no evaluation" if record.stage is None else f"is not finished: {record.stage} is missing"
        raise DataError(f"the run in {record.folder} {reason}, so it has no report")
    spec = record.read_spec()
    if evaluation.arms.keys() != spec["arms"].keys():
        path = record.folder / SUMMARY / EVALUATION
        raise DataError(f"{path} is damaged: its arms are not those of spec.yaml; {RERUN}")
    steps = [FinishedStep(name, m.stage, m.key) for name, m in record.manifests.items()]
    panels = collect_panels(FinishedSteps(record.folder, steps), manager, progress)
    environment = read_own(_Environment, record.folder / "environment.json", LARGEST_RECORD, RERUN).model_dump()
    report = build_report(
        spec, evaluation, record.manifests, record.status or RunStatus.begin([], []), environment, panels
    )
    for note in report.write(record.folder):
        progress.print(note)
    return record.folder / "report.html"


def _rebuild_family(folder: Path, manager: PluginManager, progress: Progress) -> Iterator[Path]:
    found, keys = FamilyReport.read(folder), read_family_keys(folder)
    members, lost = list[FamilyMember](), False
    measures: dict[str, list[Measure]] = {}
    curves: dict[str, list[LoggedMetric]] = {}
    for member in found.members:
        members.append(member)
        try:
            record = RunRecord.read_member(folder / member.name, keys)
            if record is None:
                raise DataError(f"member '{member.name}' {'failed' if member.state == 'failed' else 'has not run'}")
            yield _rebuild_run(record, manager, progress)
            evaluation = record.read_evaluation()
            curves[member.name] = [] if evaluation is None else list(list_training(evaluation))
            measures[member.name] = _measure(record, manager)
            members[-1] = member.model_copy(update={"state": "finished", "error": None})
        except RlaifError as error:
            progress.print(f"left out: {error}")
            lost = lost or bool(member.measures)
    if lost:
        progress.print(f"the tables of {folder} stay as they are, because the numbers of a member cannot be read again")
    else:
        found = FamilyReport.build(found.name, found.spec, members, measures, found.published)
    found.write(folder, curves)
    yield folder / PAGE


def _measure(record: RunRecord, manager: PluginManager) -> list[Measure]:
    """Read the main numbers of a run with the values of its prompts, which are those of its data.

    Raises:
        RlaifError: Its data or components are not there any more, or have changed.
    """
    spec = load_spec(record.folder / "spec.yaml", (), manager)
    summary = compose(spec, Context.from_spec(spec, manager))[-1]
    if summary.key != record.steps[SUMMARY]:
        raise DataError(
            f"the numbers of {record.folder} cannot be averaged again: its data, components or versions have changed"
        )
    return list(list_measures(summary, lambda step: record.folder / step.name))
