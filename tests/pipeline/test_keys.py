"""A key covers everything a result depends on: every field of every recipe, and every setting of a spec."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, Context, PluginManager, Prompt, Spec
from rlaif_framework.assembly.context import Context as RunContext
from rlaif_framework.pipeline import recipes
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.keys import StepFactory
from rlaif_framework.pipeline.steps import Recipe, Step, TaskScope, find_steps

RECIPES = [value for value in vars(recipes).values() if inspect.isclass(value) and issubclass(value, Recipe)]
for base in (Recipe, recipes.LabelerRecipe, recipes.ScoreRecipe):
    RECIPES.remove(base)


def keys_of(spec: Spec, manager: PluginManager) -> dict[str, str]:
    return {step.name: step.key for step in compose(spec, Context.from_spec(spec, manager))}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_work_of_every_recipe_takes_that_recipe(recipe: type[Recipe]) -> None:
    work = pkgutil.resolve_name(recipe.work)
    stage, context, own = inspect.signature(work, eval_str=True).parameters.values()
    assert own.annotation is recipe
    assert context.annotation is RunContext
    assert stage.name == "stage"


def test_every_field_of_every_recipe_is_part_of_the_key(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    spec = tiny_spec()
    factory = StepFactory(Context.from_spec(spec, manager))
    checked = set()
    for step in compose(spec, factory.context):
        for field in fields(step.recipe):
            before = getattr(step.recipe, field.name)
            changed: Recipe = replace(step.recipe, **{field.name: another(before)})
            assert factory.describe(changed) != step.contents["recipe"], f"{step.name}: {field.name}"
            checked.add(type(step.recipe))
    assert checked == set(RECIPES)


def another(value: Any) -> Any:
    """Another value in the place of one of a recipe."""
    if isinstance(value, TaskScope):
        return next(scope for scope in TaskScope if scope is not value)
    if isinstance(value, list) and value and isinstance(value[0], Prompt | Comparison):
        return [replace(value[0], id="another"), *value[1:]]
    return "another"


@dataclass(frozen=True)
class Fruit:
    """A type that nobody has made a description of."""

    taste: object


def test_a_value_that_cannot_be_described_is_refused(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    factory = StepFactory(Context.from_spec(tiny_spec(), manager))
    with pytest.raises(TypeError, match="object cannot be part of a recipe"):
        factory.describe(Fruit(object()))


CHANGES: dict[str, Any] = {
    "seed": 4,
    "policy.max_new_tokens": 11,
    "policy.max_prompt_tokens": 95,
    "policy.lora.rank": 5,
    "sft.lr": 2e-3,
    "sft.limit": 23,
    "arms.rlaif.feedback.labeler.letter": "a",
    "arms.rlaif.feedback.pairs.limit": 23,
    "arms.rlaif.feedback.pairs.temperature": 0.8,
    "arms.rlaif.feedback.allow_weak_labels": False,
    "arms.rlaif.reward.lr": 2e-3,
    "arms.rlaif.algorithm.lr": 2e-3,
    "arms.rlaif.algorithm.value_from": "sft",
    "arms.rlaif.rounds": 2,
    "evaluate.judge": {"kind": "rouge"},
    "evaluate.prompts": 5,
    "evaluate.comparisons": 11,
    "evaluate.temperature": 0.5,
    "evaluate.show": 3,
    "evaluate.labelers": {},
    "task.validation_fraction": 0.3,
}
FIRST: dict[str, str] = {
    "arms.rlaif.feedback.allow_weak_labels": "rlaif/reward",
    "arms.rlaif.algorithm.lr": "rlaif/policy",
    "arms.rlaif.reward.lr": "rlaif/reward",
    "evaluate.temperature": "evaluation/responses/sft",
    "evaluate.show": "evaluation/summary",
}
"""The first step that a change must recompute: those before it are reused."""


@pytest.mark.parametrize(("path", "value"), CHANGES.items())
def test_a_changed_setting_changes_a_key(
    path: str, value: Any, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    data = tiny_spec().model_dump(mode="json")
    *parents, last = path.split(".")
    node = data
    for part in parents:
        node = node[part]
    node[last] = value
    before, after = keys_of(tiny_spec(), manager), keys_of(tiny_spec(**data), manager)
    changed = [name for name, key in after.items() if before.get(name) != key]
    assert "evaluation/summary" in changed
    if path in FIRST:
        assert changed[0] == FIRST[path]


def test_another_judge_samples_and_judges_nothing_again(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    evaluate = tiny_spec().model_dump(mode="json")["evaluate"]
    before = keys_of(tiny_spec(), manager)
    after = keys_of(tiny_spec(evaluate={**evaluate, "judges": {"other": "rouge"}}), manager)
    assert after.keys() - before.keys() == {"evaluation/judges/other/rlaif-vs-sft", "evaluation/labels/other"}
    assert [name for name in before if after[name] != before[name]] == ["evaluation/summary"]


def test_equal_recipes_share_a_key_and_names_do_not_matter(
    tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    arm = tiny_spec().model_dump(mode="json")["arms"]["rlaif"]
    keys = keys_of(tiny_spec(arms={"one": arm, "two": arm}), manager)
    for name in ("pairs", "labels", "reward", "policy"):
        assert keys[f"one/{name}"] == keys[f"two/{name}"]
    assert keys["evaluation/wins/one-vs-sft"] == keys["evaluation/wins/two-vs-sft"]


def test_annotator_prompts_of_a_file_are_part_of_the_labels_key_and_not_of_the_baselines(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    own = tmp_path / "own.yaml"
    task = {"kind": "tldr", "annotator_prompts": str(own)}
    own.write_text("label: 'Which one?'")
    before = keys_of(tiny_spec(task=task), manager)
    own.write_text("label: 'Which is better?'")
    after = keys_of(tiny_spec(task=task), manager)
    assert before["sft"] == after["sft"]
    assert before["rlaif/labels"] != after["rlaif/labels"]


def test_steps_follow_the_steps_they_depend_on(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    seen: list[Step] = []
    for step in compose(tiny_spec(), Context.from_spec(tiny_spec(), manager)):
        assert all(earlier in seen for earlier in find_steps(step.recipe))
        seen.append(step)
