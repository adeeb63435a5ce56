"""The task, the labelers and the metrics of the example: the conformance tests of each kind, and what is their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlaif_example.reviews import FOLDER
from rlaif_framework import Comparison, Context, DataError, LabelerConfig, PluginManager, Prompt, Spec, load_spec
from rlaif_framework.testing import LabelerConformance, MetricConformance, TaskConformance

PROMPT = Prompt("1", "The soup came first, and", "The soup came first, and", "it was lukewarm.")
GOOD, BAD, PLAIN = "it was a delicious surprise.", "it was a horrible mess.", "it came in a bowl."
PAIRS = (
    Comparison("1", PROMPT, (GOOD, BAD)),
    Comparison("2", PROMPT, (BAD, PLAIN)),
    Comparison("3", PROMPT, (PLAIN, GOOD)),
)
ROW: Mapping[str, Any] = {"id": "1", "split": "train", "beginning": "It was late, and", "continuation": "it rained."}
Make = Callable[..., Context]


class TestReviews(TaskConformance):
    component = "example/reviews"


class TestVader(LabelerConformance):
    component = "example/vader"
    comparisons = PAIRS


class TestPattern(LabelerConformance):
    component = "example/pattern"
    comparisons = PAIRS
    injection_tolerance = 0.15  # in `Verdict: 3`, with which others are compared, the lexicon reads an emoticon


class TestPositive(MetricConformance):
    component = "example/positive"


class TestDistinctWords(MetricConformance):
    component = "example/distinct-words"


@pytest.fixture(scope="module")
def manager() -> PluginManager:
    return PluginManager.load()


@pytest.fixture
def make(manager: PluginManager) -> Make:
    """Create the context of the task with these settings."""

    def make_context(**task: Any) -> Context:
        spec = {"task": {"kind": "example/reviews", **task}, "policy": {"model": "unused"}}
        return Context.from_spec(Spec.model_validate(spec, context={"manager": manager}), manager)

    return make_context


def label(context: Context, kind: str, first: str, second: str) -> float:
    config = context.manager.find("labeler", kind).config.model_validate({"kind": kind})
    assert isinstance(config, LabelerConfig)
    (preference,) = context.build_labeler(config).label([Comparison("1", PROMPT, (first, second))])
    assert preference.probabilities is not None
    return preference.probabilities[0]


@pytest.mark.parametrize("kind", ["example/vader", "example/pattern"])
def test_the_more_positive_continuation_wins(kind: str, make: Make) -> None:
    context = make()
    for better, worse in ((GOOD, PLAIN), (PLAIN, BAD), (GOOD, "it was not a delicious surprise.")):
        assert label(context, kind, better, worse) > 0.8, worse
    assert label(context, kind, GOOD, GOOD) == 0.5


@pytest.mark.parametrize("kind", ["example/vader", "example/pattern"])
def test_labels_agree_with_the_tone_that_the_data_was_written_in(kind: str, make: Make) -> None:
    context = make()
    comparisons = context.task.comparisons("validation")
    assert {c.preference for c in comparisons} == {0.0, 1.0}, "the positive continuation is always in one place"
    assert all((label(context, kind, *c.responses) > 0.5) == (c.preference == 1.0) for c in comparisons)


def test_the_data_has_the_sizes_in_its_readme(make: Make) -> None:
    task = make().task
    assert [len(task.prompts(split)) for split in ("train", "validation", "test")] == [198, 48, 96]
    assert len(task.comparisons("validation")) == 48
    assert not task.comparisons("train"), "the pairs are for measuring labelers"
    assert all(prompt.reference for prompt in task.prompts("train"))


def test_a_chat_policy_is_asked_and_another_one_continues(make: Make) -> None:
    prompt = make(instruction="Go on.").task.prompts("test")[0]
    assert prompt.text == prompt.source
    assert [turn.content for turn in prompt.turns] == [f"Go on.\n\n{prompt.source}"]


def test_the_last_words_of_a_beginning_are_kept(make: Make) -> None:
    task = make().task
    short = task.truncate(PROMPT, lambda prompt: len(prompt.text.split()) <= 2)
    assert (short.text, short.source, short.reference) == ("first, and", "first, and", PROMPT.reference)
    with pytest.raises(DataError, match="not even its last word fits"):
        task.truncate(PROMPT, lambda prompt: False)


def test_a_continuation_is_one_line(make: Make) -> None:
    task = make().task
    assert [task.clean(text) for text in ("good.\n\nThe end", "  good ", "\n")] == ["good.", "good", ""]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (GOOD, {"words": 5.0, "positive": 1.0, "distinct_words": 1.0}),
        (BAD, {"words": 5.0, "positive": 0.0, "distinct_words": 1.0}),
        ("Great, great, GREAT great!", {"words": 4.0, "positive": 1.0, "distinct_words": 0.25}),
        ("", {"words": 0.0, "positive": 0.0, "distinct_words": 1.0}),
    ],
    ids=["good", "bad", "repeated", "empty"],
)
def test_metrics_of_responses(response: str, expected: Mapping[str, float], make: Make) -> None:
    assert make().task.measure(PROMPT, response) == expected


def test_own_data_is_read(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "own.jsonl"
    rows = [ROW, {"id": "2", "split": "validation", "beginning": "b", "positive": "p", "negative": "n"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = make(data=str(path)).task
    assert [(p.id, p.source, p.reference) for p in task.prompts("train")] == [("1", "It was late, and", "it rained.")]
    assert [c.responses for c in task.comparisons("validation")] == [("p", "n")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "line 1: 'split' must be one of train, validation, test"),
        ({"beginning": ""}, "line 1: 'beginning' must be a text that is not empty"),
        ({"continuation": 3}, "line 1: 'continuation' must be a text"),
        ({"split": "validation"}, "line 1: 'positive' must be a text"),
    ],
    ids=["split", "empty", "number", "no-pair"],
)
def test_invalid_rows_are_named(change: Mapping[str, Any], message: str, tmp_path: Path, make: Make) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(DataError, match=message):
        make(data=str(path)).task.prompts("train")


def test_the_spec_is_valid_and_its_judge_is_not_its_reward(manager: PluginManager) -> None:
    spec = load_spec(FOLDER / "specs" / "positive-reviews.yaml", manager=manager)
    reward, evaluate = spec.arms["positive"].reward, spec.evaluate
    assert reward is not None
    assert evaluate is not None
    assert reward.model_dump()["labeler"]["kind"] == "example/vader"
    assert evaluate.judge is not None
    assert evaluate.judge.kind == "example/pattern"
