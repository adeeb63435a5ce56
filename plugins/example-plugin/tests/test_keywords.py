"""The labeler `example/keywords`, through the manager, as a run builds it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlaif_framework import Comparison, Context, Labeler, LabelerConfig, PluginManager, Prompt, Spec

SOURCE = "The ferry was late. The ferry is always late, and my sister missed her wedding because the ferry was late."
GOOD, VAGUE = "The ferry made my sister miss her wedding.", "Something was slow and somebody was upset."


@pytest.fixture
def context() -> Context:
    manager = PluginManager.load()
    spec = {"task": "tldr", "policy": {"model": "unused"}}
    return Context.from_spec(Spec.model_validate(spec, context={"manager": manager}), manager)


def build_labeler(context: Context, **settings: object) -> Labeler:
    component = context.manager.find("labeler", "example/keywords")
    config = component.config.model_validate({"kind": component.name, **settings})
    assert isinstance(config, LabelerConfig)
    return context.build_labeler(config)


def compare(*responses: str, identity: str = "1", source: str = SOURCE) -> Comparison:
    first, second = responses
    return Comparison(identity, Prompt(identity, f"POST: {source}\n\nTL;DR:", source), (first, second))


def test_naming_the_keywords_wins(context: Context) -> None:
    (preference,) = build_labeler(context).label([compare(GOOD, VAGUE)])
    assert preference.probabilities is not None
    assert preference.probabilities[0] > 0.9
    assert sum(preference.probabilities) == pytest.approx(1)


def test_swapping_the_responses_swaps_the_preference(context: Context) -> None:
    labeler = build_labeler(context)
    (given,), (swapped,) = labeler.label([compare(GOOD, VAGUE)]), labeler.label([compare(VAGUE, GOOD)])
    assert given.probabilities is not None
    assert swapped.probabilities == pytest.approx(given.probabilities[::-1])


def test_a_comparison_is_labelled_alike_alone_and_among_others(context: Context) -> None:
    labeler = build_labeler(context)
    pairs = [compare(GOOD, VAGUE, identity="1"), compare(VAGUE, GOOD, identity="2"), compare("late", "", identity="3")]
    together = list(labeler.label(pairs))
    assert [p.comparison for p in together] == ["1", "2", "3"]
    assert together == [preference for pair in pairs for preference in labeler.label([pair])]


def test_a_source_without_keywords_is_a_tie(context: Context) -> None:
    (preference,) = build_labeler(context).label([compare(GOOD, VAGUE, source="so it is")])
    assert preference.probabilities == (0.5, 0.5)


@pytest.mark.parametrize("settings", [{"keywords": 0}, {"keywords": 101}, {"scale": 0}, {"keyword": 3}])
def test_settings_out_of_bounds_or_unknown_are_refused(context: Context, settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        build_labeler(context, **settings)


def test_loading_the_plugin_imports_no_torch() -> None:
    code = (
        "import sys; from rlaif_framework import PluginManager; PluginManager.load(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
