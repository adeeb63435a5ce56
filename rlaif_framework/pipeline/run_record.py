"""Read what a run has recorded in its folder, which may be unfinished or damaged, or come from a stranger.

No component is imported, and neither data nor models are looked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.errors import DataError
from rlaif_framework.files import is_locked, read_regular, write_atomic
from rlaif_framework.metrics.evaluation import EVALUATION, Evaluation
from rlaif_framework.pipeline.run_folder import LARGEST_RECORD, RECORD, STEP_NAME
from rlaif_framework.report.family_report import FAMILY
from rlaif_framework.store import MANIFEST

FAMILY_STEPS = "steps.json"
"""Name of the file in the folder of a family with the artefacts that its members need."""

STATUS = "status.json"
SUMMARY = "evaluation/summary"
"""Name of the last step of a run with an evaluation."""

LARGEST_EVALUATION = 2**28
"""Maximum size of an evaluation in bytes."""

State = Literal["finished", "running", "failed", "interrupted"]


class RunStatus(BaseModel):
    """The last execution of a run."""

    model_config = ConfigDict(frozen=True)

    started: datetime
    ended: datetime | None = None
    """None while it runs, and if it was killed."""
    error: str | None = None
    """Why it failed; None if it did not, or was interrupted."""
    choices: list[str] = []
    """Sentences about what the spec leaves open, such as its judge."""
    data_notes: list[str] = []
    """Sentences about the data, such as rows that are left out."""
    reused: list[str] = []
    """The steps that were not computed by this execution."""

    @classmethod
    def begin(cls, choices: list[str], data_notes: list[str]) -> RunStatus:
        """Return the status of an execution that starts now."""
        return cls(started=datetime.now(UTC), choices=choices, data_notes=data_notes)

    def end(self, error: BaseException | None) -> RunStatus:
        """Return the status of an execution that ends now, with the error that ends it."""
        failed = isinstance(error, Exception)  # an interrupt from the keyboard is none
        return self.model_copy(update={"ended": datetime.now(UTC), "error": str(error) if failed else None})

    def with_reused(self, steps: Mapping[str, bool]) -> RunStatus:
        """Return the status with the steps that were reused, by name."""
        return self.model_copy(update={"reused": [name for name, reused in steps.items() if reused]})

    def write(self, folder: Path) -> None:
        """Write `status.json` into the run folder."""
        write_atomic(folder / STATUS, self.model_dump_json(indent=1))


def read_family_keys(folder: Path) -> frozenset[str]:
    """Return the keys of all steps of a family; none if the folder has no record of them.

    Raises:
        DataError: The record is damaged.
    """
    if not (folder / FAMILY_STEPS).exists():
        return frozenset()
    keys = read_object(folder / FAMILY_STEPS).get("keys")
    if not isinstance(keys, list):
        raise DataError(f"{folder / FAMILY_STEPS} is damaged: it has no list of keys")
    return frozenset(map(str, keys))


@dataclass(frozen=True)
class RunRecord:
    """The record of a run, and what its artefacts say about themselves."""

    folder: Path
    steps: Mapping[str, str]
    """The keys of its steps by name, in order."""
    status: RunStatus | None
    """None if the run has recorded none."""

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read the record of a run folder.

        Raises:
            DataError: The folder is not that of a run, or its record is damaged.
        """
        if not (folder / RECORD).exists():
            if (folder / FAMILY).exists():
                raise DataError(f"{folder} is the folder of a family; name the folder of one of its members")
            raise DataError(f"{folder} is not the folder of a run: it has no {RECORD}")
        steps = read_object(folder / RECORD).get("steps")
        if not isinstance(steps, dict) or not all(STEP_NAME.fullmatch(name) for name in steps):
            raise DataError(f"{folder / RECORD} is damaged: its steps are not the names of artefacts")
        return cls(folder, {name: str(key) for name, key in steps.items()}, _read_status(folder))

    @classmethod
    def read_member(cls, folder: Path, keys: frozenset[str]) -> RunRecord | None:
        """Read the record of a member of the family with these keys; None if it has not run.

        A member that failed in a stage which others share may have the folder of an earlier version of the family.

        Raises:
            DataError: The record is damaged.
        """
        if not (folder / RECORD).exists():
            return None
        record = cls.read(folder)
        return record if not keys or keys.issuperset(record.steps.values()) else None

    @cached_property
    def manifests(self) -> Mapping[str, dict[str, Any]]:
        """The manifests of the finished steps by name, in order."""
        found = {}
        for name, key in self.steps.items():
            path = self.folder / name / MANIFEST
            manifest = read_object(path) if path.is_file() else {}
            if manifest.get("key") == key:  # otherwise it is of an earlier version of the spec
                found[name] = manifest
        return found

    @property
    def stage(self) -> str | None:
        """The first step that is not finished; None if all are."""
        return next((name for name in self.steps if name not in self.manifests), None)

    @property
    def state(self) -> State:
        """Its state. A run that was killed is interrupted."""
        failed = self.status is not None and self.status.error is not None
        if self.stage is None and not failed:
            return "finished"
        if is_locked(self.folder):
            return "running"
        return "failed" if failed else "interrupted"

    @property
    def seconds(self) -> float:
        """The time that the finished steps took, also those that were computed by an earlier run."""
        return sum(float(manifest.get("seconds", 0.0)) for manifest in self.manifests.values())

    def read_spec(self) -> dict[str, Any]:
        """Read the resolved spec as plain values, without validation.

        Raises:
            DataError: It is missing or damaged.
        """
        return read_mapping(self.folder / "spec.yaml", "spec")

    def read_evaluation(self) -> Evaluation | None:
        """Read the evaluation; None if there is none, or it is not finished.

        Raises:
            DataError: It is damaged.
        """
        if SUMMARY not in self.manifests:
            return None
        path = self.folder / SUMMARY / EVALUATION
        try:
            return Evaluation.model_validate_json(read_regular(path, LARGEST_EVALUATION))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error}") from error
        except ValidationError as error:
            raise DataError(f"{path} is damaged: {error.error_count()} values are wrong") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run has written.

    Raises:
        DataError: It is damaged.
    """
    try:
        found = json.loads(read_regular(path, LARGEST_RECORD))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: it does not hold a JSON object")
    return found


def _read_status(folder: Path) -> RunStatus | None:
    """Read the status of a run; None if it has none, or a damaged one, without which the state is known as well."""
    try:
        return RunStatus.model_validate(read_object(folder / STATUS))
    except (DataError, ValidationError):
        return None
