"""Rates and means with their counts and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate or mean, how many observations it rests on, and its 95 % interval."""

    value: float
    low: float
    high: float
    count: int

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies above one half."""
        return self.low > 0.5


def estimate_rate(wins: float, count: int) -> Estimate | None:
    """A proportion with its Wilson interval; a tie may count as half a win. None for no observations."""
    if count == 0:
        return None
    rate = wins / count
    # scipy's proportion_ci takes whole successes only, and a tie is half of one.
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return Estimate(rate, max(0.0, centre - half), min(1.0, centre + half), count)


def estimate_rate_at(wins: Sequence[float], features: Sequence[float], at: float) -> Estimate | None:
    """The rate of winning that a logistic regression on one feature predicts at a value of it.

    Args:
        wins: 1 for a win, 0 for a loss, 0.5 for a tie.
        features: The feature of each.
        at: Where the prediction is wanted.

    Returns:
        The rate with its Wald interval, taken on the logits. None where no finite curve fits best: the feature is the
        same everywhere, or tells all wins from all losses.
    """
    targets = np.asarray(wins, dtype=float)
    distances = np.asarray(features, dtype=float) - at
    won, lost = distances[targets > 0], distances[targets < 1]
    if not (len(won) and len(lost) and won.min() < lost.max() and lost.min() < won.max()):
        return None
    inputs = np.stack([np.ones_like(distances), distances / np.abs(distances).max()], axis=1)

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = inputs @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits)), inputs.T @ (expit(logits) - targets)

    def curvature(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        rates = expit(inputs @ weights)
        second: NDArray[np.float64] = (inputs.T * (rates * (1 - rates))) @ inputs
        return second

    best = optimize.minimize(cost, np.zeros(2), jac=True, hess=curvature, method="trust-exact").x
    half = stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt(np.linalg.inv(curvature(best))[0, 0])
    rate, low, high = map(float, expit(best[0] + np.array([0, -half, half])))
    return Estimate(rate, low, high, len(targets))


def estimate_mean(values: Sequence[float]) -> Estimate | None:
    """A mean with its Student-t interval; the interval of a single value is that value. None for no observations."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1 or max(values) == min(values):
        return Estimate(mean, mean, mean, len(values))
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=stats.sem(values))
    return Estimate(mean, float(low), float(high), len(values))


def paired_p_value(first_only: int, second_only: int) -> float:
    """Exact McNemar test: p-value for two raters who are right equally often on the same cases.

    Args:
        first_only: Cases that only the first got right.
        second_only: Cases that only the second got right.
    """
    if first_only + second_only == 0:
        return 1.0
    return float(stats.binomtest(first_only, first_only + second_only, 0.5).pvalue)


def adjust_holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several, by Holm's step-down method (1979), in the order given."""
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
