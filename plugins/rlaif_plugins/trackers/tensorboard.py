"""Write all metrics as TensorBoard events to the run folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from rlaif_framework import Component, Context, TrackerConfig, hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rlaif_framework import StepInfo, TrackedRun


class TensorboardConfig(TrackerConfig):
    """Write metrics as TensorBoard events to the run folder; `tensorboard --logdir` shows them."""

    kind: Literal["tensorboard"] = "tensorboard"
    rewinds: ClassVar[bool] = True


class TensorboardTracker:
    """One file of events for each stage."""

    def __init__(self, config: TensorboardConfig, context: Context) -> None:
        self.writers: dict[str, SummaryWriter] = {}
        """The open files by the name of the step."""

    def run_started(self, run: TrackedRun) -> None:
        """Note where the events go."""
        import torch.utils.tensorboard  # noqa: F401 - fails now rather than at the first step

        self.folder = run.folder / "tensorboard"

    def stage_started(self, step: StepInfo, resumed_at: int) -> None:
        """Remove the events after the step that a stage resumes from."""
        if resumed_at:
            self._writer(step, resumed_at)
        else:  # events of an attempt that had no checkpoint yet
            shutil.rmtree(self._events(step), ignore_errors=True)

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        writer = self._writer(step)
        for name, value in metrics.items():
            writer.add_scalar(name, value, number)

    def stage_finished(self, step: StepInfo) -> None:
        """Close the file of a stage."""
        writer = self.writers.pop(step.name, None)
        if writer is not None:
            writer.close()

    def run_finished(self, error: BaseException | None) -> None:
        """Close the files that an error left open."""
        for name in list(self.writers):
            self.writers.pop(name).close()

    def _events(self, step: StepInfo) -> Path:
        # The name depends on the key, so a changed spec gets a new folder.
        return self.folder / step.name.replace("/", "-") / step.key[:8]

    def _writer(self, step: StepInfo, resumed_at: int = 0) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if step.name not in self.writers:
            # TensorBoard ignores older events from `purge_step` on: those after the last checkpoint.
            self.writers[step.name] = SummaryWriter(self._events(step), purge_step=resumed_at + 1)
        return self.writers[step.name]


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer the tracker."""
    return [Component("tensorboard", TensorboardConfig, "rlaif_plugins.trackers.tensorboard:TensorboardTracker")]
