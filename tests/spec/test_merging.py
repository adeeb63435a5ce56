"""`--set` with wildcards, and `--unset`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from rlaif_framework import SpecError
from rlaif_framework.spec.merging import set_value, unset_value

DATA: dict[str, Any] = {
    "arms": {
        "rlaif": {"feedback": {"kind": "ai", "labeler": "similarity"}, "algorithm": {"kind": "rloo", "lr": 1}},
        "rlhf": {"feedback": "human", "algorithm": "reinforce"},
        "labels": {"feedback": {"kind": "ai", "labeler": {"kind": "length"}}},
    },
    "policy": {"lora": None},
    "task": {"kind": "tldr", "data": "mini"},
    "evaluate": {"judges": {"a": "rouge", "b": {"kind": "length"}}, "matchups": [["rlaif", "sft"], ["rlhf", "sft"]]},
}


def changed(*overrides: str) -> dict[str, Any]:
    data = deepcopy(DATA)
    for override in overrides:
        set_value(data, override)
    return data


def test_a_star_sets_the_value_in_every_component_that_is_there() -> None:
    data = changed("arms.*.algorithm.lr=1e-4")
    assert data["arms"]["rlaif"]["algorithm"] == {"kind": "rloo", "lr": 1e-4}
    assert data["arms"]["rlhf"]["algorithm"] == {"kind": "reinforce", "lr": 1e-4}, "shorthand is not expanded"
    assert data["arms"]["labels"] == DATA["arms"]["labels"], "an arm gets an algorithm that it did not have"
    data = changed("arms.*.feedback.labeler.scale=2")
    assert data["arms"]["rlaif"]["feedback"]["labeler"] == {"kind": "similarity", "scale": 2}
    assert data["arms"]["rlhf"] == DATA["arms"]["rlhf"]


def test_a_star_creates_the_last_key_only() -> None:
    data = changed("arms.*.rounds=2")
    assert [arm["rounds"] for arm in data["arms"].values()] == [2, 2, 2]


def test_stars_match_names_of_components_in_groups_and_items_of_lists() -> None:
    data = changed("evaluate.judges.*.scale=1", "evaluate.matchups.*.1=reference", "evaluate.judges.b.prefer=shorter")
    assert data["evaluate"]["judges"] == {
        "a": {"kind": "rouge", "scale": 1},
        "b": {"kind": "length", "scale": 1, "prefer": "shorter"},
    }
    assert data["evaluate"]["matchups"] == [["rlaif", "reference"], ["rlhf", "reference"]]
    assert changed("evaluate.matchups.0.*=x")["evaluate"]["matchups"][0] == ["x", "x"]


def test_values_that_several_places_get_are_not_shared() -> None:
    data = changed("arms.*.algorithm={kind: dpo}", "arms.rlaif.algorithm.lr=1")
    assert data["arms"]["rlhf"]["algorithm"] == {"kind": "dpo"}


def test_the_places_that_were_set_are_returned() -> None:
    assert set_value(deepcopy(DATA), "evaluate.matchups.*.0=x") == [
        ("evaluate", "matchups", 0, 0),
        ("evaluate", "matchups", 1, 0),
    ]
    assert set_value(deepcopy(DATA), "policy.lora.rank=1") == [("policy", "lora", "rank")]


@pytest.mark.parametrize("path", ["arms.*.reward.lr", "arms.*.policy.x.y", "policy.lora.*.rank", "x.*", "task.*.train"])
def test_a_star_that_matches_nothing_is_an_error(path: str) -> None:
    with pytest.raises(SpecError) as raised:
        changed(f"{path}=1")
    assert str(raised.value) == f"--set {path}=1: nothing in the spec matches '{path}'"


def unset(*paths: str) -> dict[str, Any]:
    data = deepcopy(DATA)
    for path in paths:
        unset_value(data, path)
    return data


def test_unset_removes_keys_and_items() -> None:
    assert list(unset("arms.rlaif")["arms"]) == ["rlhf", "labels"]
    assert [list(arm) for arm in unset("arms.*.algorithm")["arms"].values()] == [["feedback"]] * 3
    assert unset("evaluate.matchups.0")["evaluate"]["matchups"] == [["rlhf", "sft"]]
    assert unset("evaluate.matchups.*")["evaluate"]["matchups"] == []


@pytest.mark.parametrize("path", ["arms.nobody", "arms.*.reward", "task.data.x", "evaluate.matchups.2", ""])
def test_unset_of_what_is_not_there_is_an_error(path: str) -> None:
    with pytest.raises(SpecError) as raised:
        unset(path)
    assert str(raised.value) == f"--unset {path}: the spec has no '{path}'"
