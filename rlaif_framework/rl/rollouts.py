"""Responses sampled in one step, and their scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif_framework.contracts.protocols import Reward, Task, TermedReward
from rlaif_framework.contracts.validation import check_scores, score_responses
from rlaif_framework.models.packing import Group
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.rl.config import MissingEosConfig
from rlaif_framework.rl.estimators import replace_missing_eos
from rlaif_framework.training.averages import MetricAverager


@dataclass(frozen=True, slots=True)
class Rollout:
    """Responses sampled in one step by this process; lists are over responses, prompt by prompt."""

    prompts: list[Prompt]
    """The prompt of each response."""
    samples: list[Sample]
    texts: list[str]
    """The responses, tidied by the task."""
    groups: list[Group]
    """Token ids, one group a prompt."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(response) for group in self.groups for response in group.responses]

    @property
    def finished(self) -> Tensor:
        """(responses,) bool: the end token was reached."""
        return torch.tensor([s.finished for s in self.samples])


def describe_rollout(rollout: Rollout, task: Task, averager: MetricAverager) -> None:
    """MetricAverager lengths, ended responses and the task's own measures."""
    averager.add("tokens", torch.tensor(rollout.lengths, dtype=torch.float32))
    averager.add("ended", rollout.finished.float())
    measured = [task.measure(p, t) for p, t in zip(rollout.prompts, rollout.texts, strict=True)]
    for key in measured[0]:
        averager.add(f"task/{key}", torch.tensor([m[key] for m in measured]))


def score_rollout(reward: Reward, rollout: Rollout, averager: MetricAverager) -> Tensor:
    """Score responses, (responses,) fp32; the terms of a reward that has several are tallied.

    Raises:
        TrainingError: A score is not a finite number; the prompt is named.
    """
    if isinstance(reward, TermedReward):
        terms = reward.score_terms(rollout.prompts, rollout.texts)
        for name, values in terms.items():
            averager.add(f"reward/{name}", torch.tensor(list(values), dtype=torch.float32))
        scores = [sum(parts) for parts in zip(*terms.values(), strict=True)]
        check_scores(scores, rollout.prompts, rollout.texts)
    else:
        scores = score_responses(reward, rollout.prompts, rollout.texts)
    return torch.tensor(scores, dtype=torch.float32)


def penalise_missing_eos(
    config: MissingEosConfig, scores: Tensor, rollout: Rollout, averager: MetricAverager
) -> Tensor:
    """Scores, (responses,), after what `config` says of responses without an end token; the change is tallied."""
    if not config.missing_eos_penalty and config.missing_eos_reward is None:
        return scores
    finished = rollout.finished.to(scores.device)
    changed = replace_missing_eos(scores, finished, config.missing_eos_penalty, config.missing_eos_reward)
    averager.add("reward/missing_eos", changed - scores)
    return changed
