"""A stage: its folders, random seeds, metrics, progress bar and accelerator."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, TypeVar

from rlaif_framework.contracts.lifecycle import StepInfo
from rlaif_framework.contracts.values import read_number, to_plain
from rlaif_framework.errors import PluginError, TrainingError
from rlaif_framework.files import write_atomic
from rlaif_framework.records.jsonl import dump_row, read_rows
from rlaif_framework.seeds import derive_seed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rlaif_framework.progress import Progress


T = TypeVar("T")

METRICS = "metrics.jsonl"


def _no_artefact(step: StepInfo) -> Path:
    raise LookupError(f"a stage outside a run has no artefact '{step.name}'")


@dataclass
class Stage:
    """The environment of a stage, which components that train receive."""

    name: str
    """Name of the stage, e.g. `improve`; part of the name of its random streams."""
    folder: Path
    """Folder for the results; it becomes the artefact when the stage is complete."""
    checkpoint: Path
    """Folder for checkpoints; it survives an interruption and is deleted when the stage is complete."""
    run_seed: int
    """Seed of the run; see `seed` for the random streams of this stage."""
    accelerator: Accelerator
    progress: Progress
    checkpoint_seconds: float = 60.0
    """Minimum time between two checkpoints of a training loop, in seconds."""
    artefact: Callable[[StepInfo], Path] = _no_artefact
    """Returns the folder of an earlier step's artefact."""
    report_step: Callable[[int, Mapping[str, float]], None] = lambda number, metrics: None
    """Callback for the metrics of each step."""
    facts: dict[str, float | int | str] = field(default_factory=dict)
    """Counts for the artefact's manifest, such as the number of truncated prompts."""
    batch: list[int] = field(default_factory=list)
    """Indices of the items drawn in the current training step, for error messages."""
    component: str = ""
    """Title of the component that the stage runs, with its distribution and version, for error messages."""
    not_finite: set[str] = field(default_factory=set)
    """Names of the metrics that have been reported as not finite."""

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files, of all that `accelerate launch` started."""
        return bool(self.accelerator.is_main_process)

    def seed(self, *names: str | int) -> int:
        """Derive the seed of a named random stream of this stage."""
        return derive_seed(self.run_seed, self.name, *names)

    @contextmanager
    def reading_checkpoint(self) -> Iterator[None]:
        """Report an error in this block as a damaged checkpoint; for code that reads what an interrupted run left.

        Raises:
            TrainingError: The block failed.
        """
        try:
            yield
        except Exception as error:
            raise TrainingError(
                f"what an interrupted run left in {self.checkpoint} cannot be read ({type(error).__name__}: {error}); "
                f"delete {self.checkpoint} and {self.folder}, and rerun the same command to start the step over"
            ) from error

    def part(self, name: str) -> Stage:
        """Create a stage within this one, with its own folders and random streams; its name prefixes its metrics."""
        folder, checkpoint = self.folder / name, self.checkpoint / name
        folder.mkdir(exist_ok=True)  # both exist if the stage is resumed
        checkpoint.mkdir(exist_ok=True)

        def report(number: int, metrics: Mapping[str, float]) -> None:
            self.report_step(number, {f"{name}/{key}": value for key, value in metrics.items()})

        return replace(
            self, name=f"{self.name} {name}", folder=folder, checkpoint=checkpoint, facts={}, report_step=report
        )

    def track(self, items: Iterable[T], total: int, text: str, done: int = 0) -> Iterator[T]:
        """Iterate with a progress bar; `done` of the `total` items were finished before."""
        return self.progress.track(items, total, text, done)

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of a step to `metrics.jsonl`, and call the lifecycle hooks.

        Scalars of numpy and torch are converted. A metric that is not finite is left out, and reported once.

        Raises:
            PluginError: A metric is not a number.
        """
        if not self.is_main:
            return
        number, values = int(number), self._read_metrics(number, metrics)
        # Opened for each step, so that the metrics are on disk if the process is killed.
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(dump_row({"step": number, **values}))
        self.report_step(number, values)

    def read_facts(self) -> None:
        """Convert the facts to values of JSON. A number that is not finite is recorded as text.

        Raises:
            PluginError: A fact is neither a number nor a text.
        """
        for name, value in self.facts.items():
            plain = to_plain(value)
            number = read_number(value)
            if not isinstance(name, str) or (number is None and not isinstance(plain, str)):
                raise PluginError(f"{self._title}: fact {name!r} is {short(value)}, neither a number nor a text")
            if number is not None and not isinstance(plain, int):
                plain = number if math.isfinite(number) else str(number)
            self.facts[name] = plain

    def _read_metrics(self, number: int, metrics: Mapping[str, object]) -> dict[str, float]:
        """Return the finite metrics as floats."""
        found = {}
        for name, value in metrics.items():
            metric = read_number(value)
            if not isinstance(name, str) or metric is None:
                raise PluginError(f"{self._title}: metric {name!r} of step {number} is {short(value)}, not a number")
            if math.isfinite(metric):
                found[name] = metric
            elif name not in self.not_finite:
                self.not_finite.add(name)
                text = f"metric '{name}' of step {number} is {metric}, and is left out of the log"
                self.progress.print(f"warning: {self._title}: {text}")
        return found

    @property
    def _title(self) -> str:
        return self.component or f"stage '{self.name}'"

    def rewind_log(self, number: int) -> None:
        """Delete the metrics after a step, which an interrupted run logged after its last checkpoint."""
        path = self.folder / METRICS
        if not self.is_main or not path.exists():
            return
        kept = []
        with self.reading_checkpoint():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the last row, if the process was killed during a write
                    break
                if row["step"] > number:
                    break
                kept.append(dump_row(row))
        write_atomic(path, "".join(kept))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of an artefact, one row per step; empty if it has none."""
    path = folder / METRICS
    return [row for _, row in read_rows(path)] if path.exists() else []


def resume_step(checkpoint: Path) -> int:
    """Return the step that a stage resumes from, 0 if it has no checkpoint."""
    found = [int(p.name.removeprefix("step-")) for p in checkpoint.glob("step-*") if p.name[5:].isdigit()]
    return max(found, default=0)
