"""What a stage works with: folders, random seeds, a log, a progress bar and the accelerator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlaif_framework.contracts.lifecycle import StepInfo
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
    """Handed to stages and to the components that train."""

    name: str
    """Stage, e.g. `improve`: first name of its random streams."""
    folder: Path
    """Write results here; the folder becomes the artefact when the stage is done."""
    checkpoint: Path
    """Survives an interruption and is dropped when the stage is done."""
    run_seed: int
    """The run's seed; see `seed` for those of this stage's random streams."""
    accelerator: Accelerator
    progress: Progress
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints of a training loop."""
    artefact: Callable[[StepInfo], Path] = _no_artefact
    """Return the folder of an earlier step's artefact."""
    report_step: Callable[[int, Mapping[str, float]], None] = lambda number, metrics: None
    """Told of every logged step."""
    facts: dict[str, float | int | str] = field(default_factory=dict)
    """Put into the artefact's manifest: counts worth knowing, such as prompts that were cut."""
    batch: list[int] = field(default_factory=list)
    """Places of the items that the training step under way has drawn, for messages."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files (one of all that `accelerate launch` started)."""
        return bool(self.accelerator.is_main_process)

    def seed(self, *names: str | int) -> int:
        """Seed of a named random stream of this stage."""
        return derive_seed(self.run_seed, self.name, *names)

    def part(self, name: str) -> Stage:
        """A stage within this one: a folder, checkpoints and random streams of its own; its metrics bear its name."""
        folder, checkpoint = self.folder / name, self.checkpoint / name
        folder.mkdir(exist_ok=True)
        checkpoint.mkdir(exist_ok=True)

        def report(number: int, metrics: Mapping[str, float]) -> None:
            self.report_step(number, {f"{name}/{key}": value for key, value in metrics.items()})

        return replace(
            self, name=f"{self.name} {name}", folder=folder, checkpoint=checkpoint, facts={}, report_step=report
        )

    def track(self, items: Iterable[T], total: int, text: str, done: int = 0) -> Iterator[T]:
        """Show progress with rate and time left while iterating; `done` of `total` were finished before."""
        return self.progress.track(items, total, text, done)

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Append one step's metrics to `metrics.jsonl` and tell the lifecycle hooks."""
        if not self.is_main:
            return
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(dump_row({"step": number, **metrics}))
        self.report_step(number, metrics)

    def rewind_log(self, number: int) -> None:
        """Drop metrics after a step: what an interrupted try logged beyond its last checkpoint."""
        path = self.folder / METRICS
        if not self.is_main or not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # cut off in the middle of a write
                break
            if row["step"] > number:
                break
            kept.append(dump_row(row))
        path.write_text("".join(kept), encoding="utf-8")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Metrics of an artefact, a row a step; empty if it logged none."""
    path = folder / METRICS
    return [row for _, row in read_rows(path)] if path.exists() else []


def resume_step(checkpoint: Path) -> int:
    """The step a stage would continue from: 0 if it has no checkpoint."""
    found = [int(p.name.removeprefix("step-")) for p in checkpoint.glob("step-*") if p.name[5:].isdigit()]
    return max(found, default=0)
