"""The interfaces of a run and its steps that lifecycle hooks receive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class StepInfo(Protocol):
    """One step of a run."""

    @property
    def name(self) -> str:
        """Path of its artefact in the run folder, such as `rlaif/reward`."""
        ...

    @property
    def stage(self) -> str:
        """Kind of the step, such as `reward`."""
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
        """State that plugins keep between hooks, each under its own name."""
        ...

    @property
    def steps(self) -> Sequence[StepInfo]:
        """All steps of the run, in order."""
        ...

    def artefact(self, step: StepInfo) -> Path:
        """Return the folder of a step's finished artefact in the store."""
        ...
