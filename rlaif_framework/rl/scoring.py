"""Score the responses of a rollout, and penalise those without an end-of-sequence token."""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif_framework.contracts.protocols import Reward, TermedReward
from rlaif_framework.contracts.validation import check_scores, read_measures, score_responses
from rlaif_framework.rl.config import MissingEosConfig
from rlaif_framework.rl.estimators import replace_missing_eos
from rlaif_framework.rl.rollouts import Rollout
from rlaif_framework.training.averages import MetricAverager


def score_rollout(reward: Reward, rollout: Rollout, averager: MetricAverager) -> Tensor:
    """Score responses, (responses,) fp32, and add the terms of a `TermedReward` and the measures of a
    `ReportingReward` to the metrics.

    Raises:
        TrainingError: A score is not a finite number; the message names the prompt.
    """
    if isinstance(reward, TermedReward):
        terms = reward.score_terms(rollout.prompts, rollout.texts)
        for name, values in terms.items():
            averager.add(f"reward/{name}", torch.tensor(list(values), dtype=torch.float32))
        # Summed in float64, before the scores are rounded to fp32.
        scores = [sum(parts) for parts in zip(*terms.values(), strict=True)]
        check_scores(scores, rollout.prompts, rollout.texts)
    else:
        scores = score_responses(reward, rollout.prompts, rollout.texts)
    for name, values in read_measures(reward).items():
        averager.add(f"reward/{name}", torch.tensor(list(values), dtype=torch.float32))
    return torch.tensor(scores, dtype=torch.float32)


def penalise_missing_eos(
    config: MissingEosConfig, scores: Tensor, rollout: Rollout, averager: MetricAverager
) -> Tensor:
    """Penalise or replace the scores, (responses,), of responses without an end token; log the change."""
    if not config.missing_eos_penalty and config.missing_eos_reward is None:
        return scores
    finished = rollout.finished.to(scores.device)  # (responses,)
    changed = replace_missing_eos(scores, finished, config.missing_eos_penalty, config.missing_eos_reward)
    averager.add("reward/missing_eos", changed - scores)
    return changed
