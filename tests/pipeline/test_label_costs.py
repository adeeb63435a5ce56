"""The tokens and the cost of an arm's labels are recorded with its artefact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlaif_framework import Comparison, Context, Evidence, LabelerConfig, Preference, Prompt
from rlaif_framework.pipeline.recipes import LabelRecipe
from rlaif_framework.pipeline.stages.gate import measure_agreement
from rlaif_framework.pipeline.stages.label import label_comparisons
from support.world import World
from support.world import world as world


class PaidLabeler:
    """Each label takes 12 tokens and half a dollar."""

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        for comparison in comparisons:
            evidence = Evidence("paid", prompt_tokens=10, generated_tokens=2, cost=0.5)
            yield Preference(comparison.id, (1.0, 0.0), evidence)


def test_labels_of_the_gate_are_paid_for_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(count: int, **gold: Any) -> list[Comparison]:
        return [Comparison(f"c{i}", Prompt(f"p{i}", "text", "text"), ("a", "b"), **gold) for i in range(count)]

    monkeypatch.setattr(Context, "build_labeler", lambda self, config: PaidLabeler())
    stage, config, comparisons = world.stage("labels"), LabelerConfig(kind="paid"), make(3)
    found = label_comparisons(stage, stage.context, config, comparisons)
    assert [stage.facts[name] for name in ("prompt_tokens", "generated_tokens", "cost")] == [30, 6, 1.5]
    # The arm's own comparisons have no gold preferences, so the gate labels validation comparisons.
    recipe = SimpleNamespace(labeler=config, validation=make(4, preference=1.0, preference_source="human"))
    measure_agreement(stage, stage.context, cast(LabelRecipe, recipe), comparisons, found)
    assert [stage.facts[name] for name in ("prompt_tokens", "generated_tokens", "cost")] == [70, 14, 3.5]
