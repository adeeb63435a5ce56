"""Sample sizes of an evaluation: how many test prompts and human labels show a difference between two policies.

All are for the two-sided test, at level 0.05, that a win rate is 50 %: the 95 % interval of the win rate does not
include 50 %. Pairs are independent and without ties, of which each would make the interval narrower.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

from rlaif_framework.metrics.estimates import CONFIDENCE

POWER = 0.8
"""Probability that a difference of the given size is significant."""

_Z_LEVEL = float(ndtri(0.5 + CONFIDENCE / 2))
_Z_POWER = float(ndtri(POWER))


def required_pairs(difference: float) -> int:
    """Return the number of pairs that show a win rate which differs from 50 %, with power 0.8.

    This is the score test of a proportion, whose standard error is that of 50 % if there is no difference, and that of
    the win rate if there is one (Fleiss, Levin & Paik 2003, section 2.5).

    Args:
        difference: Absolute difference of the win rate from one half, above 0 and below 0.5.
    """
    return math.ceil(_required(difference))


def _required(difference: float) -> float:
    return ((_Z_LEVEL / 2 + _Z_POWER * math.sqrt(0.25 - difference**2)) / difference) ** 2


def detectable_difference(pairs: int) -> float | None:
    """Return the smallest difference of a win rate from one half that a number of pairs shows with power 0.8.

    Returns:
        The difference, between 0 and 0.5; None if there are too few pairs for any.
    """
    # The solution of `_required(difference) == pairs`, a quadratic equation.
    a, b = _Z_LEVEL / 2, _Z_POWER
    discriminant = (pairs + b * b) / 4 - a * a
    if discriminant < 0:
        return None
    found = (a * math.sqrt(pairs) + b * math.sqrt(discriminant)) / (pairs + b * b)
    return found if found < 0.5 else None


def required_labels(difference: float, pairs: int, agreement: float) -> int | None:
    """Return the number of human labels with which a corrected win rate shows a difference from 50 %, with power 0.8.

    The variance of a corrected win rate is that of one pair, times (1 - r²) / labels + r² / pairs, where r is the
    correlation between judge and human labels. It is taken to be 2 * agreement - 1, which is exact for a win rate of
    50 % and a judge that states choices and errs equally often for both policies. The interval of `correct_win_rate` is
    wider by Student's t and by the half pairs that it adds.

    Args:
        difference: Absolute difference of the win rate from one half, above 0 and below 0.5.
        pairs: Number of pairs that the judge compares.
        agreement: The judge's agreement with human labels, from 0.5 to 1.

    Returns:
        None if even labels of all pairs are too few.
    """
    explained = (2 * agreement - 1) ** 2

    def shows(labels: int) -> bool:
        interval = (labels * (1 - explained) + 2 * (1 + explained)) / (labels * (labels + 2)) + explained / pairs
        actual = (1 - explained) / labels + explained / pairs
        half = float(stdtrit(labels, 0.5 + CONFIDENCE / 2)) * math.sqrt(interval) / 2
        return difference >= half + _Z_POWER * math.sqrt(actual * (0.25 - difference**2))

    return next(filter(shows, range(1, pairs + 1)), None)
