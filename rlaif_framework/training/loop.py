"""The training loop that all trainers share, with exact resuming from checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError, TrainingError
from rlaif_framework.memory import release_memory
from rlaif_framework.spec.model import OptimizerConfig
from rlaif_framework.training.checkpoints import restore_checkpoint, save_checkpoint

T = TypeVar("T")


RELEASE_SECONDS = 60.0
"""Seconds between two releases of freed memory to the system. Releasing more often slows down steps, which then have to
request the memory again."""

StepFunction = Callable[[int], Iterable[Mapping[str, float]]]
"""Computes a step by its number, and yields the metrics of each update; see `train_steps`."""

Schedule = Literal["constant", "linear", "cosine"]


def train_steps(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    steps: int,
    step: StepFunction,
    *,
    text: str,
    warmup: int = 0,
    schedule: Schedule = "linear",
    max_grad_norm: float = 1.0,
    state: MutableMapping[str, float] | None = None,
    after: Callable[[int], bool] = lambda number: False,
) -> None:
    """Run steps 0 .. steps-1: log each, save checkpoints regularly, and resume from the last one.

    All random numbers of a step are seeded by the step's number. A checkpoint therefore needs no random state, and on
    a CPU a resumed run equals an uninterrupted one bit for bit.

    Args:
        stage: Source of seeds, log and checkpoint folder.
        modules: Trained modules by name; only parameters that require a gradient are saved.
        optimizer: Optimiser of those parameters; its learning rates are the peak rates.
        steps: Total number of steps.
        step: Computes a step. It calls `accelerator.backward` and then yields metrics to log, once for each update of
            the optimiser; the log has their means over the updates.
        text: Label of the progress bar.
        warmup: Steps of linear warm-up.
        schedule: Learning rate after the warm-up: constant, or a linear or cosine decay to zero.
        max_grad_norm: Gradients of each module are clipped to this norm.
        state: Numbers that steps carry over, such as an adaptive coefficient; saved in checkpoints and restored.
        after: Called with the number of completed steps after each one; training stops early if it returns True.

    Raises:
        TrainingError: A metric or gradient is not finite. The last checkpoint is kept.
    """
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    state = {} if state is None else state
    start, last_saved = restore_checkpoint(stage, modules, optimizer, state), time.monotonic()
    released = last_saved
    # An interrupted run may have logged steps after its last checkpoint.
    stage.rewind_log(start)
    for number in stage.track(range(start, steps), steps, text, done=start):
        # numpy takes seeds below 2**32; with `device_specific`, processes draw different random numbers.
        set_seed(stage.seed("step", number) % 2**32, device_specific=True)
        rate = learning_rate(number, steps, warmup, schedule)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate  # set directly: a scheduler would be another state to save
        place = f"stage '{stage.name}', step {number + 1} of {steps}"
        metrics = _update_weights(stage, modules, optimizer, step(number), max_grad_norm, place)
        if time.monotonic() - released >= RELEASE_SECONDS:
            release_memory()
            released = time.monotonic()
        stage.log(number + 1, metrics)
        if after(number + 1):
            break
        # By time instead of steps: checkpoints then take a bounded share of it, however long a step takes.
        if time.monotonic() - last_saved >= stage.checkpoint_seconds and number + 1 < steps:
            save_checkpoint(stage, modules, optimizer, state, number + 1)
            last_saved = time.monotonic()


def _update_weights(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    updates: Iterable[Mapping[str, float]],
    max_grad_norm: float,
    place: str,
) -> dict[str, float]:
    """Clip gradients and step the optimiser once for each update; return the metrics averaged over the updates.

    Args:
        stage: The stage, for the accelerator and error messages.
        modules: Trained modules by name.
        optimizer: Optimiser of their parameters.
        updates: Metrics of each update, whose gradients have been computed when it is yielded.
        max_grad_norm: Gradients of each module are clipped to this norm.
        place: Stage and step, for error messages.

    Raises:
        TrainingError: A metric or gradient is not finite.
    """
    logged: list[dict[str, float]] = []
    # The code between two updates runs in the generator: gradients are computed when an update is yielded.
    for update in _locate_errors(updates, stage, place):
        metrics = dict(update)
        for name, module in modules.items():
            norm = stage.accelerator.clip_grad_norm_(module.parameters(), max_grad_norm)
            metrics[f"{name}_grad_norm"] = float(norm) if norm is not None else 0.0
        # Before the optimiser step, so that the weights stay finite.
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{place}, update {len(logged) + 1}{_name_batch(stage)}: {', '.join(bad)} not finite; lower the "
                f"learning rate or set dtype: fp32. The last checkpoint is kept: rerun the same command to resume"
            )
        optimizer.step()
        # Inside an open autocast region, cached casts of the old weights would be used again.
        torch.clear_autocast_cache()
        optimizer.zero_grad(set_to_none=True)
        logged.append(metrics)
    return {key: sum(m[key] for m in logged) / len(logged) for key in logged[-1]}


def _locate_errors(updates: Iterable[T], stage: Stage, place: str) -> Iterator[T]:
    """Iterate over the updates of a step, and prepend the step and its batch to the message of an error."""
    try:
        yield from updates
    except (TrainingError, DataError) as error:
        raise type(error)(f"{place}{_name_batch(stage)}: {error}") from error


def _name_batch(stage: Stage) -> str:
    """Format the first items of the current batch, numbered from 1, for an error message."""
    shown = ", ".join(str(item + 1) for item in stage.batch[:8])
    return f" (training items {shown}{', ...' if len(stage.batch) > 8 else ''})" if shown else ""


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Create an optimiser without weight decay.

    Args:
        parameters: Trained parameters, or groups of them with their own learning rates.
        config: Optimiser, peak learning rate and epsilon. Adafactor (Shazeer & Stern 2018) multiplies the rate by the
            root mean square of each parameter, and has its own epsilon.
    """
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=config.lr, weight_decay=0.0)
    return torch.optim.AdamW(parameters, lr=config.lr, eps=config.adam_eps, weight_decay=0.0, fused=True)


def learning_rate(number: int, steps: int, warmup: int, schedule: Schedule) -> float:
    """Return a step's learning rate as a fraction of the peak rate.

    The rate rises linearly to the peak, which step `warmup` has, and decays from there to zero. It is the schedule of
    transformers without its first step, whose rate is zero.

    Args:
        number: Number of the step, in 0 .. steps-1.
        steps: Total number of steps.
        warmup: Steps before the peak.
        schedule: Learning rate after the peak.
    """
    warmup = min(warmup, steps - 1)  # so that the last step has the peak, if all are used for warm-up
    if number < warmup:
        return (number + 1) / (warmup + 1)
    done = (number - warmup) / (steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def draw_batch(stage: Stage, total: int, size: int, number: int) -> list[int]:
    """Return the indices of a step's batch: each epoch is a new permutation, and a batch may span two epochs.

    Args:
        stage: Source of the seeds; its `batch` is set, for error messages.
        total: Number of training items.
        size: Items in a batch.
        number: Number of the step.
    """
    # It depends only on the number of the step, so that a resumed run draws the same batches.
    positions = range(number * size, (number + 1) * size)
    orders = {
        epoch: torch.randperm(total, generator=torch.Generator().manual_seed(stage.seed("epoch", epoch)))
        for epoch in {position // total for position in positions}
    }
    stage.batch = [int(orders[position // total][position % total]) for position in positions]
    return stage.batch


def local_shard(accelerator: Accelerator, batch: list[int]) -> list[int]:
    """Return this process's part of a step's batch: as many items as those of the others, or one more.

    Raises:
        TrainingError: There are more processes than items.
    """
    number, processes = accelerator.process_index, accelerator.num_processes
    if len(batch) < processes:
        raise TrainingError(
            f"a batch of {len(batch)} cannot be divided among {processes} processes; use batches of {processes} or "
            "more, or fewer processes"
        )
    return batch[number * len(batch) // processes : (number + 1) * len(batch) // processes]


def accumulate(accelerator: Accelerator, modules: Sequence[nn.Module], parts: Sequence[T]) -> Iterator[T]:
    """Iterate over the microbatches of an update, whose gradients accumulate.

    Gradients are synchronised once, with the last microbatch. Processes may have different numbers of microbatches, so
    synchronising each of them would leave some processes waiting forever.
    """
    # Autocast caches its casts until the outermost region ends: fp32 weights are cast once for all microbatches.
    with torch.autocast(accelerator.device.type, enabled=False):
        for number, part in enumerate(parts, 1):
            with ExitStack() as stack:
                if number < len(parts):
                    for module in modules:
                        stack.enter_context(accelerator.no_sync(module))
                yield part
