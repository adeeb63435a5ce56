"""Checks of responses: what passes, and each check as a reward, a labeler and a metric."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, Context, DataError, PluginManager, Prompt
from rlaif_framework.assembly.preflight import check_labeler
from rlaif_framework.plugins.slots import narrow
from rlaif_plugins.checks import CHECKS
from rlaif_plugins.checks.choice import find_choice
from support.world import World

REQUIRED: dict[str, dict[str, Any]] = {"regex": {"pattern": "A"}}


def grade(kind: str, response: str, reference: str | None = None, **settings: Any) -> float | None:
    check = CHECKS[kind].model_validate({**REQUIRED.get(kind, {}), **settings})
    return check.grade(Prompt("1", "a question", "a question", reference), response)


# What passes


@pytest.mark.parametrize(
    ("response", "reference", "settings", "expected"),
    [
        (" Paris\n", "Paris", {}, 1),
        ("the\n  cat", "the cat", {}, 1),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("“Paris.”", "Paris", {"ignore_punctuation": True}, 1),
        ("It is Paris", "Paris", {}, 0),
        ("It is Paris", "Paris", {"negate": True}, 1),
        ("no, yes", "yes", {"extract": "yes|no"}, 1),
        ("So 6 * 7.\n#### 42", "6 * 7 = 42\n#### 42", {"extract": r"#### (.*)"}, 1),
        ("So 42", "#### 42", {"extract": r"#### (.*)"}, 0),
        ("So 42", "#### 42", {"extract": r"#### (.*)", "negate": True}, 1),
        ("6 * 7 is 42.", "#### 42", {"compare": "number"}, 1),
        ("It costs $1,000.00", "1000", {"compare": "number"}, 1),
        ("-3", "3", {"compare": "number"}, 0),
        (".5", "0.50", {"compare": "number"}, 1),
        ("0.1", "0.10000000000000001", {"compare": "number"}, 0),
        ("none", "3", {"compare": "number"}, 0),
        ("", "3", {"compare": "number"}, 0),
    ],
)
def test_an_exact_match_compares_the_answers(
    response: str, reference: str, settings: dict[str, Any], expected: float
) -> None:
    assert grade("exact-match", response, reference, **settings) == expected


def test_what_a_prompt_lacks_is_said_before_anything_is_computed(manager: PluginManager) -> None:
    pairs = [Comparison("c1", Prompt("1", "x", "x", reference), ("a", "b")) for reference in ("see above", None)]
    for kind, settings, index, reason in (
        ("exact-match", {}, 1, "has a prompt without a reference"),
        ("exact-match", {"compare": "number"}, 0, "has a reference without a number"),
        ("choice", {}, 0, "has a reference that names none of the options"),
        ("choice", {}, 1, "has a prompt without a reference"),
        ("contains", {}, 1, "has a prompt without a reference"),
    ):
        assert grade(kind, "a", pairs[index].prompt.reference, **settings) is None
        for slot in ("reward", "labeler"):
            config = narrow(slot, {"kind": kind, **settings}, manager)
            with pytest.raises(DataError, match=f"arms.a.{slot} '{kind}': comparison 'c1' {reason}"):
                check_labeler(f"arms.a.{slot}", config, [pairs[index]])
    in_sum = narrow("reward", {"kind": "sum", "terms": {"right": "exact-match"}}, manager)
    with pytest.raises(DataError, match="has a prompt without a reference"):
        check_labeler("arms.a.reward", in_sum, pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        (" (B)", "B"),
        ("B.", "B"),
        ("B) the blue one", "B"),
        ("**C**", "C"),
        ("C: because A is wrong", "C"),
        ("The answer is B.", "B"),
        ("The answer is (B), not A", "B"),
        ("Answer: **D**", "D"),
        ("First I thought the answer is A. Now the answer is C", "C"),
        (r"So $\boxed{D}$, and not (A)", "D"),
        (r"\boxed{\text{B}}", "B"),
        ("It must be (C), as B is too small", "C"),
        ("I think it is D", "D"),
        ("A dog is an animal, so D", "D"),
        ("A dog is an animal", None),
        ("B or C", None),
        ("E", None),
        ("Because", None),
        ("a", None),
        ("", None),
    ],
)
def test_a_choice_is_found_where_a_model_writes_it(text: str, expected: str | None) -> None:
    assert find_choice(text, "ABCD") == expected


def test_options_may_be_words() -> None:
    options = ["yes", "no", "not sure"]
    assert find_choice("Yes, it is.", options) == "yes"
    assert find_choice("I am not sure", options) == "not sure"
    assert find_choice("Nobody said yes", options) == "yes"
    assert grade("choice", "The answer is NO", "no", options=options) == 1
    assert grade("choice", "yes or no", "no", options=options) == 0
    assert grade("choice", "(B)", "B) Paris") == 1


@pytest.mark.parametrize(
    ("response", "settings", "expected"),
    [
        ("The Answer\nis 42", {"texts": ["answer is"]}, 1),
        ("The Answer", {"texts": ["answer"], "ignore_case": False}, 0),
        ("a and b", {"texts": ["a", "c"]}, 0),
        ("a and b", {"texts": ["a", "c"], "need": "any"}, 1),
        ("of course not", {"texts": ["I cannot", "sorry"], "need": "any", "negate": True}, 1),
        ("it is Paris.", {}, 1),
        ("it is Rome.", {}, 0),
    ],
)
def test_texts_are_found_in_a_response(response: str, settings: dict[str, Any], expected: float) -> None:
    assert grade("contains", response, "Paris", **settings) == expected


@pytest.mark.parametrize(
    ("response", "settings", "expected"),
    [
        ("<think>so</think>42", {"pattern": r"(?s)\A<think>.*</think>\d+\z"}, 1),
        ("42", {"pattern": r"(?s)\A<think>.*</think>\d+\z"}, 0),
        ("YES", {"pattern": "yes"}, 0),
        ("YES", {"pattern": "yes", "ignore_case": True}, 1),
        ("naïve \U0001f600!", {"pattern": "\U0001f600.$"}, 1),
    ],
)
def test_an_expression_is_searched(response: str, settings: dict[str, Any], expected: float) -> None:
    assert grade("regex", response, **settings) == expected


@pytest.mark.parametrize("pattern", [r"^(\w+\s?)*\1$", "(?=a)b", "(", "a{5000}"])
def test_what_takes_more_than_linear_time_is_refused(pattern: str, manager: PluginManager) -> None:
    for slot in ("reward", "labeler", "metric"):
        with pytest.raises(ValueError, match="not a regular expression of RE2: "):
            narrow(slot, {"kind": "regex", "pattern": pattern}, manager)
    with pytest.raises(ValueError, match="extract"):
        narrow("metric", {"kind": "exact-match", "extract": pattern}, manager)


@pytest.mark.parametrize(
    ("response", "settings", "expected"),
    [
        ('{"a": [1, 2.5, null, true]}', {}, 1),
        (' "text"\n', {}, 1),
        ("{'a': 1}", {}, 0),
        ('{"a": 1} so', {}, 0),
        ("NaN", {}, 0),
        ("[" * 100_000, {}, 0),
        ("9" * 5000, {}, 0),
        ("", {}, 0),
        ('```json\n{"a": 1}\n```', {}, 0),
        ('```json\n{"a": 1}\n```', {"fence": True}, 1),
        ('{"a": 1}', {"fence": True, "keys": ["a"]}, 1),
        ('{"a": 1}', {"keys": ["a", "b"]}, 0),
        ('["a"]', {"keys": ["a"]}, 0),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_json_is_parsed_as_the_standard_says(response: str, settings: dict[str, Any], expected: float) -> None:
    assert grade("json-valid", response, **settings) == expected


@pytest.mark.parametrize(
    ("response", "settings", "expected"),
    [
        ("", {}, 0),
        ("a", {}, 1),
        ("a b c", {"least": 2, "most": 3}, 1),
        ("a b c", {"most": 2}, 0),
        ("", {"least": 0, "most": 0}, 1),
        ("äöü", {"unit": "characters", "least": 3, "most": 3}, 1),
    ],
)
def test_a_length_is_within_bounds_that_are_included(response: str, settings: dict[str, Any], expected: float) -> None:
    assert grade("length-range", response, **settings) == expected


def test_bounds_that_nothing_satisfies_are_refused(manager: PluginManager) -> None:
    with pytest.raises(ValueError, match="most: 2 is below 'least', which is 3"):
        narrow("reward", {"kind": "length-range", "least": 3, "most": 2}, manager)


# Roles


@pytest.mark.parametrize("kind", sorted(CHECKS))
def test_every_check_is_a_reward_a_labeler_and_a_metric_that_agree(
    kind: str, world: World, manager: PluginManager
) -> None:
    settings = {"kind": kind, **REQUIRED.get(kind, {})}
    prompts = [Prompt(str(i), "q", "q", "A") for i in range(4)]
    responses = ["A", "B", "{}", " "]
    expected = [grade(kind, text, "A") for text in responses]
    assert len(set(expected)) == 2, "the responses do not tell a check that passes everything"
    context = Context(narrow("task", "tldr", manager), None, 0, manager)
    reward: Any = context.build_reward(narrow("reward", settings, manager))
    stage = world.stage(f"reward-{kind}")
    reward.fit([], Path(), stage)
    assert reward.load(stage.folder).score(prompts, responses) == expected
    assert [reward.load(stage.folder).score([p], [r])[0] for p, r in zip(prompts, responses, strict=True)] == expected
    metric = context.build_metric(narrow("metric", settings, manager))
    assert metric.measure(prompts, responses) == {kind.replace("-", "_"): expected}
    labeler = context.build_labeler(narrow("labeler", settings, manager))
    pairs = [Comparison(f"{a}{b}", prompts[0], (a, b)) for a in responses for b in responses]
    for pair, preference in zip(pairs, labeler.label(pairs), strict=True):
        scores = tuple(grade(kind, text, "A") for text in pair.responses)
        first = 0.5 if scores[0] == scores[1] else float(scores[0] == 1)
        assert preference.probabilities == (first, 1 - first)
        assert (preference.evidence.source, preference.evidence.scores) == (kind, scores)


def test_a_check_can_be_a_term_of_a_sum_and_the_labeler_of_a_direct_reward(
    world: World, manager: PluginManager
) -> None:
    terms = {"right": "exact-match", "short": {"kind": "length-range", "most": 2}}
    direct = {"kind": "direct", "labeler": "exact-match", "scale": 3}
    context = Context(narrow("task", "tldr", manager), None, 0, manager)
    prompts = [Prompt("1", "q", "q", "42")] * 2
    for name, settings, expected in (
        ("sum", {"kind": "sum", "terms": terms, "weights": {"short": 0.5}}, [1.5, 0.0]),
        ("direct", direct, [3.0, 0.0]),
    ):
        reward = context.build_reward(narrow("reward", settings, manager))
        stage = world.stage(name)
        reward.fit([], Path(), stage)
        assert reward.load(stage.folder).score(prompts, ["42", "it is 42"]) == expected


def test_two_checks_of_one_kind_have_names_of_their_own(manager: PluginManager) -> None:
    same = [{"kind": "contains", "texts": [text]} for text in "ab"]
    with pytest.raises(ValueError, match="both measure 'contains'; set 'name' of one of them"):
        narrow("task", {"kind": "tldr", "metrics": same}, manager)
    named = [{**check, "name": f"has_{check['texts'][0]}"} for check in same]
    config: Any = narrow("task", {"kind": "tldr", "metrics": named}, manager)
    context = Context(config, None, 0, manager)
    assert context.task.measure(Prompt("1", "q", "q"), "a") == {"has_a": 1.0, "has_b": 0.0}


def test_a_reward_without_a_reference_names_the_prompt(manager: PluginManager) -> None:
    context = Context(narrow("task", "tldr", manager), None, 0, manager)
    reward: Any = context.build_reward(narrow("reward", "exact-match", manager))
    with pytest.raises(DataError, match=re.escape("reward 'exact-match': 'p7' has a prompt without a reference")):
        reward.score([Prompt("p7", "q", "q")], ["a"])
