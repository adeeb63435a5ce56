"""Read what a run has recorded in its folder, which may be unfinished or damaged, or come from a stranger.

No component is imported, and neither data nor models are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.errors import DataError
from rlaif_framework.files import describe_first, is_locked, read_own, write_atomic
from rlaif_framework.metrics.evaluation import EVALUATION, Evaluation
from rlaif_framework.pipeline.run_folder import LARGEST_RECORD, RECORD, StepKeys
from rlaif_framework.report.family_report import FAMILY
from rlaif_framework.store import MANIFEST, Manifest

FAMILY_STEPS = "steps.json"
"""Name of the file in the folder of a family with the artefacts that its members need."""

STATUS = "status.json"
SUMMARY = "evaluation/summary"
"""Name of the last step of a run with an evaluation."""

LARGEST_EVALUATION = 2**28
"""Maximum size of an evaluation in bytes."""

RERUN = "rerun the spec in the same folder to write it again"
"""What to do about a damaged record."""

State = Literal["finished", "running", "failed", "interrupted"]


class RunStatus(BaseModel):
    """The last execution of a run."""

    model_config = ConfigDict(frozen=True)

    started: AwareDatetime
    ended: AwareDatetime | None = None
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


class _Component(BaseModel):
    kind: str


class _Pairs(BaseModel):
    source: str


class _Feedback(_Component):
    labeler: _Component
    pairs: _Pairs


class _Arm(BaseModel):
    feedback: _Feedback | None


class _Policy(BaseModel):
    model: str
    max_new_tokens: int


class _ResolvedSpec(BaseModel):
    """The settings that reports and cards show. The others are shown as they are, also those of absent plugins."""

    name: str
    seed: int
    task: _Component
    policy: _Policy
    arms: dict[str, _Arm]


class _FamilyKeys(BaseModel):
    """The content of `steps.json`."""

    keys: frozenset[str]


def read_family_keys(folder: Path) -> frozenset[str]:
    """Return the keys of all steps of a family; none if the folder has no record of them.

    Raises:
        DataError: The record is damaged.
    """
    if not (folder / FAMILY_STEPS).exists():
        return frozenset()
    return read_own(_FamilyKeys, folder / FAMILY_STEPS, LARGEST_RECORD, RERUN).keys


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
        record = read_own(StepKeys, folder / RECORD, LARGEST_RECORD, RERUN)
        return cls(folder, record.steps, _read_status(folder))

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
    def manifests(self) -> Mapping[str, Manifest]:
        """The manifests of the finished steps by name, in order.

        Raises:
            DataError: One of them is damaged.
        """
        places = {name: self.folder / name for name in self.steps}
        found = {name: Manifest.read(place) for name, place in places.items() if (place / MANIFEST).is_file()}
        # One with another key is of an earlier version of the spec.
        return {name: manifest for name, manifest in found.items() if manifest.key == self.steps[name]}

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
        return sum(manifest.seconds for manifest in self.manifests.values())

    def read_spec(self) -> dict[str, Any]:
        """Read the resolved spec as plain values.

        Raises:
            DataError: It is missing or damaged.
        """
        path = self.folder / "spec.yaml"
        spec = read_mapping(path, "spec")
        try:
            _ResolvedSpec.model_validate(spec)
        except ValidationError as error:
            raise DataError(f"{path} is damaged: {describe_first(error)}; {RERUN}") from None
        return spec

    def read_evaluation(self) -> Evaluation | None:
        """Read the evaluation; None if there is none, or it is not finished.

        Raises:
            DataError: It is damaged.
        """
        if SUMMARY not in self.manifests:
            return None
        return read_own(Evaluation, self.folder / SUMMARY / EVALUATION, LARGEST_EVALUATION, RERUN)


def _read_status(folder: Path) -> RunStatus | None:
    """Read the status of a run; None if it has none, or a damaged one, without which the state is known as well."""
    try:
        return read_own(RunStatus, folder / STATUS, LARGEST_RECORD, RERUN)
    except DataError:
        return None
