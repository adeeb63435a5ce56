"""What tasks return is validated at one place, with the task and the first wrong row in the message."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from rlaif_framework import Comparison, DataError, PluginError, Prompt, Turn
from rlaif_framework.contracts.checked import check_returns

OWNER = "task 'acme/posts' of rlaif-acme 1.2"


def prompt(name: str, **changes: Any) -> Prompt:
    return replace(Prompt(name, f"text of {name}", f"source of {name}"), **changes)


def compare(name: str, **changes: Any) -> Comparison:
    return replace(Comparison(name, prompt(name), ("good", "bad"), 1.0, "human"), **changes)


def make_task(**returns: Any) -> Any:
    """A task whose methods return the given values; those of functions of a split are computed."""

    class Task:
        def prompts(self, split: str) -> object:
            return returns.get("prompts", lambda split: [prompt(f"{split}-1"), prompt(f"{split}-2")])(split)

        def comparisons(self, split: str) -> object:
            return returns.get("comparisons", lambda split: [])(split)

        def annotator_prompts(self) -> object:
            return returns.get("annotator_prompts")

        def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> object:
            return returns["truncate"]

        def clean(self, response: str) -> object:
            return returns["clean"]

        def measure(self, prompt: Prompt, response: str) -> object:
            return returns["measure"]

    return check_returns(Task, "task", OWNER)()


def test_rows_of_a_generator_are_read_once_and_stay() -> None:
    task = make_task(prompts=lambda split: (prompt(f"{split}-{i}") for i in range(3)))
    assert [p.id for p in task.prompts("train")] == ["train-0", "train-1", "train-2"]
    assert task.prompts("train") is task.prompts("train")
    assert len(task.prompts("test")) == 3


def test_turns_become_a_tuple_of_turns() -> None:
    rows = [prompt("a", turns=[("user", "Hi"), ["assistant", ""]])]
    (found,) = make_task(prompts=lambda split: rows).prompts("train")
    assert found.turns == (Turn("user", "Hi"), Turn("assistant", ""))
    assert found.turns[0].role == "user"


def test_numbers_of_comparisons_become_floats_and_responses_a_pair() -> None:
    rows = [compare("c", preference=np.float32(0.5), confidence=torch.tensor(1), responses=["a", "b"])]
    (found,) = make_task(comparisons=lambda split: rows).comparisons("train")
    assert (found.preference, found.confidence, found.responses) == (0.5, 1.0, ("a", "b"))
    assert type(found.preference) is float
    (exact,) = make_task(comparisons=lambda split: [compare("c", preference=Fraction(1, 4))]).comparisons("train")
    assert exact.preference == 0.25


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"prompts\('train'\) returned None instead of a list"),
        ("posts", r"prompts\('train'\) returned 'posts' instead of a list"),
        ([prompt("a"), "b"], r"prompts\('train'\), row 2 \(id None\): 'b' is not a Prompt"),
        ([prompt("a"), prompt("a", text="other")], r"row 2 \(id 'a'\): row 1 has the same id; ids must be unique"),
        ([prompt("a"), prompt("b", text=" \n")], r"row 2 \(id 'b'\): the text is empty"),
        ([prompt("a", source="")], r"row 1 \(id 'a'\): the source is empty"),
        ([prompt("")], r"row 1 \(id ''\): the id is empty"),
        ([prompt("a", id=7)], r"row 1 \(id 7\): the id is 7, not a text"),
        ([prompt("a", text=None)], r"row 1 \(id 'a'\): the text is None, not a text"),
        ([prompt("a", reference=3)], r"the reference is 3, not a text"),
        ([prompt("a", turns=("hello",))], r"'hello' is not a Turn"),
        ([prompt("a", turns=(Turn("robot", "x"),))], r"is not a Turn"),  # type: ignore[arg-type]
        ([prompt("a", turns=None)], r"the turns are None, not a tuple"),
        ([prompt("a", turns=(Turn("user", 3),))], r"the content of a turn is 3, not a text"),  # type: ignore[arg-type]
        ([prompt("a", source="four", truncatable=(1, 5))], r"truncatable is \(1, 5\), not the start and end of a part"),
        ([prompt("a", truncatable=[0, 1])], r"truncatable is \[0, 1\]"),
        ([prompt("a", truncatable=(True, 1))], r"truncatable is \(True, 1\)"),
        ([prompt("a", text="x \ud800")], r"the text is not valid Unicode: surrogates not allowed at position 2"),
    ],
)
def test_wrong_prompts_name_the_task_and_the_first_wrong_row(rows: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"^{OWNER}: .*{message}"):
        make_task(prompts=lambda split: rows).prompts("train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (prompt("c"), "is not a Comparison"),
        (compare("c", responses=("same", " same\n")), "the two responses are identical"),
        (compare("c", responses=("a", "")), "the second response is empty"),
        (compare("c", responses=(" ", "b")), "the first response is empty"),
        (compare("c", responses=("a", "b", "c")), "not two texts"),
        (compare("c", responses=("a", None)), "the second response is None, not a text"),
        (compare("c", responses=None), "the responses are None, not two texts"),
        (compare("c", preference=7.0), r"the preference is 7\.0, not a number between 0 and 1"),
        (compare("c", preference=-0.1), r"the preference is -0\.1"),
        (compare("c", preference=math.nan), "the preference is nan"),
        (compare("c", preference="1"), "the preference is '1'"),
        (compare("c", confidence=2), "the confidence is 2, not a number between 0 and 1"),
        (compare("c", preference_source="me"), "the preference_source is 'me'"),
        (compare("c", prompt=prompt("c", text="")), "the text is empty"),
        (compare("c", prompt="text"), "'text' is not a Prompt"),
        (compare("c", id=None), "the id is None"),
    ],
)
def test_wrong_comparisons_name_the_task_and_the_row(row: Any, message: str) -> None:
    task = make_task(comparisons=lambda split: [compare("right"), row])
    with pytest.raises(DataError, match=rf"^{OWNER}: comparisons\('validation'\), row 2 .*{message}"):
        task.comparisons("validation")


def test_comparisons_with_one_id_are_refused() -> None:
    rows = [compare("c"), compare("d"), compare("c", responses=("x", "y"))]
    with pytest.raises(DataError, match=r"row 3 \(id 'c'\): row 1 has the same id"):
        make_task(comparisons=lambda split: rows).comparisons("train")


def test_splits_that_share_a_text_are_refused() -> None:
    task = make_task(prompts=lambda split: [prompt("same"), prompt(split)])
    task.prompts("train")
    message = r"prompts\('test'\), row 1 \(id 'same'\): the text of the prompt is also in split 'train' \(id 'same'\)"
    with pytest.raises(DataError, match=message):
        task.prompts("test")


def test_ids_of_other_splits_do_not_matter_and_white_space_does_not_make_another_text() -> None:
    texts = {"train": "one  text", "validation": "another", "test": "one text\n"}
    task = make_task(prompts=lambda split: [prompt("1", text=texts[split])])
    assert len(task.prompts("train")) == len(task.prompts("validation")) == 1
    with pytest.raises(DataError, match="also in split 'train'"):
        task.prompts("test")


def test_the_prompts_of_comparisons_count_as_texts_of_their_split() -> None:
    task = make_task(comparisons=lambda split: [compare("c", prompt=prompt("test-2"))])
    task.comparisons("train")
    with pytest.raises(DataError, match=r"prompts\('test'\), row 2 .* is also in split 'train' \(id 'test-2'\)"):
        task.prompts("test")


def test_measures_become_floats() -> None:
    found = make_task(measure={"words": 3, "rouge": np.float32(0.5), "f1": torch.tensor(0.25)}).measure(
        prompt("a"), "x"
    )
    assert found == {"words": 3.0, "rouge": 0.5, "f1": 0.25}
    assert {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize("value", [None, [1.0], {"x": math.nan}, {"x": math.inf}, {"x": None}, {"x": "1"}, {1: 1.0}])
def test_wrong_measures_name_the_task_and_the_prompt(value: object) -> None:
    with pytest.raises(DataError, match=rf"^{OWNER}: measure\(\)"):
        make_task(measure=value).measure(prompt("a"), "x")


def test_what_truncate_and_clean_return_is_validated() -> None:
    fits = lambda shorter: True  # noqa: E731
    assert make_task(truncate=prompt("a", text="t")).truncate(prompt("a"), fits).text == "t"
    for wrong in (None, "text", prompt("b"), prompt("a", text="")):
        with pytest.raises(DataError, match=rf"^{OWNER}: truncate\(\) of prompt 'a': "):
            make_task(truncate=wrong).truncate(prompt("a"), fits)
    assert make_task(clean="x").clean("x.") == "x"
    with pytest.raises(PluginError, match=rf"^{OWNER}: clean\(\) returned None instead of a str"):
        make_task(clean=None).clean("x")
    with pytest.raises(
        PluginError, match=rf"^{OWNER}: clean\(\) returned 'a\\ud800', which is not valid Unicode: .* 1"
    ):
        make_task(clean="a\ud800").clean("x")


def test_tasks_of_one_class_have_data_of_their_own() -> None:
    class Task:
        __slots__ = ("name",)

        def __init__(self, name: str) -> None:
            self.name = name

        def prompts(self, split: str) -> list[Prompt]:
            return [prompt(self.name)]

        def comparisons(self, split: str) -> list[Comparison]:
            return []

    checked = check_returns(Task, "task", OWNER)
    assert check_returns(Task, "task", OWNER) is checked
    assert [checked(name).prompts("train")[0].id for name in ("a", "b")] == ["a", "b"]


def test_annotator_prompts_of_another_type_are_refused() -> None:
    with pytest.raises(
        PluginError, match=rf"^{OWNER}: annotator_prompts\(\) returned 'x' instead of a AnnotatorPrompts"
    ):
        make_task(annotator_prompts="x").annotator_prompts()
