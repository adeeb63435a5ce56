"""Samples of one seed: nested, and without overlap from draw to draw."""

from __future__ import annotations

from rlaif_framework.seeds import sample_subset


def test_consecutive_draws_share_nothing_until_all_items_were_drawn() -> None:
    items = list("abcdefghij")
    draws = [sample_subset(items, 3, 7, draw) for draw in range(6)]
    assert all(draw == sorted(draw) for draw in draws)
    assert len({item for draw in draws[:3] for item in draw}) == 9
    assert len({item for draw in draws[3:] for item in draw}) == 9
    assert draws[:3] != draws[3:]
    assert draws == [sample_subset(items, 3, 7, draw) for draw in range(6)]


def test_a_larger_sample_contains_the_smaller_one() -> None:
    items = list(range(100))
    assert set(sample_subset(items, 10, 1)) < set(sample_subset(items, 30, 1))
    assert sample_subset(items, None, 1) == sample_subset(items, 100, 1, draw=5) == items
