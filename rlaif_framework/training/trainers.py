"""Run a trainer of transformers, or of a library that builds on it, within a stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage, resume_step

LEFT_OUT = ("step_time", "num_tokens")
"""Metrics that are not logged: times, and a count that starts over when a trainer is resumed."""


def trainer_arguments(context: Context, stage: Stage) -> dict[str, Any]:
    """Return the training arguments that the run determines: folder, seed, precision, device, logging and saving.

    Args:
        context: Settings of the policy, precision and device.
        stage: Stage that trains.
    """
    return {
        "output_dir": str(stage.checkpoint),
        "seed": stage.seed("trainer") % 2**32,
        "bf16": context.dtype == torch.bfloat16,
        "use_cpu": context.device.type == "cpu",
        "dataloader_pin_memory": context.device.type == "cuda",
        "gradient_checkpointing": context.policy.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",  # `run_trainer` saves checkpoints
        "report_to": "none",
        "disable_tqdm": True,
    }


def run_trainer(trainer: Trainer, stage: Stage) -> nn.Module:
    """Train, from the last checkpoint if the stage was interrupted, and return the model.

    The metrics of each step and the progress are those of the stage, and so is the interval between checkpoints.

    Args:
        trainer: A trainer whose arguments include those of `trainer_arguments`.
        stage: Stage that trains.
    """
    trainer.remove_callback(PrinterCallback)  # it prints metrics
    trainer.add_callback(_StageCallback(stage))
    start = resume_step(stage.checkpoint)
    stage.rewind_log(start)  # an interrupted run may have logged steps after its last checkpoint
    trainer.train(resume_from_checkpoint=str(stage.checkpoint / f"step-{start}") if start else None)
    model: nn.Module = trainer.accelerator.unwrap_model(trainer.model)
    return model


class _StageCallback(TrainerCallback):
    """Writes the log and the checkpoints of a trainer to its stage, and shows its progress."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.saved = stage, time.monotonic()
        self.bar: Iterator[int] = iter(())

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start the progress bar."""
        done, steps = state.global_step, state.max_steps
        self.bar = self.stage.track(range(done, steps), steps, self.stage.name, done)
        next(self.bar, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Ask for a checkpoint if the last one is old enough."""
        next(self.bar, None)
        old = time.monotonic() - self.saved >= self.stage.checkpoint_seconds and state.global_step < state.max_steps
        # The clocks of processes differ, but each must write its part of a checkpoint.
        (control.should_save,) = broadcast_object_list([old])

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **rest: Any) -> None:
        """Log the metrics of a step. The summary at the end of the training has no loss, and is no step."""
        if logs is not None and "loss" in logs:
            kept = {name: value for name, value in logs.items() if value is not None and name not in LEFT_OUT}
            self.stage.log(state.global_step, kept)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Rename a complete checkpoint, since only those are resumed from, and delete older ones."""
        folder, number = self.stage.checkpoint, state.global_step
        self.stage.accelerator.wait_for_everyone()
        if self.stage.is_main:
            older = list(folder.glob("step-*"))
            (folder / f"checkpoint-{number}").rename(folder / f"step-{number}")
            for path in older:
                shutil.rmtree(path)
        self.saved = time.monotonic()
