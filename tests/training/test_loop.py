"""The learning rate against the schedules of transformers."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
import torch
from transformers import get_scheduler

from rlaif_framework.training.loop import Schedule, learning_rate


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
