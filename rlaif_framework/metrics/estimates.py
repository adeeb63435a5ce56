"""Rates and means with 95 % intervals, and significance tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit

CONFIDENCE = 0.95
"""Coverage of all intervals."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate or mean with its 95 % interval and the number of observations."""

    value: float
    low: float
    high: float
    count: int

    @property
    def beats_chance(self) -> bool:
        """True if the whole interval is above one half."""
        return self.low > 0.5


def estimate_rate(wins: float, count: int) -> Estimate | None:
    """Estimate a proportion with its Wilson interval; None without observations. A tie may count as half a win."""
    if count == 0:
        return None
    rate = wins / count
    # Not scipy's proportion_ci, which needs a whole number of successes: a tie is half of one.
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return Estimate(rate, max(0.0, centre - half), min(1.0, centre + half), count)


def estimate_rate_at(wins: Sequence[float], features: Sequence[float], at: float) -> Estimate | None:
    """Estimate the win rate at a value of a feature, by logistic regression.

    Args:
        wins: 1 for a win, 0 for a loss, 0.5 for a tie.
        features: The feature of each observation.
        at: The feature's value at which the rate is predicted.

    Returns:
        The rate with its Wald interval on the logits. None if the regression has no finite solution: the feature is
        constant, or separates wins from losses perfectly.
    """
    targets = np.asarray(wins, dtype=float)
    distances = np.asarray(features, dtype=float) - at
    won, lost = distances[targets > 0], distances[targets < 1]
    if not (len(won) and len(lost) and won.min() < lost.max() and lost.min() < won.max()):
        return None
    # The scale of the feature helps the optimiser and does not change the intercept, which is the result.
    inputs = np.stack([np.ones_like(distances), distances / np.abs(distances).max()], axis=1)

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = inputs @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits)), inputs.T @ (expit(logits) - targets)

    def curvature(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        rates = expit(inputs @ weights)
        second: NDArray[np.float64] = (inputs.T * (rates * (1 - rates))) @ inputs
        return second

    best = optimize.minimize(cost, np.zeros(2), jac=True, hess=curvature, method="trust-exact").x
    # The inverse of the curvature at the optimum is the covariance of the weights.
    half = stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt(np.linalg.inv(curvature(best))[0, 0])
    rate, low, high = map(float, expit(best[0] + np.array([0, -half, half])))
    return Estimate(rate, low, high, len(targets))


def estimate_mean(values: Sequence[float]) -> Estimate | None:
    """Estimate a mean with its Student-t interval; None without values. A single value is its own interval."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    # scipy returns NaN for a standard error of 0.
    if len(values) == 1 or max(values) == min(values):
        return Estimate(mean, mean, mean, len(values))
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=stats.sem(values))
    return Estimate(mean, float(low), float(high), len(values))


def paired_p_value(first_only: int, second_only: int) -> float:
    """Return the p-value of the exact McNemar test that two raters are equally accurate on the same cases.

    Args:
        first_only: Cases that only the first got right.
        second_only: Cases that only the second got right.
    """
    if first_only + second_only == 0:
        return 1.0
    return float(stats.binomtest(first_only, first_only + second_only, 0.5).pvalue)


def adjust_holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple testing by Holm's step-down method (1979). The order is kept."""
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        # An adjusted p-value must not be below that of a more significant test.
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
