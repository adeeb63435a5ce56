"""Metrics of responses: what they measure, and how a task has several of them."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif_framework import Context, PluginError, PluginManager, Prompt, Spec
from rlaif_framework.errors import SpecError
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import build_spec
from support.fake_plugins import Site

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
