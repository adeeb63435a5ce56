"""A key covers everything a result depends on: every field of every recipe, and every setting of a spec."""

from __future__ import annotations

import inspect
import os
import pkgutil
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_framework import Comparison, Context, PluginManager, Prompt, Spec, SpecError, load_spec
from rlaif_framework.assembly import context as run_context
from rlaif_framework.assembly import identity
from rlaif_framework.assembly.context import Context as RunContext
from rlaif_framework.config import Config
from rlaif_framework.models.source import find_model
from rlaif_framework.pipeline import recipes
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.keys import StepFactory
from rlaif_framework.pipeline.recipes import FittedReward, ScoreComparisonsRecipe
from rlaif_framework.pipeline.steps import Recipe, Step, TaskScope, find_steps
from rlaif_framework.plugins.component import SLOTS, ComponentConfig, Slot
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.model import (
    AiFeedback,
    Arm,
    EvaluateConfig,
    LoraSettings,
    PairsConfig,
    PolicyConfig,
    SftConfig,
)
from support.fake_plugins import write_rows

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
    arms = tiny_spec().model_dump(mode="json")["arms"]
    arms["rlaif"]["feedback"]["allow_weak_labels"] = False
    evaluate = {**tiny_spec().model_dump(mode="json")["evaluate"], "metrics": ["json-valid"]}
    spec = tiny_spec(arms=arms, evaluate=evaluate)
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


RESPONSES = [f"evaluation/responses/{name}" for name in ("sft", "rlaif", "offline")]
WINS = ["rlaif-vs-sft", "offline-vs-sft", "rlaif-vs-offline"]
SFT, PAIRS, SUMMARY = ["sft"], ["rlaif/pairs"], ["evaluation/summary"]
LABELS = ["rlaif/labels", "evaluation/labels/rlaif"]
SAMPLED = [*PAIRS, "evaluation/responses/sft", "evaluation/responses/offline"]
HELD_OUT = [*(f"evaluation/labels/{name}" for name in ("judge", "rlaif", "own")), "evaluation/margins/rlaif"]
ROOTS: dict[str, tuple[Any, list[str]]] = {
    # The name of the run and the plugins that must be installed change nothing.
    "name": ("other", []),
    "requires": (["pytest"], []),
    "evaluation_seed": (4, [*RESPONSES, *HELD_OUT]),
    # Only the components of a file depend on it.
    "plugins": (["rewards.py"], []),
    "policy.dtype": ("bf16", SFT),
    "policy.lora": (None, SFT),
    "policy.lora.rank": (5, SFT),
    "policy.lora.alpha": (5.0, SFT),
    "policy.lora.targets": (["q_proj"], SFT),
    "policy.lora.last_layers": (1, SFT),
    "policy.gradient_checkpointing": (True, []),
    "policy.trust_remote_code": (True, []),  # this model has no code; for others, see test_trust.py
    # The pairs of the task are truncated too.
    "policy.max_prompt_tokens": (95, [*SFT, "offline/pairs"]),
    # The generation config of a saved policy has the length limit.
    "policy.max_new_tokens": (11, SFT),
    "policy.save_dtype": ("bf16", SFT),
    "policy.chat": ("plain", [*SFT, "offline/pairs"]),
    # DPO and supervised fine-tuning sample nothing.
    "policy.batch_tokens": (4096, SAMPLED),
    "policy.train_tokens": (1024, SFT),
    "sft": (None, SFT),
    "sft.lr": (2e-3, SFT),
    "sft.schedule": ("cosine", SFT),
    "sft.adam_eps": (1e-6, SFT),
    "sft.optimizer": ("adafactor", SFT),
    "sft.epochs": (2.0, SFT),
    "sft.warmup": (0.2, SFT),
    "sft.batch_size": (4, SFT),
    "sft.loss": ("all", SFT),
    "sft.max_response_tokens": (20, SFT),
    "sft.limit": (23, SFT),
    "arms.rlaif.feedback": (
        {"kind": "human", "labeler": "synthetic", "pairs": {"source": "task", "limit": 24}},
        # Pairs of the task are what the other arm has already.
        ["rlaif/labels"],
    ),
    "arms.rlaif.feedback.labeler": ({"kind": "test/taste", "letter": "a"}, LABELS),
    # Nothing but the gate, which was not asked before.
    "arms.rlaif.feedback.allow_weak_labels": (False, ["rlaif/gate"]),
    "arms.rlaif.feedback.pairs": ({"source": "policy"}, PAIRS),
    "arms.rlaif.feedback.pairs.source": ("policy", PAIRS),
    "arms.rlaif.feedback.pairs.limit": (23, PAIRS),
    "arms.rlaif.feedback.pairs.prompts": (11, PAIRS),
    "arms.rlaif.feedback.pairs.responses": (3, PAIRS),
    "arms.rlaif.feedback.pairs.temperature": (0.8, PAIRS),
    "arms.rlaif.reward": ({"kind": "bradley-terry", "lr": 2e-3}, ["rlaif/reward"]),
    "arms.rlaif.algorithm": ({"kind": "rloo", "steps": 2}, ["rlaif/policy"]),
    # The first round is the only one of before.
    "arms.rlaif.rounds": (2, PAIRS),
    "evaluate": (None, []),
    "evaluate.judge": ("rouge", ["evaluation/labels/judge", *(f"evaluation/wins/{pair}" for pair in WINS)]),
    "evaluate.judges": (
        {"other": "rouge"},
        ["evaluation/labels/other", *(f"evaluation/judges/other/{pair}" for pair in WINS)],
    ),
    "evaluate.matchups": ([["rlaif", "sft"]], SUMMARY),
    "evaluate.labelers": ({}, SUMMARY),
    "evaluate.prompts": (5, RESPONSES),
    "evaluate.comparisons": (11, HELD_OUT),
    "evaluate.temperature": (0.5, RESPONSES),
    "evaluate.responses": (2, RESPONSES),
    "evaluate.metrics": (
        ["json-valid"],
        [f"evaluation/metrics/json_valid/{name}" for name in ("sft", "rlaif", "offline", "reference")],
    ),
    "evaluate.show": (3, SUMMARY),
    "trackers": ([], []),
    "published": ({"source": "a paper", "results": {"win_rate/rlaif-vs-sft": 0.7}}, []),
}
"""For every setting: another value, and the steps that must be recomputed although all they depend on is reused. The
steps that depend on these follow. A new setting must be declared here."""
GROUPS = ("seed", "task", "policy", "arms", "policy.model", "policy.revision", "evaluate.human_labels")
"""Settings with tests of their own."""


def test_every_setting_of_a_spec_is_declared() -> None:
    names = [*Spec.model_fields]
    names += [f"policy.{name}" for name in PolicyConfig.model_fields]
    names += [f"policy.lora.{name}" for name in LoraSettings.model_fields]
    names += [f"sft.{name}" for name in SftConfig.model_fields]
    names += [f"arms.rlaif.{name}" for name in Arm.model_fields]
    names += [f"arms.rlaif.feedback.{name}" for name in AiFeedback.model_fields if name != "kind"]
    names += [f"arms.rlaif.feedback.pairs.{name}" for name in PairsConfig.model_fields]
    names += [f"evaluate.{name}" for name in EvaluateConfig.model_fields]
    assert {*ROOTS, *GROUPS} == set(names)


def find_roots(before: Spec, after: Spec, manager: PluginManager) -> list[str]:
    """List the steps that are not reused although those they depend on are, and check that the later ones follow."""
    known = set(keys_of(before, manager).values())
    steps = compose(after, Context.from_spec(after, manager))
    for step in steps:
        if any(earlier.key not in known for earlier in find_steps(step.recipe)):
            assert step.key not in known, f"{step.name} is reused although a step it depends on is not"
    new = [step for step in steps if step.key not in known]
    return [step.name for step in new if all(earlier.key in known for earlier in find_steps(step.recipe))]


@pytest.fixture
def two_arms(tiny_spec: Callable[..., Spec]) -> Callable[..., Spec]:
    """A spec with an arm that samples and one that does not; keyword arguments replace top-level keys."""

    def build(**changes: Any) -> Spec:
        data = tiny_spec().model_dump(mode="json")
        feedback = {**data["arms"]["rlaif"]["feedback"], "pairs": {"source": "task", "limit": 24}}
        data["arms"]["offline"] = {"feedback": feedback, "algorithm": {"kind": "dpo"}}
        data["evaluate"]["temperature"] = 0.9
        return tiny_spec(**{**data, **changes})

    return build


@pytest.mark.parametrize("path", ROOTS)
def test_a_setting_recomputes_what_it_changes_and_nothing_else(
    path: str, two_arms: Callable[..., Spec], manager: PluginManager
) -> None:
    value, expected = ROOTS[path]
    data = two_arms().model_dump(mode="json")
    *parents, last = path.split(".")
    node = data
    for part in parents:
        node = node[part]
    assert node[last] != value
    node[last] = value
    found = find_roots(two_arms(), two_arms(**data), manager)
    assert sorted(found) == sorted(expected)


def test_another_seed_recomputes_everything(two_arms: Callable[..., Spec], manager: PluginManager) -> None:
    assert not set(keys_of(two_arms(), manager).values()) & set(keys_of(two_arms(seed=4), manager).values())


def test_another_model_is_known_by_its_contents(
    tiny_model: Path, tmp_path: Path, two_arms: Callable[..., Spec], manager: PluginManager
) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    copy = two_arms(policy={**two_arms().policy.model_dump(mode="json"), "model": str(tmp_path / "copy")})
    assert find_roots(two_arms(), copy, manager) == []
    (tmp_path / "copy/chat_template.jinja").write_text("another template")
    assert sorted(find_roots(two_arms(), copy, manager)) == ["offline/pairs", "sft"]


def test_human_labels_are_known_by_their_contents_and_only_combine_the_measurements_again(
    tmp_path: Path, two_arms: Callable[..., Spec], manager: PluginManager
) -> None:
    def label(name: str, label: str) -> Spec:
        path = tmp_path / f"{name}.jsonl"
        write_rows(path, [{"prompt": "p", "response_a": "a", "response_b": "b", "label": label}])
        return two_arms(evaluate={**two_arms().model_dump(mode="json")["evaluate"], "human_labels": str(path)})

    assert find_roots(two_arms(), label("one", "a"), manager) == SUMMARY
    assert find_roots(label("one", "a"), label("two", "a"), manager) == []
    assert find_roots(label("one", "a"), label("two", "b"), manager) == SUMMARY


LOCAL = {"kind": "transformers", "model": "m"}


def test_a_model_is_known_by_its_contents_and_not_by_its_revision(
    two_arms: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a hub model of which both revisions are the same commit.
    monkeypatch.setattr(run_context, "find_model", lambda name, *settings: find_model(name))
    pinned = two_arms(policy={**two_arms().policy.model_dump(mode="json"), "revision": "v1"})
    assert find_roots(two_arms(), pinned, manager) == []


REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    ("backend", "transformers"): {"model": "m"},
    ("backend", "openai"): {"model": "m", "base_urls": "http://localhost/v1"},
    ("labeler", "ensemble"): {"labelers": {"a": "length", "b": "rouge"}},
    ("labeler", "likelihood"): {"model": "m"},
    ("labeler", "reference-likelihood"): {"model": "m"},
    ("labeler", "llm"): {"backend": LOCAL},
    ("labeler", "rate"): {"backend": LOCAL},
    ("labeler", "mix"): {"labeler": "length"},
    ("reward", "pretrained"): {"model": "m"},
    ("reward", "direct"): {"labeler": {"kind": "rate", "backend": LOCAL}},
    ("reward", "ensemble"): {"members": ["length", "length"]},
    ("reward", "sum"): {"terms": {"a": "length"}},
    ("algorithm", "teacher"): {"backend": LOCAL},
    ("metric", "scored"): {"labeler": "length"},
    **{(slot, "function"): {"target": "math:sqrt"} for slot in ("reward", "labeler", "metric")},
    **{(slot, "regex"): {"pattern": "a"} for slot in ("reward", "labeler", "metric")},
}
"""Settings without defaults."""
NO_EFFECT = {
    ("backend", "openai"): {
        "api_key_env",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout",
        "retries",
        "max_tokens_budget",
        "max_cost",
    },
    # A warning does not change the policy; an alarm that may stop does, and is in the key.
    **{
        ("algorithm", kind): {"alarm", "alarm_every"}
        for kind in ("reinforce", "a2c", "ppo", "rloo", "grpo", "online-dpo")
    },
    # The rows of the data are in the recipes, and annotator prompts in the descriptions of tasks that use them.
    ("task", "text"): {"data", "annotator_prompts"},
    ("task", "tldr"): {"data", "comparisons", "annotator_prompts"},
    ("task", "dialogue"): {"data", "annotator_prompts"},
    # The keys have the hash of the function's code, and not the path of its file.
    **{(slot, "function"): {"target"} for slot in ("reward", "labeler", "metric")},
}
"""Settings of components that change no result. All others are part of the keys of what the component computes."""


def another_setting(value: Any) -> Any:
    return not value if isinstance(value, bool) else [value] if value is not None else "another"


@pytest.mark.parametrize("slot", SLOTS)
def test_every_setting_of_every_component_is_part_of_its_key_or_declared_to_have_no_effect(
    slot: Slot, tiny_spec: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context.from_spec(tiny_spec(), manager)
    monkeypatch.setattr(identity, "find_models", lambda config, context: {})  # none of the models exists
    monkeypatch.setattr(identity, "_describe_code", lambda target, context: ["score", "0"])  # nor of the functions
    for component, _ in manager.components(slot):
        settings = REQUIRED.get((slot, component.name), {})
        config = narrow(slot, {"kind": component.name, **settings}, manager)
        before = identity.describe_component(config, context)
        same = {
            name
            for name in type(config).model_fields
            if name != "kind" and describe_changed(config, name, context) == before
        }
        expected = set(type(config).model_fields) - {"kind"} if slot == "tracker" else set()
        assert same == NO_EFFECT.get((slot, component.name), expected), component.name


def describe_changed(config: ComponentConfig, name: str, context: Context) -> Any:
    """Describe a config with another value of a setting, which need not be valid unless it is that of `own_code`."""
    value = "math:floor" if name == "target" else another_setting(getattr(config, name))
    changed = config.model_copy(update={name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the type of the value
        return identity.describe_component(changed, context)


def test_another_judge_samples_and_judges_nothing_again(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    evaluate = tiny_spec().model_dump(mode="json")["evaluate"]
    before = keys_of(tiny_spec(), manager)
    after = keys_of(tiny_spec(evaluate={**evaluate, "judges": {"other": "rouge"}}), manager)
    assert after.keys() - before.keys() == {"evaluation/judges/other/rlaif-vs-sft", "evaluation/labels/other"}
    assert [name for name in before if after[name] != before[name]] == ["evaluation/summary"]


def test_a_metric_of_the_task_is_in_the_keys_of_what_measures_responses_and_labels_nothing_again(
    tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    before = keys_of(tiny_spec(), manager)
    after = keys_of(tiny_spec(task={"kind": "tldr", "metrics": ["words"]}), manager)
    kept = {name for name in before if before[name] == after[name]}
    assert {"sft", "rlaif/pairs", "rlaif/labels", "rlaif/reward"} <= kept
    assert kept.isdisjoint({"rlaif/policy", "evaluation/responses/sft", "evaluation/summary"})


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
    assert before["rlaif/pairs"] == after["rlaif/pairs"]
    assert before["rlaif/labels"] != after["rlaif/labels"]


def test_steps_follow_the_steps_they_depend_on(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    seen: list[Step] = []
    for step in compose(tiny_spec(), Context.from_spec(tiny_spec(), manager)):
        assert all(earlier in seen for earlier in find_steps(step.recipe))
        seen.append(step)


def test_keys_do_not_depend_on_where_files_are(
    tmp_path: Path, tiny_model: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    """A spec with its data and models gives the same keys in another folder."""
    rows = [{"post": f"A post about number {i}.", "summary": f"Number {i}."} for i in range(60)]
    pairs = [{"prompt": row["post"], "chosen": row["summary"], "rejected": "Bad."} for row in rows]
    judge = {"kind": "likelihood", "model": "models/other"}
    content = {
        "task": {"kind": "tldr", "data": "posts.jsonl", "comparisons": "pairs", "annotator_prompts": "own.yaml"},
        "policy": {**tiny_spec().policy.model_dump(mode="json"), "model": "models/tiny"},
        "arms": {
            "a": {
                "feedback": {"kind": "ai", "labeler": {**judge, "model": "models/tiny"}},
                "reward": {"kind": "bradley-terry", "model": "models/other"},
                "algorithm": "reinforce",
            }
        },
        "evaluate": {"judge": judge, "judges": {"more": judge}, "labelers": {"x": judge}, "comparisons": 2},
    }
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "pairs").mkdir(parents=True)
        write_rows(folder / "posts.jsonl", rows)
        write_rows(folder / "pairs/all.jsonl", pairs)
        (folder / "own.yaml").write_text("label: 'Which one?'")
        for model in ("tiny", "other"):
            shutil.copytree(tiny_model, folder / "models" / model)
        (folder / "models/other/chat_template.jinja").write_text("another template")
        (folder / "s.yaml").write_text(yaml.safe_dump(content))
    one, two = (load_spec(tmp_path / name / "s.yaml", manager=manager) for name in ("one", "two"))
    assert one.policy.model != two.policy.model
    assert keys_of(one, manager) == keys_of(two, manager)
    (tmp_path / "two/models/other/chat_template.jinja").write_text("a third template")
    changed = {name for name, key in keys_of(two, manager).items() if key != keys_of(one, manager)[name]}
    assert {"a/reward", "evaluation/labels/judge", "evaluation/labels/more", "evaluation/summary"} <= changed
    assert not changed & {"sft", "a/pairs", "a/labels"}


def test_files_that_settings_name_are_known_by_their_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert identity.hash_contents(tmp_path / "a") == identity.hash_contents(tmp_path / "b")
    assert identity.hash_contents(tmp_path / "a/x") == identity.hash_contents(tmp_path / "b/x")
    (tmp_path / "b/x").write_text("2")
    assert identity.hash_contents(tmp_path / "a") != identity.hash_contents(tmp_path / "b")
    (tmp_path / "b/x").rename(tmp_path / "b/y")
    (tmp_path / "b/y").write_text("1")
    assert identity.hash_contents(tmp_path / "a") != identity.hash_contents(tmp_path / "b")
    assert identity.hash_contents(tmp_path / "gone") == str(tmp_path / "gone")
    (tmp_path / "b" / os.fsdecode(b"\xff")).write_text("1")
    found = identity.hash_contents(tmp_path / "b")
    assert found.startswith("sha256:"), "the name of a file that is not UTF-8"
    assert found == identity.hash_contents(tmp_path / "b") != identity.hash_contents(tmp_path / "a")


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MAX_ENTRIES", 2)
    for name in "ab":
        (tmp_path / name).touch()
    assert identity.hash_contents(tmp_path).startswith("sha256:")
    (tmp_path / "c").touch()
    with pytest.raises(SpecError, match=rf"{tmp_path} has more than 2 files and folders.*; name a file, or a smaller"):
        identity.hash_contents(tmp_path)


@pytest.mark.parametrize("reward", ["length", {"kind": "direct", "labeler": "length"}], ids=["length", "direct"])
def test_how_prompts_are_truncated_is_in_the_key_of_every_score(reward: Any, manager: PluginManager) -> None:
    config = narrow("reward", reward, manager)
    recipe = ScoreComparisonsRecipe(reward=FittedReward(config, None), comparisons=[])  # type: ignore[arg-type]
    assert recipe.unused_policy_settings("m").isdisjoint({"chat", "max_prompt_tokens"})


class OddConfig(Config):
    words: frozenset[str]
    weights: dict[int, float]


def test_sets_are_described_in_one_order_and_names_may_be_numbers() -> None:
    words = [f"word {i}" for i in range(20)]
    config = OddConfig(words=frozenset(words), weights={1: 0.5, 2: 1.0})
    found = identity.describe_settings(config, config.model_dump(mode="json"), {})
    assert found == {"words": sorted(words), "weights": {"1": 0.5, "2": 1.0}}
