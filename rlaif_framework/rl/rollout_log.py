"""The measured responses of each step on disk, for the alarm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate.utils import gather_object

from rlaif_framework.contracts.stage import Stage
from rlaif_framework.data.text import copy_rate
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.samples import MeasuredSample
from rlaif_framework.rl.rollouts import Rollout


def log_rollout(stage: Stage, number: int, rollout: Rollout, rewards: Sequence[float] | None) -> None:
    """Write the responses of all processes; all of them must call this.

    A file for each step: a resumed run replaces those after its checkpoint.

    Args:
        stage: Stage that trains; the files survive an interruption and are deleted when it is complete.
        number: Number of the step.
        rollout: The responses.
        rewards: Their rewards; None without a reward.
    """
    samples = gather_object([asdict(sample) for sample in measure_rollout(rollout, rewards)])
    if stage.is_main:
        _folder(stage).mkdir(exist_ok=True)
        write_rows(_file(stage, number), samples)


def read_rollouts(stage: Stage, numbers: Iterable[int]) -> list[MeasuredSample]:
    """Read the responses of some steps; none of steps whose algorithm did not save them."""
    files = [path for path in (_file(stage, number) for number in numbers) if path.exists()]
    with stage.reading_checkpoint():
        return [MeasuredSample(**row) for path in files for _, row in read_rows(path)]


def measure_rollout(rollout: Rollout, rewards: Sequence[float] | None) -> Iterator[MeasuredSample]:
    """Yield the responses with what the alarm compares; the arguments are those of `log_rollout`."""
    for i, (prompt, sample) in enumerate(zip(rollout.prompts, rollout.samples, strict=True)):
        metrics = {name.removeprefix("task/"): value for name, value in rollout.metrics[i].items()}
        if "copy_rate" not in metrics:  # the task does not measure it
            metrics["copy_rate"] = copy_rate(prompt.source, rollout.texts[i])
        if rewards is not None:
            metrics["reward"] = rewards[i]
        yield MeasuredSample(prompt.id, sample.ids[:-1] if sample.finished else sample.ids, metrics)


def _folder(stage: Stage) -> Path:
    return stage.checkpoint / "rollouts"


def _file(stage: Stage, number: int) -> Path:
    return _folder(stage) / f"step-{number}.jsonl"
