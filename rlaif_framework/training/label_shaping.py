"""Transform label probabilities before training: soften or clamp them."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator


def _check_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    if not (0 <= bounds[0] <= 0.5 and math.isclose(sum(bounds), 1)):
        raise ValueError("expected [low, 1 - low] with 0 <= low <= 0.5: the bounds hold for both responses")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_check_bounds)]
"""Bounds of a label's probabilities, such as [0.4, 0.6]."""


def soften(first: float, temperature: float) -> float:
    """Divide the log-odds of a probability by a temperature; 0, 0.5 and 1 are unchanged."""
    if first in (0.0, 0.5, 1.0):  # the log-odds of 0 and 1 are infinite
        return first
    log_odds = math.log(first / (1.0 - first)) / temperature
    odds = math.exp(-abs(log_odds))  # at most 1, so that it cannot overflow
    return (1.0 if log_odds > 0 else odds) / (1.0 + odds)


def clamp(first: float, bounds: tuple[float, float] | None) -> float:
    """Clamp a probability to bounds, if there are any."""
    return first if bounds is None else min(max(first, bounds[0]), bounds[1])
