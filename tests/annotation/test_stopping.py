"""The interval for stopping contains the win rate after every answer, in 95 % of the simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlaif_framework.annotation.stopping import _bet, _choose_bets, follow_win_rate


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.7])
def test_nobody_wins_by_betting_against_the_true_rate(rate: float) -> None:
    """The expected wealth of both gamblers is 1, over all sequences of eight answers: Ville's inequality needs this."""
    expected = np.zeros(2)
    for outcomes in itertools.product([0.0, 1.0], repeat=8):
        values = np.array(outcomes)
        gains = _bet(values, _choose_bets(values), np.array([rate]))  # (2, answers, 1)
        chance = rate ** sum(outcomes) * (1 - rate) ** (8 - sum(outcomes))
        expected += chance * np.exp(gains.sum(axis=(1, 2)))
    assert expected == pytest.approx(1.0)


def test_bets_do_not_look_ahead() -> None:
    values = np.array([1.0, 0.0, 0.5, 1.0])
    other = np.array([1.0, 0.0, 0.0, 0.0])
    assert _choose_bets(values)[:3] == pytest.approx(_choose_bets(other)[:3])
    assert _choose_bets(values)[3] != pytest.approx(_choose_bets(other)[3])


def test_the_rate_is_in_all_intervals_of_95_percent_of_the_simulations() -> None:
    # The interval after the last answer is inside of all earlier ones: that it has the rate means that all had.
    draw, inside, decided = np.random.default_rng(5), 0, 0
    for number in range(120):
        rate = (0.5, 0.6, 0.85)[number % 3]
        ties = draw.random(150) < 0.2
        values = np.where(ties, 0.5, draw.random(150) < (rate - 0.1) / 0.8)
        found = follow_win_rate(values.tolist())
        inside += found.low <= rate <= found.high
        decided += rate == 0.85 and found.decided == "first"
        assert found.decided != "second" or rate < 0.85
    assert inside >= 0.95 * 120
    assert decided == 40


def test_the_intervals_only_get_narrower() -> None:
    draw = np.random.default_rng(3)
    values = (draw.random(600) < 0.6).astype(float).tolist()
    found = [follow_win_rate(values[:count]) for count in (0, 1, 50, 256, 257, 600)]
    assert (found[0].low, found[0].high, found[0].decided) == (0, 1, None)
    for earlier, later in itertools.pairwise(found):
        assert earlier.low <= later.low <= later.high <= earlier.high
    assert found[-1].decided == "first"
    assert found[-1].low >= 0.5


def test_the_sides_are_treated_alike() -> None:
    values = [1.0] * 25 + [0.5] * 5
    won, lost = follow_win_rate(values), follow_win_rate([1 - value for value in values])
    assert (won.decided, lost.decided) == ("first", "second")
    assert math.isclose(won.low, 1 - lost.high)
