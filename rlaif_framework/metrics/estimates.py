"""Rates and means with 95 % intervals, and significance tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit, logit, ndtri, stdtrit

CONFIDENCE = 0.95
"""Coverage of all intervals."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate or mean with its 95 % interval and the number of observations."""

    value: float
    low: float
    high: float
    count: int
    clusters: int | None = None
    """Number of prompts that the observations are from, if some have several, which the interval then takes into
    account; otherwise None."""

    @property
    def beats_chance(self) -> bool:
        """True if the whole interval is above one half."""
        return self.low > 0.5

    def flip(self) -> Estimate:
        """Return the win rate of the second policy against the first, if this is that of the first."""
        return Estimate(1 - self.value, 1 - self.high, 1 - self.low, self.count, self.clusters)

    def negate(self) -> Estimate:
        """Return the opposite difference."""
        return Estimate(-self.value, -self.high, -self.low, self.count, self.clusters)


def estimate_rate(wins: float, count: int) -> Estimate | None:
    """Estimate a proportion of independent observations with its Wilson interval; None without observations.

    A tie may count as half a win.
    """
    if count == 0:
        return None
    low, high = _wilson(wins / count, count, float(ndtri(0.5 + CONFIDENCE / 2)))
    return Estimate(wins / count, low, high, count)


def estimate_clustered_rate(wins: Sequence[float], clusters: Sequence[Hashable]) -> Estimate | None:
    """Estimate a proportion of observations that may be correlated within clusters; None without observations.

    The Wilson interval has the effective number of observations: their number divided by the design effect, which is
    the cluster-robust variance of the rate divided by its variance with independent observations. Critical values are
    of Student's t with one degree of freedom less than clusters (Korn & Graubard 1998). If no cluster has several
    observations, this is `estimate_rate`.

    Args:
        wins: 1 for a win, 0 for a loss, 0.5 for a tie.
        clusters: The cluster of each observation, such as its prompt.
    """
    count, groups = len(wins), len(set(clusters))
    if groups == count:
        return estimate_rate(math.fsum(wins), count)
    rate = math.fsum(wins) / count
    if groups == 1:  # a single prompt says nothing about others
        return Estimate(rate, 0.0, 1.0, count, groups)
    independent = float(np.var(wins)) / (count - 1)
    # Without variance in the sample, the design effect cannot be estimated: each cluster counts as one observation.
    effect = variance_of_mean(wins, clusters) / independent if independent else count / groups
    # A floor, because it is 0 if all clusters happen to have the same rate.
    low, high = _wilson(rate, count / max(effect, groups / count), _critical(groups))
    return Estimate(rate, low, high, count, groups)


def estimate_fraction(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate | None:
    """Estimate a mean of values between 0 and 1, with an interval between 0 and 1; None without values.

    This is `estimate_clustered_rate` if all values are 0 or 1. Otherwise, it is the Wilson interval with the number of
    0s and 1s whose mean has the same variance.

    Args:
        values: The values.
        clusters: The cluster of each value, such as its prompt.
    """
    count, groups = len(values), len(set(clusters))
    if all(value in (0, 1) for value in values):
        return estimate_clustered_rate(values, clusters)
    mean = math.fsum(values) / count
    several = groups if groups < count else None
    if groups == 1:  # a single prompt says nothing about others
        return Estimate(mean, 0.0, 1.0, count, several)
    variance = variance_of_mean(values, clusters)
    if variance == 0 or max(values) == min(values):
        return Estimate(mean, mean, mean, count, several)
    low, high = _wilson(mean, mean * (1 - mean) / variance, _critical(groups))
    return Estimate(mean, low, high, count, several)


def _wilson(rate: float, count: float, z: float) -> tuple[float, float]:
    """Compute a Wilson interval, for which `count` need not be whole."""
    # Not scipy's proportion_ci, which needs a whole number of successes: a tie is half of one.
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    # It contains the rate, but for rounding: that of 0 would start at 1e-17.
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def _critical(clusters: int) -> float:
    """Return the critical value of Student's t for a number of clusters."""
    return float(stdtrit(clusters - 1, 0.5 + CONFIDENCE / 2))


def variance_of_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Estimate the variance of a mean, robust to correlation within clusters (Liang & Zeger 1986).

    There must be two clusters or more. If each has one value, this is the square of the standard error.
    """
    residuals = np.asarray(values, dtype=float) - math.fsum(values) / len(values)
    return float(_sum_products(residuals[:, None], clusters)[0, 0]) / len(values) ** 2


def _sum_products(scores: NDArray[np.float64], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """Sum scores within clusters, and the products of these sums over clusters, corrected for their number.

    Args:
        scores: (observations, parameters).
        clusters: The cluster of each observation.

    Returns:
        (parameters, parameters)
    """
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    sums = np.zeros((len(numbers), scores.shape[1]))
    np.add.at(sums, index, scores)
    products: NDArray[np.float64] = sums.T @ sums
    return products * len(numbers) / (len(numbers) - 1)


@dataclass(frozen=True, slots=True)
class RateAt:
    """The win rate at a value of a feature, by logistic regression."""

    logit: float
    """Its logit. The rate itself may be 1 but for rounding."""
    influences: NDArray[np.float64]
    """By how much each observation moves the logit, to first order. (observations,)"""
    variance: float
    """Variance of the logit, if all observations are independent."""

    @property
    def rate(self) -> float:
        """The rate."""
        return float(expit(self.logit))

    @property
    def slope(self) -> float:
        """Derivative of the rate by its logit."""
        return float(expit(self.logit) * expit(-self.logit))


def estimate_rate_at(
    wins: Sequence[float], features: Sequence[float], at: float, clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """Estimate the win rate at a value of a feature, by logistic regression.

    Args:
        wins: 1 for a win, 0 for a loss, 0.5 for a tie.
        features: The feature of each observation.
        at: The feature's value at which the rate is predicted.
        clusters: The cluster of each observation, such as its prompt; None if all observations are independent.

    Returns:
        The rate with its Wald interval on the logits; if clusters have several observations, by the cluster-robust
        covariance and Student's t. None if all features are on one side of the value, to which the regression would
        have to extrapolate, or if they separate wins from losses perfectly, so that it has no finite solution.
    """
    found = fit_rate_at(wins, features, at)
    return None if found is None else estimate_mean_rate([found], range(len(wins)) if clusters is None else clusters)


def fit_rate_at(wins: Sequence[float], features: Sequence[float], at: float) -> RateAt | None:
    """Fit the regression of `estimate_rate_at`; None if it has no solution or would have to extrapolate."""
    targets = np.asarray(wins, dtype=float)
    distances = np.asarray(features, dtype=float) - at
    won, lost = distances[targets > 0], distances[targets < 1]
    if not (len(won) and len(lost) and won.min() < lost.max() and lost.min() < won.max()):
        return None
    if not distances.min() <= 0 <= distances.max():
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
    # The inverse of the curvature at the optimum is the covariance of the weights, if observations are independent.
    covariance = np.linalg.inv(curvature(best))
    influences = inputs @ covariance[0] * (targets - expit(inputs @ best))
    return RateAt(float(best[0]), influences, float(covariance[0, 0]))


def estimate_mean_rate(rates: Sequence[RateAt], clusters: Sequence[Hashable]) -> Estimate | None:
    """Estimate the mean of rates, each by a regression of its own, such as those of several seeds.

    Args:
        rates: The rates.
        clusters: The cluster of each observation, for all observations of all rates in their order.

    Returns:
        The mean, with its interval as in `estimate_rate_at`; None if there is one cluster with several observations,
        or if several rates are 0 or 1 but for rounding.
    """
    mean = math.fsum(found.rate for found in rates) / len(rates)
    if len(rates) == 1:
        centre, weights = rates[0].logit, [1.0]
    elif 0 < mean < 1:
        # Those of the logit of the mean.
        centre, weights = float(logit(mean)), [found.slope / (len(rates) * mean * (1 - mean)) for found in rates]
    else:
        return None
    half = _error_of_sum(rates, weights, clusters)
    if half is None:
        return None
    low, high = map(float, expit(centre + np.array([-half, half])))
    return _count(mean, low, high, clusters)


def estimate_rate_difference(
    first: Sequence[RateAt], second: Sequence[RateAt], clusters: Sequence[Hashable]
) -> Estimate | None:
    """Estimate by how much the mean of rates is above that of as many others, each by a regression of its own.

    Args:
        first: The rates.
        second: Those that are subtracted.
        clusters: The cluster of each observation: of all rates of `first`, and then of all of `second`.

    Returns:
        The difference with its Wald interval; None if there is one cluster with several observations.
    """
    count = len(first)
    weights = [found.slope / count for found in first] + [-found.slope / count for found in second]
    error = _error_of_sum([*first, *second], weights, clusters)
    if error is None:
        return None
    value = math.fsum(a.rate - b.rate for a, b in zip(first, second, strict=True)) / count
    return _count(value, value - error, value + error, clusters)


def _error_of_sum(rates: Sequence[RateAt], weights: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Return half the width of the interval of a weighted sum of logits; None if there is one cluster with several
    observations, which says nothing about others."""
    groups = len(set(clusters))
    if groups == len(clusters):
        variance = math.fsum(weight**2 * found.variance for weight, found in zip(weights, rates, strict=True))
        return float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    if groups == 1:
        return None
    influences = np.concatenate([weight * found.influences for weight, found in zip(weights, rates, strict=True)])
    return _critical(groups) * math.sqrt(_sum_products(influences[:, None], clusters)[0, 0])


def _count(value: float, low: float, high: float, clusters: Sequence[Hashable]) -> Estimate:
    """Return an estimate with the number of its observations and clusters."""
    count, groups = len(clusters), len(set(clusters))
    return Estimate(value, low, high, count, groups if groups < count else None)


def estimate_mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """Estimate a mean with its Student-t interval; None without values.

    A single value, or a mean of values from a single cluster, is its own interval.

    Args:
        values: The values.
        clusters: The cluster of each value, such as its prompt, within which values may be correlated; None if all
            values are independent.
    """
    if not values:
        return None
    mean, count = math.fsum(values) / len(values), len(values)
    groups = count if clusters is None else len(set(clusters))
    several = groups if groups < count else None
    if groups == 1 or max(values) == min(values):  # without rounding errors of the mean
        return Estimate(mean, mean, mean, count, several)
    half = _critical(groups) * math.sqrt(variance_of_mean(values, range(count) if clusters is None else clusters))
    return Estimate(mean, mean - half, mean + half, count, several)


def clustered_p_value(differences: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the p-value of a test that the mean of paired differences is 0, robust to correlation within clusters.

    Args:
        differences: The difference of each pair.
        clusters: The cluster of each pair, such as its prompt.
    """
    groups, mean = len(set(clusters)), math.fsum(differences) / len(differences)
    if mean == 0 or groups == 1:  # a single prompt says nothing about others
        return 1.0
    variance = variance_of_mean(differences, clusters)
    if math.sqrt(variance) <= 1e-12 * max(map(abs, differences)):  # all clusters agree: the sign test of the clusters
        return min(1.0, 2 * 0.5**groups)
    return float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), groups - 1))


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
