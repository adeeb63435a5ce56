"""Metrics of policy-gradient updates, averaged over the tokens of all microbatches."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from rlaif_framework.rl.config import KlEstimator
from rlaif_framework.rl.estimators import estimate_kl
from rlaif_framework.rl.experience import Targets, ValueTargets
from rlaif_framework.training.averages import MetricAverager

RATIO_OUTLIER = 0.1
"""A token's probability ratio counts as an outlier if it is further from 1 than this."""


def average_policy(
    averager: MetricAverager, logprobs: Tensor, targets: Targets, clipped: Tensor, responses: int
) -> None:
    """Add the metrics of the policy for a microbatch.

    Args:
        averager: Metrics are added to it; those with an underscore are completed by `finish_metrics`.
        logprobs: (tokens,) log-probabilities under the current policy, without gradients.
        targets: Targets of the microbatch.
        clipped: 1 for each ratio without a gradient because of clipping, 0 for the others.
        responses: Number of responses.
    """
    # Of the old policy, which sampled the tokens: these estimates are unbiased, and the same for all updates of a step.
    for name in get_args(KlEstimator):
        averager.add(f"kl_{name}", estimate_kl(targets.logprobs, targets.reference, name), responses)
    averager.add("entropy", -targets.logprobs)
    ratios = (logprobs - targets.logprobs).exp()
    averager.add("ratio", ratios)
    averager.add("_ratio_squared", ratios**2)
    averager.add("ratio_outlier_fraction", ((ratios - 1).abs() > RATIO_OUTLIER).float())
    averager.add("approx_kl", estimate_kl(targets.logprobs, logprobs, "k3"))
    averager.add("clip_fraction", clipped)
    averager.add("_advantages", targets.advantages)
    averager.add("_advantages_squared", targets.advantages**2)


def average_values(averager: MetricAverager, values: Tensor, targets: ValueTargets, clip: float | None) -> None:
    """Add the value model's metrics for the states before the tokens of a microbatch.

    Args:
        averager: Metrics are added to it; those with an underscore are completed by `finish_metrics`.
        values: (tokens,) current values.
        targets: Targets of those states, and perhaps of final states.
        clip: Maximum change of a value; None does not clip.
    """
    # States before tokens come first; final states are not averaged.
    old, returns = targets.old[: len(values)], targets.returns[: len(values)]
    if clip is not None:
        averager.add("value_clip_fraction", ((values - old).abs() > clip).float())
    errors = returns - old
    for name, of in (("returns", returns), ("errors", errors)):
        averager.add(f"_{name}", of)
        averager.add(f"_{name}_squared", of**2)


def finish_metrics(metrics: dict[str, float], beta: float) -> dict[str, float]:
    """Complete the metrics of an update with variances, which need the means over all microbatches and processes."""
    # So far the scores, which lack the KL term.
    metrics["objective"] -= beta * metrics["kl_k1"]
    metrics["beta"] = beta
    metrics["ratio_std"] = _variance(metrics["ratio"], metrics.pop("_ratio_squared")) ** 0.5
    metrics["advantage_std"] = _variance(metrics.pop("_advantages"), metrics.pop("_advantages_squared")) ** 0.5
    if "value_loss" in metrics:
        variance = _variance(metrics.pop("_returns"), metrics.pop("_returns_squared"))
        unexplained = _variance(metrics.pop("_errors"), metrics.pop("_errors_squared"))
        metrics["explained_variance"] = 1 - unexplained / variance if variance > 0 else 0.0
    return metrics


def _variance(mean: float, mean_square: float) -> float:
    return max(0.0, mean_square - mean**2)  # rounding can make it negative
