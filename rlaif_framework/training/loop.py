"""The loop every training stage shares: optimiser, checkpoints, and a resume that changes nothing."""

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
from rlaif_framework.training.checkpoints import _restore, _save

T = TypeVar("T")


RELEASE_SECONDS = 60.0
"""Between two hand-backs of freed memory: the step after each waits for fresh pages."""


StepFunction = Callable[[int], Iterable[Mapping[str, float]]]


Schedule = Literal["constant", "linear", "cosine"]


OptimizerKind = Literal["adamw", "adafactor"]


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
    """Run steps 0 .. steps-1, logging each, checkpointing every so often, resuming where a try was stopped.

    All randomness of a step is seeded from its number, so that a checkpoint needs no random state, and a resumed run
    equals an uninterrupted one bit for bit on a CPU.

    Args:
        stage: Gives seeds, log and checkpoint folder.
        modules: What is trained, by name; only parameters that require a gradient are saved.
        optimizer: Over those parameters; its learning rates are the peak ones.
        steps: Steps in all.
        step: Computes a step. It calls `accelerator.backward` and then yields metrics to log, once for each update of
            the optimiser; what it yields several times is averaged.
        text: What the progress bar says.
        warmup: Steps of linear warm-up.
        schedule: What the learning rate does after the warm-up: stay, or fall to zero by a line or a cosine.
        max_grad_norm: Gradients are scaled down to this norm, over all parameters of one module.
        state: Numbers the steps keep from one to the next, such as an adaptive coefficient: checkpointed, and put back
            on a resume.
        after: Called with the number of steps done after each; training ends early if it returns True.

    Raises:
        TrainingError: A metric or gradient is not finite. The last checkpoint is kept.
    """
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    state = {} if state is None else state
    start, last_saved = _restore(stage, modules, optimizer, state), time.monotonic()
    released = last_saved
    stage.rewind_log(start)
    for number in stage.track(range(start, steps), steps, text, done=start):
        set_seed(stage.seed("step", number) % 2**32, device_specific=True)
        rate = min(1.0, (number + 1) / (warmup + 1)) * _decay(schedule, number / steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        updates: list[dict[str, float]] = []
        place = f"stage '{stage.name}', step {number + 1} of {steps}"
        for yielded in _name_errors(step(number), stage, place):
            metrics = dict(yielded)
            for name, module in modules.items():
                norm = stage.accelerator.clip_grad_norm_(module.parameters(), max_grad_norm)
                metrics[f"{name}_grad_norm"] = float(norm) if norm is not None else 0.0
            bad = [name for name, value in metrics.items() if not math.isfinite(value)]
            if bad:
                raise TrainingError(
                    f"{place}, update {len(updates) + 1}{_name_batch(stage)}: {', '.join(bad)} not finite; lower the "
                    f"learning rate or use dtype: fp32. The checkpoint of an earlier step is kept: the same command "
                    f"goes on from it"
                )
            optimizer.step()
            torch.clear_autocast_cache()  # what was cast of the weights is not of these, should a region be open
            optimizer.zero_grad(set_to_none=True)
            updates.append(metrics)
        if time.monotonic() - released >= RELEASE_SECONDS:
            release_memory()
            released = time.monotonic()
        stage.log(number + 1, {key: sum(m[key] for m in updates) / len(updates) for key in updates[-1]})
        if after(number + 1):
            break
        if time.monotonic() - last_saved >= stage.checkpoint_seconds and number + 1 < steps:
            _save(stage, modules, optimizer, state, number + 1)
            last_saved = time.monotonic()


def _name_errors(updates: Iterable[T], stage: Stage, place: str) -> Iterator[T]:
    """The updates of a step; what goes wrong in it says where."""
    try:
        yield from updates
    except (TrainingError, DataError) as error:
        raise type(error)(f"{place}{_name_batch(stage)}: {error}") from error


def _name_batch(stage: Stage) -> str:
    shown = ", ".join(str(item + 1) for item in stage.batch[:8])
    return f" (training items {shown}{', ...' if len(stage.batch) > 8 else ''})" if shown else ""


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    lr: float,
    eps: float = 1e-8,
    kind: OptimizerKind = "adamw",
) -> torch.optim.Optimizer:
    """An optimiser without weight decay.

    Args:
        parameters: What is trained, or groups of it with learning rates of their own.
        lr: Peak learning rate. Adafactor multiplies it by the size (root mean square) of what it updates.
        eps: Epsilon of AdamW; Adafactor has its own.
        kind: `adamw`, each parameter updated in one pass over it, or `adafactor` (Shazeer & Stern 2018).
    """
    if kind == "adafactor":
        return torch.optim.Adafactor(parameters, lr=lr, weight_decay=0.0)
    return torch.optim.AdamW(parameters, lr=lr, eps=eps, weight_decay=0.0, fused=True)


def _decay(schedule: Schedule, done: float) -> float:
    """Factor of the learning rate when a share `done` in [0, 1) of all steps is behind."""
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def draw_batch(stage: Stage, total: int, size: int, number: int) -> list[int]:
    """Indices of one step's batch: every epoch is a new permutation, and a batch may span two epochs."""
    positions = range(number * size, (number + 1) * size)
    orders = {
        epoch: torch.randperm(total, generator=torch.Generator().manual_seed(stage.seed("epoch", epoch)))
        for epoch in {position // total for position in positions}
    }
    stage.batch = [int(orders[position // total][position % total]) for position in positions]
    return stage.batch


def local_shard(accelerator: Accelerator, batch: list[int]) -> list[int]:
    """This process's part of a step's batch.

    Raises:
        TrainingError: The batch cannot be divided evenly among the processes.
    """
    size, rest = divmod(len(batch), accelerator.num_processes)
    if rest:
        raise TrainingError(f"a batch of {len(batch)} cannot be divided among {accelerator.num_processes} processes")
    return batch[accelerator.process_index * size :][:size]


def accumulate(accelerator: Accelerator, modules: Sequence[nn.Module], parts: Sequence[T]) -> Iterator[T]:
    """Iterate over the parts of a step whose gradients add up; processes exchange gradients once, with the last part.

    Processes may have different numbers of parts: an exchange with every part would leave one waiting for the others.
    Weights in fp32 are cast once for all parts: autocast keeps what it has cast until its outermost region ends.
    """
    with torch.autocast(accelerator.device.type, enabled=False):
        for number, part in enumerate(parts, 1):
            with ExitStack() as stack:
                if number < len(parts):
                    for module in modules:
                        stack.enter_context(accelerator.no_sync(module))
                yield part
