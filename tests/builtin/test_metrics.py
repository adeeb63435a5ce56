"""Metrics of responses: what they measure, and how a task has several of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Context, DataError, PluginError, PluginManager, Prompt, Spec
from rlaif_framework.errors import SpecError
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import build_spec
from support.fake_plugins import Site, write_rows

PROMPTS = [Prompt("1", "", "the cat sat on the mat all day", "a cat sat"), Prompt("2", "", "the dog")]


def build(manager: PluginManager, *given: Any) -> Any:
    context = Context(narrow("task", "tldr", manager), None, 0, manager)
    return context.build_metrics([narrow("metric", value, manager) for value in given])


def test_each_response_has_the_numbers_that_apply_to_it(manager: PluginManager) -> None:
    metrics = build(manager, "words", "copy-rate", {"kind": "rouge", "variants": ["rouge1", "rougeL"]})
    first, second = metrics.measure(PROMPTS, ["sat on the mat all", "the dog"])
    assert first == pytest.approx({"words": 5, "copy_rate": 1, "rouge1": 0.25, "rougeL": 0.25})
    assert second == {"words": 2.0, "copy_rate": 1.0}


def test_no_metrics_and_no_responses_are_fine(manager: PluginManager) -> None:
    assert build(manager).measure(PROMPTS, ["a", "b"]) == [{}, {}]
    assert build(manager, "words", "rouge").measure([], []) == []


def test_rouge_is_that_of_the_library_that_papers_use(manager: PluginManager) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    expected = RougeScorer(names, use_stemmer=True).score("a cat sat", "the cats sat down")
    (found,) = build(manager, "rouge").measure(PROMPTS[:1], ["the cats sat down"])
    assert found == {name: expected[name].fmeasure for name in names}


def test_two_metrics_of_the_same_name_are_an_error_in_the_spec(manager: PluginManager) -> None:
    task = {"kind": "tldr", "metrics": ["words", "rouge", "words"]}
    with pytest.raises(SpecError, match=r"task.metrics: metrics 'words' and 'words' both measure 'words'"):
        build_spec({"task": task, "policy": {"model": "m"}}, "x.yaml", manager)


def test_a_task_measures_with_the_metrics_of_the_spec(manager: PluginManager) -> None:
    config = narrow("task", {"kind": "tldr", "metrics": ["words"]}, manager)
    assert Context(config, None, 0, manager).build_task(config).measure(PROMPTS[0], "a cat sat") == {"words": 3.0}
    assert config.title == "tldr (metrics: [words])"
    assert narrow("task", "tldr", manager).title == "tldr"


def test_the_rate_and_the_mean_score_of_a_labeler_are_measured(manager: PluginManager) -> None:
    metric = {"kind": "scored", "name": "harmless", "labeler": "length", "above": 3}
    found = build(manager, metric).measure([PROMPTS[0]] * 3, ["abc", "abcd", ""])
    assert [row["harmless_score"] for row in found] == [3.0, 4.0, 0.0]
    assert [row["harmless_rate"] for row in found] == [0.0, 1.0, 0.0]
    assert build(manager, metric).measure([], []) == []


def test_the_responses_of_a_policy_are_rated_by_a_language_model_in_one_call(
    tiny_model: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    rate = {"kind": "rate", "backend": {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32"}}
    context = Context.from_spec(tiny_spec(task="tldr"), manager)
    labeler: Any = context.build_labeler(narrow("labeler", rate, manager))
    responses = ["The cat sat.", "It is a dog that ate the homework.", ""]
    scores = labeler.score([PROMPTS[0]] * 3, responses)
    threshold = sorted(scores)[1]
    metric = narrow("metric", {"kind": "scored", "labeler": rate, "above": threshold}, manager)
    assert [load.model for load in metric.loads("policy")] == [str(tiny_model)]
    found = context.build_metrics([metric]).measure([PROMPTS[0]] * 3, responses)
    assert [row["acceptable_score"] for row in found] == pytest.approx(scores)
    assert sum(row["acceptable_rate"] for row in found) == 1


def test_a_labeler_that_compares_responses_cannot_score_one(manager: PluginManager) -> None:
    with pytest.raises(ValueError, match="labeler 'human' compares responses and cannot score one alone"):
        narrow("metric", {"kind": "scored", "labeler": "human"}, manager)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["words"], r"evaluate.metrics.0: 'words' is measured anyway; remove the metric"),
        (
            ["json-valid", {"kind": "contains", "name": "eos_rate", "texts": ["a"]}],
            r"metrics.1: 'eos_rate' is measured",
        ),
        ([{"kind": "contains", "name": "a/b"}], "the name 'a/b' has other characters than letters, digits and _"),
        (["json-valid", "json-valid"], "both measure 'json_valid'; set 'name' of one of them"),
    ],
    ids=["task", "always", "path", "twice"],
)
def test_metrics_of_the_evaluation_have_names_of_their_own(
    metrics: list[Any], message: str, tiny_spec: Callable[..., Spec]
) -> None:
    with pytest.raises(SpecError, match=message):
        tiny_spec(evaluate={"judge": "length", "metrics": metrics})


def test_a_metric_of_the_evaluation_says_what_a_prompt_lacks_before_the_run(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    posts = [{"prompt": f"post {i} about a dog", "chosen": "a", "rejected": "b"} for i in range(40)]
    task = {"kind": "dialogue", "data": str(write_rows(tmp_path / "x.jsonl", [{**p, "label": 0.5} for p in posts]))}
    metrics = [{"kind": "scored", "labeler": "rouge"}]
    spec = tiny_spec(task=task, sft=None, arms={}, evaluate={"judge": "length", "matchups": [], "metrics": metrics})
    with pytest.raises(DataError, match=r"evaluate.metrics.0 'scored': .* has a prompt without a reference"):
        compose(spec, Context.from_spec(spec, manager))


OTHER = '''
from rlaif_framework import Component, MetricConfig, hookimpl

class Config(MetricConfig):
    """Measure something else."""

class Other:
    def __init__(self, config, context): ...

    def measure(self, prompts, responses):
        return {"other": [1.0] * len(responses)}

@hookimpl
def rlaif_metrics():
    return [Component("acme/foo-bar", Config, "rlaif_acme:Other")]
'''


def test_a_metric_that_measures_something_else_than_it_says_is_named(site: Site) -> None:
    site.install("rlaif-acme", OTHER)
    with pytest.raises(PluginError, match=r"'acme/foo-bar': measure\(\) returned other, but the names .* are foo_bar"):
        build(PluginManager.load(), "acme/foo-bar").measure(PROMPTS, ["a", "b"])


def test_a_spec_with_metrics_is_written_and_read_again(manager: PluginManager) -> None:
    task = {"kind": "tldr", "metrics": [{"kind": "rouge", "variants": ["rouge2"]}, "words"]}
    spec = build_spec({"task": task, "policy": {"model": "m"}}, "x.yaml", manager)
    dumped = spec.model_dump(mode="json")
    assert dumped["task"]["metrics"] == [{"kind": "rouge", "variants": ["rouge2"]}, {"kind": "words"}]
    assert Spec.model_validate(dumped, context={"manager": manager}) == spec
