"""Pairs that an evaluation compares go to annotators and come back as labels of the same pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, DataError, Prompt
from rlaif_framework.data.human_labels import HumanLabels, find_known, list_unlabelled, read_human_labels
from support.fake_plugins import write_rows


def pair(first: str, second: str, prompt: str = "A post", preference: float | None = None) -> Comparison:
    return Comparison("id", Prompt("p", f"{prompt}\n\nTL;DR:", prompt), (first, second), preference)


def test_a_label_is_found_by_its_texts_in_either_order() -> None:
    labels = HumanLabels([pair("good", "bad", preference=0.9)])
    assert labels.find(pair("good", "bad")) == pytest.approx(0.9)
    assert labels.find(pair("bad", "good")) == pytest.approx(0.1)
    assert labels.find(pair(" good ", "bad\n", "A  post")) == pytest.approx(0.9)
    assert labels.find(pair("good", "bad", "Another post")) is None
    assert labels.find(pair("good", "worse")) is None


def test_several_labels_of_a_pair_are_averaged() -> None:
    labels = HumanLabels([pair("a", "b", preference=1.0), pair("b", "a", preference=0.5), pair("b", "a")])
    assert labels.find(pair("a", "b")) == pytest.approx(0.75)
    assert len(labels) == 2
    assert labels.count_unused([pair("b", "a")]) == 0
    assert labels.count_unused([pair("a", "c")]) == 2


@pytest.mark.parametrize(
    ("responses", "expected"),
    [(("same", " same\n"), 0.5), (("", " "), 0.5), (("a", ""), 1.0), ((" ", "b"), 0.0), (("a", "b"), None)],
    ids=["equal", "empty", "second-empty", "first-empty", "different"],
)
def test_equal_and_empty_responses_need_no_label(responses: tuple[str, str], expected: float | None) -> None:
    assert find_known(pair(*responses)) == expected


def test_rows_for_annotators_are_in_random_order_and_name_no_policy() -> None:
    pairs = [pair(f"first {i}", f"second {i}", f"Post {i}") for i in range(200)]
    pairs += [pair("same", "same"), pair("", "not empty"), *pairs[:3], pair("second 7", "first 7", "Post 7")]
    rows = list_unlabelled(pairs, 1)
    assert len(rows) == 200
    assert {tuple(row) for row in rows} == {("prompt", "response_a", "response_b", "label")}
    order = [int((row["prompt"] or "").split()[1]) for row in rows]
    assert sorted(order) == list(range(200))
    assert order != sorted(order)
    assert 70 <= sum((row["response_a"] or "").startswith("first") for row in rows) <= 130
    assert rows == list_unlabelled(pairs, 1)
    assert rows != list_unlabelled(pairs, 2)


def test_rows_that_could_not_be_read_back_are_left_out() -> None:
    prompt = Prompt("p", "\n\nHuman: Hello\n\nAssistant:", "Hello")
    odd, plain = (Comparison("id", prompt, (first, "Hello")) for first in ("Hi\n\nHuman: Bye", "Hi"))
    (row,) = list_unlabelled([odd, plain], 0)
    assert {row["response_a"], row["response_b"]} == {"Hi", "Hello"}


def test_rows_that_annotators_fill_in_are_read_as_labels_of_the_pairs(tmp_path: Path) -> None:
    pairs = [pair(f"first {i}", f"second {i}", f"Post {i}") for i in range(20)]
    rows: list[dict[str, Any]] = [dict(row) for row in list_unlabelled(pairs, 3)]
    for row in rows[:12]:  # people prefer the first policy's responses
        row["label"] = "a" if row["response_a"].startswith("first") else "b"
    rows[12]["label"] = "tie"
    write_rows(tmp_path / "labels.jsonl", rows)
    labels = HumanLabels(read_human_labels(tmp_path / "labels.jsonl"))
    assert len(labels) == 13
    found = [labels.find(pair) for pair in pairs]
    assert sorted(x for x in found if x is not None) == [0.5, *[1.0] * 12]
    assert labels.count_unused(pairs) == 0


def test_a_file_that_nobody_has_filled_in_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "labels.jsonl", list_unlabelled([pair("a", "b"), pair("c", "d")], 0))
    with pytest.raises(DataError, match="none of the 2 rows has a preference; set their 'label' to a, b or tie"):
        read_human_labels(tmp_path / "labels.jsonl")


def test_invalid_rows_are_named(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response_a": "a", "response_b": "b", "label": label} for label in ("a", "first")]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"labels.jsonl: invalid rows\n  line 2: 'label' is 'first', not 'a', 'b' or"):
        read_human_labels(tmp_path / "labels.jsonl")
    with pytest.raises(DataError, match="no data file at"):
        read_human_labels(tmp_path / "missing.jsonl")


def test_the_orders_of_rows_and_responses_stay_when_there_are_more_pairs() -> None:
    pairs = [pair(f"first {i}", f"second {i}", f"Post {i}") for i in range(30)]
    more = [pair("new", "other", "A new post"), *pairs[:9], pair("old", "other", "Another"), *pairs[9:]]
    rows = list_unlabelled(pairs, 1)
    assert [row for row in list_unlabelled(more, 1) if "new" not in row.values() and "old" not in row.values()] == rows
    assert list_unlabelled(pairs[::-1], 1) == rows
