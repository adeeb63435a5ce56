"""Decide when enough pairs were compared, with an interval that is valid after every answer.

An ordinary 95 % interval that is looked at after every answer excludes the true win rate sooner or later. A confidence
sequence does so with a probability of at most 5 % over all looks together, so annotation may stop as soon as it
excludes one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlaif_framework.metrics.estimates import CONFIDENCE

STEPS = 1000
"""Number of steps of the grid of win rates."""

BLOCK = 256
"""Number of answers whose wealth is computed at once."""

LARGEST_BET = 0.5
"""Largest share of the wealth that is lost by one answer (`c` in the source)."""


@dataclass(frozen=True, slots=True)
class WinRateSequence:
    """The interval after the last answer, which is inside of those after all earlier ones."""

    low: float
    high: float
    count: int
    """Number of answers."""
    decided: Literal["first", "second"] | None
    """The side whose win rate is above one half; None if the interval contains one half."""


def follow_win_rate(wins: Sequence[float]) -> WinRateSequence:
    """Compute the hedged capital confidence sequence of a win rate (Waudby-Smith & Ramdas 2024, section 4).

    For each win rate of a grid, two gamblers bet that the true one is higher or lower. The rate is excluded once the
    wealth of one of them has reached 2 / (1 - `CONFIDENCE`), which is unlikely if the rate is the true one (Ville's
    inequality).

    Args:
        wins: For each pair in the order of the answers, 1 if the first side wins, 0 if it loses, 0.5 for a tie. They
            must be independent: one of each prompt, drawn at random.
    """
    grid = np.linspace(0, 1, STEPS + 1)
    # A win rate of 0 or 1 is excluded by its neighbours: the wealth against it is not bounded.
    rates = grid[1:-1]
    highest = np.full(rates.shape, -math.inf)
    wealth = np.zeros((2, len(rates)))
    outcomes = np.asarray(wins, dtype=float)
    bets = _choose_bets(outcomes)
    for start in range(0, len(outcomes), BLOCK):
        gains = _bet(outcomes[start : start + BLOCK], bets[start : start + BLOCK], rates)  # (2, block, rates)
        paths = wealth[:, None] + np.cumsum(gains, axis=1)
        highest = np.maximum(highest, paths.max(axis=(0, 1)))
        wealth = paths[:, -1]
    excluded = highest >= math.log(2 / (1 - CONFIDENCE))
    kept = np.flatnonzero(~excluded)
    middle = STEPS // 2 - 1
    if not len(kept) or not excluded[middle]:
        decided: Literal["first", "second"] | None = None
    else:
        decided = "first" if kept[0] > middle else "second"
    # One step more on each side: the boundary is between the last rate that is excluded and the first that is not.
    low, high = (float(grid[kept[0]]), float(grid[kept[-1] + 2])) if len(kept) else (0.0, 1.0)
    return WinRateSequence(low, high, len(outcomes), decided)


def _choose_bets(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the size of each bet, from the variance of the outcomes before it ("predictable plug-in")."""
    counts = np.arange(1, len(outcomes) + 1)
    means = (0.5 + np.cumsum(outcomes)) / (counts + 1)
    variances = (0.25 + np.cumsum((outcomes - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]]) if len(outcomes) else variances
    bets: NDArray[np.float64] = np.sqrt(2 * math.log(2 / (1 - CONFIDENCE)) / (before * counts * np.log1p(counts)))
    return bets


def _bet(outcomes: NDArray[np.float64], bets: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of what both gamblers gain by each outcome, for each rate: (2, outcomes, rates)."""
    differences = outcomes[:, None] - rates  # (outcomes, rates)
    higher = np.minimum(bets[:, None], LARGEST_BET / rates) * differences
    lower = np.minimum(bets[:, None], LARGEST_BET / (1 - rates)) * -differences
    gains: NDArray[np.float64] = np.log1p(np.stack([higher, lower]))
    return gains
