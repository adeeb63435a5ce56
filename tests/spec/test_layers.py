"""Specs on top of specs: `base:`, several files, and files of installed packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_framework import PluginManager, Spec, SpecError, load_spec
from rlaif_framework.spec.layers import MAX_BASES, find_spec_file, read_layers

BASE: dict[str, Any] = {
    "name": "base",
    "task": "tldr",
    "policy": {"model": "some/model", "lora": {"rank": 4, "alpha": 8}},
    "arms": {
        "rlaif": {
            "feedback": {"kind": "ai", "labeler": {"kind": "similarity", "scale": 0.1}},
            "reward": {"kind": "bradley-terry", "lr": 1e-3},
            "algorithm": {"kind": "reinforce", "steps": 3},
        },
        "rlhf": {"feedback": "human", "reward": "bradley-terry", "algorithm": "rloo"},
    },
    "evaluate": {"judge": "rouge", "matchups": [["rlaif", "sft"], ["rlaif", "reference"]]},
}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def merged(folder: Path, *tops: str) -> dict[str, Any]:
    """The settings of a base with YAML texts on top, as plain values."""
    files = [write(folder / "base.yaml", BASE), *(write(folder / f"{i}.yaml", top) for i, top in enumerate(tops))]
    data: dict[str, Any] = json.loads(json.dumps(read_layers(files).data))
    return data


# How values are merged


def test_mappings_are_merged_deeply_and_all_else_is_replaced(tmp_path: Path) -> None:
    found = merged(tmp_path, "{policy: {lora: {rank: 8}}, evaluate: {matchups: [[rlhf, sft]]}, seed: 3}")
    expected = json.loads(json.dumps(BASE))
    expected["policy"]["lora"]["rank"] = 8
    expected["evaluate"]["matchups"] = [["rlhf", "sft"]]
    assert found == {**expected, "seed": 3}


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ("{kind: length, prefer: shorter}", {"kind": "length", "prefer": "shorter"}),
        ("length", {"kind": "length"}),
        ("similarity", {"kind": "similarity", "scale": 0.1}),
        ("{kind: similarity, copy_penalty: 0.4}", {"kind": "similarity", "scale": 0.1, "copy_penalty": 0.4}),
        ("{scale: 0.2}", {"kind": "similarity", "scale": 0.2}),
    ],
    ids=["another-kind", "another-name", "same-name", "same-kind", "settings-only"],
)
def test_a_component_of_another_kind_is_replaced_as_a_whole(tmp_path: Path, top: str, expected: Any) -> None:
    found = merged(tmp_path, f"arms: {{rlaif: {{feedback: {{labeler: {top}}}}}}}")
    assert found["arms"]["rlaif"]["feedback"]["labeler"] == expected


def test_settings_on_top_of_shorthand_expand_it(tmp_path: Path) -> None:
    found = merged(tmp_path, "{arms: {rlhf: {algorithm: {steps: 9}}}, evaluate: {judge: {metric: rouge1}}}")
    assert found["arms"]["rlhf"]["algorithm"] == {"kind": "rloo", "steps": 9}
    assert found["evaluate"]["judge"] == {"kind": "rouge", "metric": "rouge1"}


def test_a_name_that_is_no_component_is_not_expanded(tmp_path: Path) -> None:
    found = merged(tmp_path, "task: {data: mini}", "task: {data: {train: a.jsonl}}")
    assert found["task"] == {"kind": "tldr", "data": {"train": "a.jsonl"}}


def test_null_removes_an_arm(tmp_path: Path, manager: PluginManager) -> None:
    base = write(tmp_path / "base.yaml", BASE)
    top = write(tmp_path / "top.yaml", "{base: base.yaml, arms: {rlhf: null}}")
    assert list(load_spec(top, manager=manager).arms) == ["rlaif"]
    assert list(load_spec(base, ["arms.rlhf=null"], manager).arms) == ["rlaif"]


def test_null_removes_a_judge_or_a_labeler(tmp_path: Path, manager: PluginManager) -> None:
    evaluation = {**BASE["evaluate"], "judges": {"a": "rouge", "b": "length"}, "labelers": {"c": "length"}}
    write(tmp_path / "base.yaml", {**BASE, "evaluate": evaluation})
    top = write(tmp_path / "top.yaml", "{base: base.yaml, evaluate: {judges: {a: null}, labelers: {c: null}}}")
    evaluate = load_spec(top, manager=manager).evaluate
    assert evaluate is not None
    assert (list(evaluate.judges), evaluate.labelers) == (["b"], {})


# Bases


def test_a_spec_on_top_of_others_is_the_spec_with_all_settings(tmp_path: Path, manager: PluginManager) -> None:
    write(tmp_path / "base.yaml", BASE)
    write(tmp_path / "sub/middle.json", json.dumps({"base": "../base.yaml", "seed": 1, "policy": {"dtype": "fp32"}}))
    top = write(tmp_path / "top.toml", 'base = "sub/middle.json"\nname = "top"\n[policy]\ndtype = "bf16"\n')
    spec = load_spec(top, manager=manager)
    assert (spec.name, spec.seed, spec.policy.dtype) == ("top", 1, "bf16")
    assert spec.arms == load_spec(tmp_path / "base.yaml", manager=manager).arms
    assert load_spec(top, ["policy.dtype=auto"], manager).policy.dtype == "auto"


def test_files_are_merged_in_order_each_with_its_base(tmp_path: Path, manager: PluginManager) -> None:
    write(tmp_path / "base.yaml", BASE)
    write(tmp_path / "small.yaml", "{seed: 1, policy: {max_new_tokens: 8}}")
    files = [
        write(tmp_path / "one.yaml", "{base: base.yaml, seed: 2}"),
        write(tmp_path / "two.yaml", "{base: small.yaml, policy: {dtype: fp32}}"),
    ]
    spec = load_spec(files, manager=manager)
    assert (spec.seed, spec.policy.max_new_tokens, spec.policy.dtype) == (1, 8, "fp32")
    assert load_spec(files[::-1], manager=manager).seed == 2


def test_a_spec_without_a_name_is_named_after_the_first_file(tmp_path: Path, manager: PluginManager) -> None:
    nameless = {key: value for key, value in BASE.items() if key != "name"}
    files = [write(tmp_path / "first.yaml", nameless), write(tmp_path / "second.yaml", "seed: 1")]
    assert load_spec(files, manager=manager).name == "first"


def fail(*paths: Path) -> str:
    with pytest.raises(SpecError) as raised:
        load_spec(list(paths))
    return str(raised.value)


def test_a_cycle_names_its_files(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "base: sub/two.yaml")
    two = write(tmp_path / "sub/two.yaml", "base: ../one.yaml")
    assert fail(one) == f"a spec cannot be based on itself: {one} -> {two} -> {two.parent / '../one.yaml'}"
    assert "a spec cannot be based on itself" in fail(write(tmp_path / "own.yaml", "base: own.yaml"))


def test_a_missing_base_names_who_asks_for_it(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "base: two.yaml")
    two = write(tmp_path / "two.yaml", "base: three.yaml")
    message = fail(one)
    assert message.startswith(f"no spec file at {tmp_path / 'three.yaml'}")
    assert message.endswith(f"it is the base in {one} -> {two}")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("[a.yaml]", "base: expected the path of a spec, got list"),
        ("''", "base: expected the path of a spec"),
        ("3", "got int"),
        ("~nobody-here/a.yaml", "base: "),
        ("package:not_there/a.yaml", "the package 'not_there' is not installed"),
        ("data.txt", "unknown file type '.txt'"),
    ],
)
def test_a_base_that_is_no_spec_is_an_error(tmp_path: Path, base: str, expected: str) -> None:
    write(tmp_path / "data.txt", "seed: 1")
    path = write(tmp_path / "top.yaml", f"base: {base}")
    assert expected in fail(path)
    assert str(path) in fail(path)


def test_the_number_of_bases_is_limited(tmp_path: Path) -> None:
    write(tmp_path / "0.yaml", BASE)
    for i in range(1, MAX_BASES + 2):
        write(tmp_path / f"{i}.yaml", f"base: {i - 1}.yaml")
    assert load_spec(tmp_path / f"{MAX_BASES}.yaml").name == "base"
    assert f"more than {MAX_BASES} specs" in fail(tmp_path / f"{MAX_BASES + 1}.yaml")


def test_the_bounds_of_files_hold_for_bases(tmp_path: Path) -> None:
    aliases = "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    )
    write(tmp_path / "base.yaml", aliases)
    assert "values when all aliases are written out" in fail(write(tmp_path / "top.yaml", "base: base.yaml"))


# Packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with specs, whose import is an error."""
    folder = tmp_path / "site/rlaif_boxed"
    write(folder / "__init__.py", "raise RuntimeError('the package is imported')")
    write(folder / "specs/base.yaml", BASE)
    write(folder / "specs/small.yaml", "{base: base.yaml, seed: 5}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


@pytest.mark.parametrize("name", ["rlaif_boxed", "rlaif-boxed"])
def test_a_spec_of_a_package_is_read_without_importing_it(
    name: str, package: Path, tmp_path: Path, manager: PluginManager
) -> None:
    assert load_spec(f"package:{name}/specs/small.yaml", manager=manager).seed == 5
    top = write(tmp_path / "top.yaml", f"{{base: 'package:{name}/specs/small.yaml', policy: {{dtype: fp32}}}}")
    spec: Spec = load_spec(top, manager=manager)
    assert (spec.seed, spec.policy.dtype) == (5, "fp32")
    assert "rlaif_boxed" not in sys.modules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("package:rlaif_boxed/specs/big.yaml", "has no file specs/big.yaml; it has specs/base.yaml, specs/small.yaml"),
        ("package:rlaif_boxed/../secret.yaml", "expected package:NAME/path/of/spec.yaml"),
        ("package:rlaif_boxed//etc/spec.yaml", "expected package:NAME/path/of/spec.yaml"),
        ("package:rlaif_boxed", "expected package:NAME/path/of/spec.yaml"),
        ("package:os.path/x.yaml", "expected package:NAME/path/of/spec.yaml"),
        ("package:/x.yaml", "expected package:NAME/path/of/spec.yaml"),
        ("package:__main__/x.yaml", "is not installed"),
        ("package:json_/x.yaml", "the package 'json_' is not installed"),
    ],
)
def test_a_package_without_the_spec_is_an_error(name: str, expected: str, package: Path) -> None:
    with pytest.raises(SpecError) as raised:
        find_spec_file(name)
    assert expected in str(raised.value)


@pytest.mark.parametrize("name", [r"\uD800", r"a\0b"])
def test_a_base_with_an_impossible_name_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f'base: "{name}"\n')
    with pytest.raises(SpecError, match="cannot be the name of a file"):
        load_spec(path)
