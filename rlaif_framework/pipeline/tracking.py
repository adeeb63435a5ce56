"""Send a run to its trackers: each step once, also if the run is interrupted and resumed.

The file `trackers.json` in the run folder records what each tracker has been sent. An error of a tracker is reported
once and stops nothing, except when it starts.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.lifecycle import StepInfo
from rlaif_framework.contracts.protocols import ResultTracker, StageTracker, TableTracker, Tracker
from rlaif_framework.contracts.stage import METRICS
from rlaif_framework.contracts.tracking import Table, TrackedRun
from rlaif_framework.errors import PluginError, RlaifError
from rlaif_framework.files import read_regular, write_atomic
from rlaif_framework.plugins.configs import TrackerConfig
from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import hash_content

RECORD = "trackers.json"
LARGEST_RECORD = 2**24
"""Maximum size of the record in bytes."""

PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
"""User and password in an address."""


class TrackerRecord(BaseModel):
    """What one tracker has been sent."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Id of the tracked run."""
    keys: dict[str, str]
    """Key of each step of the run by name."""
    logged: dict[str, dict[str, int]] = {}
    """Number of the last training step that was logged, by step and metric."""
    tables: list[str] = []
    """Tables that were logged: the step and the name of each."""
    results: str = ""
    """Hash of the results that were logged."""


_RECORDS = TypeAdapter(dict[str, TrackerRecord])


@dataclass
class _Tracked:
    """A tracker of a run, and its record."""

    tracker: Tracker
    config: TrackerConfig
    title: str
    record: TrackerRecord
    failed: bool = False
    """True if an error has been reported."""


@dataclass
class Tracking:
    """The trackers of a run; none in all processes but the main one."""

    folder: Path
    tell: Callable[[str], None]
    """Prints a warning."""
    tracked: dict[str, _Tracked] = field(default_factory=dict)

    @classmethod
    def start(
        cls, spec: Spec, context: Context, folder: Path, steps: Sequence[StepInfo], tell: Callable[[str], None]
    ) -> Tracking:
        """Start all trackers of a spec.

        Raises:
            RlaifError: A tracker cannot start.
        """
        found, records = cls(folder, tell), _read_records(folder)
        keys = {step.name: step.key for step in steps}
        settings = redact_settings(spec.model_dump(mode="json"))
        for config in spec.trackers:
            name = f"{config.kind} {hash_content(config.model_dump(mode='json'))[:8]}"
            old = records.get(name)
            resumed = old is not None and old.keys == keys
            record = old if old is not None and resumed else TrackerRecord(id=uuid.uuid4().hex[:12], keys=keys)
            title = context.manager.title("tracker", config.kind)
            run = TrackedRun(record.id, folder.resolve().name, name_group(spec), folder, settings, resumed)
            try:
                tracker = context.build_tracker(config)
                tracker.run_started(run)
            except (Exception, SystemExit) as error:
                found.run_finished(error)
                raise _explain_start(title, error) from error
            found.tracked[name] = _Tracked(tracker, config, title, record)
        found._save()
        return found

    def stage_started(self, step: StepInfo, resumed_at: int, work: Path) -> None:
        """Announce a stage that will be computed.

        Args:
            step: The step.
            resumed_at: The training step that it resumes from.
            work: The folder with the metrics of an interrupted attempt.
        """
        for tracked in self.tracked.values():
            logged = tracked.record.logged.setdefault(step.name, {})
            if tracked.config.rewinds:  # the steps after the checkpoint are logged again
                logged.update({name: min(number, resumed_at) for name, number in logged.items()})
            self._announce(tracked, step, resumed_at)
            # Of an attempt in another run folder, or with another tracker.
            for number, metrics in read_all_metrics(work) if resumed_at else ():
                if number <= resumed_at:
                    self._log(tracked, step, number, metrics)
        self._save()

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a training step to all trackers."""
        for tracked in self.tracked.values():
            self._log(tracked, step, number, metrics)
        self._save()

    def stage_finished(self, step: StepInfo, artefact: Path, tables: Callable[[], Iterable[Table]] = tuple) -> None:
        """Send what is missing of a stage whose artefact is complete: all of it if the artefact is reused.

        Args:
            step: The step.
            artefact: The folder of the artefact.
            tables: Reads its tables.
        """
        for tracked in self.tracked.values():
            logged = tracked.record.logged.setdefault(step.name, {})
            missing = [
                (number, metrics)
                for number, metrics in read_all_metrics(artefact)
                if any(number > logged.get(name, 0) for name in metrics)
            ]
            if missing:
                self._announce(tracked, step, max(logged.values(), default=0))
                for number, metrics in missing:
                    self._log(tracked, step, number, metrics)
            if isinstance(tracked.tracker, TableTracker):
                for table in tables():
                    name = f"{step.name}/{table.name}"
                    if name not in tracked.record.tables and self._call(
                        tracked, "table_logged", tracked.tracker.table_logged, step, table
                    ):
                        tracked.record.tables.append(name)
            if isinstance(tracked.tracker, StageTracker):
                self._call(tracked, "stage_finished", tracked.tracker.stage_finished, step)
        self._save()

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Send the results of the evaluation, unless they have been sent."""
        found = hash_content(dict(results))
        for tracked in self.tracked.values():
            tracker = tracked.tracker
            if not isinstance(tracker, ResultTracker) or tracked.record.results == found:
                continue
            if self._call(tracked, "results_measured", tracker.results_measured, results, report):
                tracked.record.results = found
        self._save()

    def run_finished(self, error: BaseException | None) -> None:
        """Finish all tracked runs."""
        for tracked in self.tracked.values():
            self._call(tracked, "run_finished", tracked.tracker.run_finished, error)

    def _announce(self, tracked: _Tracked, step: StepInfo, resumed_at: int) -> None:
        if isinstance(tracked.tracker, StageTracker):
            self._call(tracked, "stage_started", tracked.tracker.stage_started, step, resumed_at)

    def _log(self, tracked: _Tracked, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a training step that have not been sent."""
        logged = tracked.record.logged.setdefault(step.name, {})
        new = {name: value for name, value in metrics.items() if number > logged.get(name, 0)}
        if new and self._call(tracked, "step_logged", tracked.tracker.step_logged, step, number, new):
            logged.update(dict.fromkeys(new, number))

    def _call(self, tracked: _Tracked, method: str, function: Callable[..., None], *arguments: Any) -> bool:
        """Call a method of a tracker; return False if it fails, which is reported once."""
        try:
            function(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # plugin code may raise anything
            if not tracked.failed:
                tracked.failed = True
                reason = " ".join(describe_error(error).split())
                self.tell(f"warning: {tracked.title} failed in {method}(): {reason}; the run goes on")
            return False
        return True

    def _save(self) -> None:
        if self.tracked:
            records = {name: tracked.record for name, tracked in self.tracked.items()}
            with suppress(OSError):  # a full disk stops the stage, not its log
                write_atomic(self.folder / RECORD, _RECORDS.dump_json(records).decode())


def _read_records(folder: Path) -> dict[str, TrackerRecord]:
    """Read the record of earlier executions; empty if there is none, or if it was not written by a run."""
    try:
        return _RECORDS.validate_json(read_regular(folder / RECORD, LARGEST_RECORD))
    except (OSError, ValidationError):
        return {}


def read_all_metrics(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the metrics of an artefact by training step, with those of parts of the stage, whose names they have as a
    prefix."""
    for path in sorted(folder.rglob(METRICS)):
        part = path.parent.relative_to(folder).as_posix()
        prefix = "" if part == "." else f"{part}/"
        for _, row in read_rows(path):
            yield int(row["step"]), {f"{prefix}{name}": x for name, x in row.items() if name != "step"}


def name_group(spec: Spec) -> str:
    """Return a name that runs of the same spec with different seeds have in common."""
    settings = spec.model_dump(mode="json", exclude={"name", "seed", "evaluation_seed", "trackers"})
    return f"{spec.name}-{hash_content(settings)[:8]}"


def redact_settings(value: Any) -> Any:
    """Remove users and passwords from the addresses in settings."""
    if isinstance(value, dict):
        return {name: redact_settings(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [redact_settings(inner) for inner in value]
    return PASSWORD.sub("***@", value) if isinstance(value, str) else value


def _explain_start(title: str, error: BaseException) -> RlaifError:
    if isinstance(error, RlaifError):
        return type(error)(f"{title} cannot start: {error}")
    reason = " ".join(describe_error(error).split())
    return PluginError(f"{title} cannot start: {reason}; change its settings, or remove it from the spec's 'trackers'")
