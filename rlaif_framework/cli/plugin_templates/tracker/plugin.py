"""The tracker `acme/jsonl`: appends the settings, metrics and results of runs to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from pydantic import Field
from rlaif_framework import Component, Context, DataError, TrackerConfig, hookimpl

if TYPE_CHECKING:
    from rlaif_framework import StepInfo, TrackedRun


class JsonlConfig(TrackerConfig):
    """Append the settings, metrics and results of runs to a file of JSON Lines."""

    kind: Literal["acme/jsonl"] = "acme/jsonl"
    path: Path
    """The file. Rows of several runs can be told apart by their `run`."""
    every: int = Field(1, ge=1)
    """Interval, in training steps, at which metrics are written."""


class JsonlTracker:
    """Writes a row for each event. An error in a method other than `run_started` does not stop the run."""

    def __init__(self, config: JsonlConfig, context: Context) -> None:
        self.config = config
        self.file: TextIO | None = None
        self.run = ""

    def run_started(self, run: TrackedRun) -> None:
        """Open the file; an error here stops the run before anything is computed."""
        self.run = run.id
        try:
            self.config.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.config.path.open("a", encoding="utf-8", buffering=1)  # each line is written at once
        except OSError as error:
            raise DataError(f"cannot write {self.config.path}: {error.strerror}; change 'path'") from error
        if not run.resumed:
            self._write({"name": run.name, "settings": run.settings})

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a training step."""
        if (number - 1) % self.config.every == 0:
            self._write({"step": step.name, "number": number, **metrics})

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Write the results of the evaluation. This method is optional: see the protocol `ResultTracker`."""
        self._write({"results": dict(results), "report": str(report)})

    def run_finished(self, error: BaseException | None) -> None:
        """Write how the run ended, and close the file."""
        self._write({"finished": error is None, "error": None if error is None else repr(error)})
        if self.file is not None:
            self.file.close()

    def _write(self, row: Mapping[str, object]) -> None:
        if self.file is not None:
            self.file.write(json.dumps({"run": self.run, **row}, ensure_ascii=False) + "\n")


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer `acme/jsonl`."""
    yield Component("acme/jsonl", JsonlConfig, "rlaif_acme:JsonlTracker")
