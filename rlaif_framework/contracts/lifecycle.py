"""What lifecycle hooks are told of a run and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class StepInfo(Protocol):
    """One step of a run."""

    @property
    def name(self) -> str:
        """Where its artefact is in the run folder, such as `rlaif/reward`."""
        ...

    @property
    def stage(self) -> str:
        """The kind of work, such as `reward`."""
        ...

    @property
    def key(self) -> str:
        """Hash of everything the artefact depends on."""
        ...


class RunInfo(Protocol):
    """One execution of a spec."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        ...

    @property
    def notes(self) -> dict[str, Any]:
        """Where a plugin keeps what it needs from one hook to the next, under its own name."""
        ...

    @property
    def steps(self) -> Sequence[StepInfo]:
        """All steps of the run, in order."""
        ...

    def artefact(self, step: StepInfo) -> Path:
        """Folder of a step's finished artefact in the store."""
        ...
