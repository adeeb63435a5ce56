"""Agreement between people: Krippendorff's alpha, Kendall's W, and bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlaif_framework.metrics.estimates import CONFIDENCE, Estimate

RESAMPLES = 1000
"""Number of bootstrap samples of an interval."""

BLOCK = 100
"""Number of bootstrap samples that are in memory at once."""

Difference = Callable[[float, float], float]
"""Squared difference of two values."""

Floats = NDArray[np.float64]


def nominal_difference(first: float, second: float) -> float:
    """Return 1 for different categories."""
    return float(first != second)


def interval_difference(first: float, second: float) -> float:
    """Return the squared difference of numbers."""
    return (first - second) ** 2


def estimate_alpha(
    units: Sequence[Sequence[float]],
    clusters: Sequence[Hashable],
    difference: Difference = nominal_difference,
    seed: int = 0,
) -> Estimate | None:
    """Compute Krippendorff's alpha, with a bootstrap interval over clusters (Krippendorff 2011).

    It is 1 minus the disagreement within units over the disagreement that is expected by chance.

    Args:
        units: The values that raters gave to each unit; those with fewer than two are left out.
        clusters: The cluster of each unit, such as its prompt.
        difference: How much two values differ.
        seed: Seed of the bootstrap.

    Returns:
        None if no unit has two values, or all values are equal.
    """
    pairable = [(list(unit), cluster) for unit, cluster in zip(units, clusters, strict=True) if len(unit) > 1]
    values = sorted({value for unit, _ in pairable for value in unit})
    if len(values) < 2:
        return None
    differences = np.array([[difference(a, b) for b in values] for a in values])
    counts = np.array([[unit.count(value) for value in values] for unit, _ in pairable], dtype=float)
    within = np.einsum("uc,cd,ud->u", counts, differences, counts) / (counts.sum(axis=1) - 1)
    # Everything that alpha needs is a sum over units.
    table = np.column_stack([within, counts])  # (units, 1 + values)

    def compute(sums: Floats) -> Floats:
        totals = sums[:, 1:]
        expected = np.einsum("bc,cd,bd->b", totals, differences, totals)
        with np.errstate(invalid="ignore", divide="ignore"):
            alphas: Floats = 1 - (totals.sum(axis=1) - 1) * sums[:, 0] / expected
        return alphas

    return _bootstrap(table, [cluster for _, cluster in pairable], compute, -1.0, seed)


def kendall_w(ratings: Sequence[Sequence[float]]) -> float | None:
    """Compute Kendall's coefficient of concordance, corrected for ties.

    Args:
        ratings: A rating of each object by each rater, (raters, objects). Only their order counts.

    Returns:
        1 if all raters have the same order, 0 if there is no agreement at all; None if every rater ties all objects.
    """
    ranks = np.array([rankdata(rating) for rating in ratings])  # (raters, objects)
    raters, objects = ranks.shape
    sums = ranks.sum(axis=0)
    sizes = np.concatenate([np.unique(row, return_counts=True)[1] for row in ranks])  # of groups of tied objects
    ties = int(np.sum(sizes**3 - sizes))
    largest = raters**2 * (objects**3 - objects) - raters * ties
    return None if largest == 0 else float(12 * np.sum((sums - sums.mean()) ** 2) / largest)


def estimate_w(units: Sequence[Sequence[float]], clusters: Sequence[Hashable], seed: int = 0) -> Estimate | None:
    """Compute the mean of Kendall's W over pairs of responses, with a bootstrap interval over clusters (RLAIF 4).

    Two people who answer at random have a mean of about 0.5, and three of about 0.33.

    Args:
        units: For each pair, the preferences for its first response.
        clusters: The cluster of each unit, such as its prompt.
        seed: Seed of the bootstrap.

    Returns:
        None if no pair has two answers of which one is not a tie.
    """
    found = []
    for unit, cluster in zip(units, clusters, strict=True):
        value = kendall_w([(first, 1 - first) for first in unit]) if len(unit) > 1 else None
        if value is not None:
            found.append((value, cluster))
    if not found:
        return None
    table = np.array([[value, 1.0] for value, _ in found])
    return _bootstrap(table, [cluster for _, cluster in found], lambda sums: sums[:, 0] / sums[:, 1], 0.0, seed)


def _bootstrap(
    table: Floats, clusters: Sequence[Hashable], compute: Callable[[Floats], Floats], lowest: float, seed: int
) -> Estimate:
    """Estimate a function of sums over units, with its percentile interval over resampled clusters.

    Args:
        table: The terms of each unit, (units, terms).
        clusters: The cluster of each unit.
        compute: Returns the estimates for several sums, (samples, terms).
        lowest: The smallest value that is possible.
        seed: Seed of the samples.
    """
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, index, table)
    value = float(compute(sums.sum(axis=0)[None])[0])
    groups = len(numbers) if len(numbers) < len(table) else None
    draw, chances = np.random.default_rng(seed), np.full(len(numbers), 1 / len(numbers))
    samples = np.concatenate(
        [compute(draw.multinomial(len(numbers), chances, BLOCK) @ sums) for _ in range(RESAMPLES // BLOCK)]
    )
    known = samples[np.isfinite(samples)]  # all values of a sample may be equal
    if len(numbers) == 1 or not len(known):  # a single prompt says nothing about others
        return Estimate(value, lowest, 1.0, len(table), groups)
    tail = (1 - CONFIDENCE) / 2
    low, high = map(float, np.quantile(known, [tail, 1 - tail]))
    return Estimate(value, min(low, value), max(high, value), len(table), groups)
