"""Responses sampled in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif_framework.contracts.protocols import Task
from rlaif_framework.metrics.response_metrics import measure_sample
from rlaif_framework.models.packing import Group
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.training.averages import MetricAverager


@dataclass(frozen=True, slots=True)
class Rollout:
    """Responses that this process sampled in one step; lists are over responses, prompt by prompt."""

    prompts: list[Prompt]
    """The prompt of each response."""
    samples: list[Sample]
    """Token ids and texts as sampled."""
    texts: list[str]
    """The responses after `Task.clean`."""
    groups: list[Group]
    """Token ids, one group for each prompt."""
    metrics: list[dict[str, float]]
    """What every response has, such as `tokens` and `eos_rate`, and the task's own metrics, as `task/NAME`."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(response) for group in self.groups for response in group.responses]

    @property
    def finished(self) -> Tensor:
        """(responses,) bool: True if the end token was sampled."""
        return torch.tensor([s.finished for s in self.samples])

    @property
    def response_index(self) -> Tensor:
        """(tokens,) response of each response token."""
        return torch.arange(len(self.samples)).repeat_interleave(torch.tensor(self.lengths))

    def responses_of(self, prompts: Sequence[int]) -> Tensor:
        """Return the indices of the responses to some prompts of `groups`, (responses,)."""
        starts = _starts([len(group.responses) for group in self.groups])
        return torch.cat([torch.arange(starts[i], starts[i + 1]) for i in prompts])

    def tokens_of(self, prompts: Sequence[int]) -> Tensor:
        """Return the indices of the response tokens of some prompts of `groups`, (tokens,)."""
        starts = _starts([sum(map(len, group.responses)) for group in self.groups])
        return torch.cat([torch.arange(starts[i], starts[i + 1]) for i in prompts])


def _starts(sizes: Sequence[int]) -> list[int]:
    """Return the start of each of several consecutive pieces, and the end of the last one."""
    starts: list[int] = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return starts


def measure_response(task: Task, prompt: Prompt, sample: Sample, text: str) -> dict[str, float]:
    """Compute the metrics of a response; see `Rollout.metrics`."""
    own = {f"task/{name}": value for name, value in task.measure(prompt, text).items()}
    return {**measure_sample(sample, text), **own}


def describe_rollout(rollout: Rollout, averager: MetricAverager) -> None:
    """Add the metrics of responses, such as their lengths, the EOS rate and the task's own ones."""
    for key in dict.fromkeys(key for row in rollout.metrics for key in row):  # in order, each once
        averager.add(key, torch.tensor([row[key] for row in rollout.metrics if key in row], dtype=torch.float32))
