"""The learning rate against the schedules of transformers, and what a process gets of a batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal, get_args

import pytest
import torch
from transformers import get_scheduler

from rlaif_framework import TrainingError
from rlaif_framework.training.loop import Schedule, learning_rate, local_shard
from rlaif_framework.training.preference_batches import count_batch_prompts


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 1), (20, 2), (50, 25), (7, 6)])
def test_the_schedule_is_that_of_transformers_without_its_step_of_rate_0(
    schedule: Literal["constant", "linear", "cosine"], steps: int, warmup: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    reference = get_scheduler(name, optimizer, num_warmup_steps=warmup + 1, num_training_steps=steps + 1)
    for number in range(steps):
        optimizer.step()
        reference.step()
        assert learning_rate(number, steps, warmup, schedule) == pytest.approx(reference.get_last_lr()[0]), number


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (10, 1), (10, 5), (10, 10)])
def test_warm_up_reaches_the_peak_and_no_step_is_wasted(schedule: Schedule, steps: int, warmup: int) -> None:
    rates = [learning_rate(number, steps, warmup, schedule) for number in range(steps)]
    assert max(rates) == 1.0
    assert min(rates) > 0


@pytest.mark.parametrize(("items", "processes"), [(8, 4), (10, 4), (5, 2), (3, 3)])
def test_the_shards_of_a_batch_are_the_batch_and_none_is_empty(items: int, processes: int) -> None:
    batch = list(range(items))
    shards = [
        local_shard(SimpleNamespace(process_index=number, num_processes=processes), batch)
        for number in range(processes)
    ]
    assert [item for shard in shards for item in shard] == batch
    assert {len(shard) for shard in shards} <= {items // processes, -(-items // processes)}


def test_a_batch_with_fewer_prompts_than_processes_names_a_size_that_works() -> None:
    with pytest.raises(TrainingError) as raised:
        count_batch_prompts(24, prompts=32, labels=480, processes=4)
    assert "batch_size: 24 comparisons are about 2 prompts with 15 comparisons each, which 4 processes" in str(
        raised.value
    )
    size = int(str(raised.value).rpartition("batch_size: ")[2])
    assert (size, count_batch_prompts(size, 32, 480, 4)) == (60, 4)
    assert [count_batch_prompts(24, 32, 480, processes) for processes in (1, 2)] == [2, 2]
    assert count_batch_prompts(1, 10, 100, 1) == 1
