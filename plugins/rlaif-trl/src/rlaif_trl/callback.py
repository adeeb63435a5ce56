"""Connect a trainer of transformers to a stage: metrics, checkpoints and progress."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from rlaif_framework import Stage


class StageCallback(TrainerCallback):
    """Writes the log and the checkpoints of a trainer to its stage, and shows its progress."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.saved = stage, time.monotonic()
        self.bar: Iterator[int] = iter(())

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start the progress bar."""
        steps = range(state.global_step, state.max_steps)
        self.bar = iter(self.stage.track(steps, state.max_steps, self.stage.name, done=state.global_step))
        next(self.bar, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Ask for a checkpoint if the last one is old enough."""
        next(self.bar, None)
        old = time.monotonic() - self.saved >= self.stage.checkpoint_seconds and state.global_step < state.max_steps
        # The clocks of processes differ, and each writes its part of a checkpoint.
        (control.should_save,) = broadcast_object_list([old])

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **rest: Any) -> None:
        """Log the metrics of a step; the summary at the end of the training has no loss."""
        if "loss" in logs:
            self.stage.log(state.global_step, {name: value for name, value in logs.items() if value is not None})

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Rename a checkpoint that is complete, so that no other is resumed from, and delete older ones."""
        self.stage.accelerator.wait_for_everyone()
        folder, number = self.stage.checkpoint, state.global_step
        if self.stage.is_main:
            older = list(folder.glob("step-*"))
            (folder / f"checkpoint-{number}").rename(folder / f"step-{number}")
            for path in older:
                shutil.rmtree(path)
        self.saved = time.monotonic()
