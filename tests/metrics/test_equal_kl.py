"""Win rates at equal KL, interpolated between checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_framework.metrics.equal_kl import Checkpoint, compare_at_equal_kl
from rlaif_framework.metrics.estimates import Estimate


def checkpoint(step: int, kl: float, rate: float | None, judge: str = "rouge") -> Checkpoint:
    win_rate = None if rate is None else Estimate(rate, rate - 0.1, rate + 0.2, 40)
    return Checkpoint(step, Estimate(kl, kl, kl, 40), None, win_rate, judge)


def test_win_rates_are_interpolated_at_the_largest_common_kl() -> None:
    fast = [checkpoint(5, 2.0, 0.6), checkpoint(10, 6.0, 0.8)]
    slow = [checkpoint(5, 1.0, 0.55), checkpoint(10, 3.0, 0.7)]
    found = compare_at_equal_kl({"fast": fast, "slow": slow})
    assert found is not None
    assert found.kl == 3.0
    assert found.judge == "rouge"
    assert found.win_rates["slow"] == slow[1].win_rate
    at = found.win_rates["fast"]
    for value, known in ((at.value, (0.6, 0.8)), (at.low, (0.5, 0.7)), (at.high, (0.8, 1.0))):
        assert value == pytest.approx(np.interp(3.0, (2.0, 6.0), known))


def test_paths_start_at_the_initial_policy() -> None:
    found = compare_at_equal_kl({"a": [checkpoint(5, 4.0, 0.7)], "b": [checkpoint(5, 1.0, 0.6)]})
    assert found is not None
    assert found.kl == 1.0
    at = found.win_rates["a"]
    assert (at.value, at.low, at.high) == pytest.approx((0.55, 0.525, 0.6))


def test_the_first_checkpoint_that_reaches_the_kl_counts() -> None:
    back = [checkpoint(1, 1.0, 0.6), checkpoint(2, 4.0, 0.9), checkpoint(3, 2.0, 0.4)]
    found = compare_at_equal_kl({"back": back, "other": [checkpoint(1, 4.0, 0.5)]})
    assert found is not None
    assert found.win_rates["back"].value == 0.9


@pytest.mark.parametrize(
    "other",
    [
        [],
        [checkpoint(1, 2.0, None)],
        [checkpoint(1, 2.0, 0.6, judge="similarity")],
        [checkpoint(1, -0.1, 0.5)],
    ],
    ids=["no checkpoints", "no win rate", "another judge", "no KL"],
)
def test_arms_that_cannot_be_compared(other: list[Checkpoint]) -> None:
    assert compare_at_equal_kl({"one": [checkpoint(1, 2.0, 0.6)], "other": other}) is None
