"""What trackers receive: a tracked run, and tables of labels and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as a tracker sees it."""

    id: str
    """Identifies the tracked run: 12 letters and digits. A run that is resumed in its folder has the same one; one with
    settings that change results has another."""
    name: str
    """Name of the run folder."""
    group: str
    """Name that runs of the same spec with different seeds have in common."""
    folder: Path
    """The run folder. Only `tensorboard` writes into it; links in it are refused."""
    settings: Mapping[str, Any]
    """The resolved spec as plain JSON, without passwords in addresses."""
    resumed: bool
    """True if the tracker has been told of this run before, by an earlier execution in the same folder."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts and numbers: labels, or samples of policies."""

    name: str
    """Name of the table, such as `labels`."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
