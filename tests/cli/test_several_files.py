"""Specs of several files and of packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.outcomes import Outcome, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


def test_files_are_merged_and_changed_in_order(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text("{base: less.yaml, seed: 1, arms: {b: {feedback: human, algorithm: dpo}}}")
    (tmp_path / "less.yaml").write_text("{seed: 2, policy: {dtype: bf16}, arms: {a: {algorithm: {steps: 5}}}}")
    options = ["-f", tmp_path / "more.yaml", "--file", tmp_path / "less.yaml"]
    changes = ["--set", "arms.*.algorithm.lr=1e-4", "--unset", "arms.a.reward", "--set", "arms.a.reward.kind=length"]
    found = rlaif("check", spec(), *options, *changes, "--set", "arms.a.feedback=null", "--unset", "arms.b", "--json")
    assert found.code == 0, found.err
    printed = json.loads(found.out)
    assert (printed["seed"], printed["policy"]["dtype"]) == (2, "bf16")
    algorithm = printed["arms"]["a"]["algorithm"]
    assert (algorithm["steps"], algorithm["lr"]) == (5, 1e-4)
    assert printed["arms"]["a"]["reward"]["kind"] == "length"
    assert list(printed["arms"]) == ["a"]


def test_the_first_file_may_be_an_option(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    found = rlaif("check", "-f", spec())
    assert found.code == 0, found.err
    assert f"# {spec()} is valid" in found.err
    for command in ("run", "plan", "check"):
        refused(rlaif(command), "no spec: give a file")
        refused(rlaif(command, spec(), "-f", "nowhere.yaml"), "no spec file at nowhere.yaml")
        refused(rlaif(command, spec(), "--unset", "arms.x"), "--unset arms.x: the spec has no 'arms.x'")


def test_a_spec_of_a_package_is_planned(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site/rlaif_packed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "small.json").write_bytes(spec().read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = rlaif("plan", "package:rlaif-packed/small.json", "--json")
    assert found.code == 0, found.err
    assert [s["stage"] for s in json.loads(found.out)] == ["sft", "sample", "label", "gate", "reward", "improve"]


def test_the_judge_that_is_chosen_is_printed(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    path = spec("evaluate={prompts: 2}")
    found = rlaif("check", path, "--json")
    assert json.loads(found.out)["evaluate"]["judge"]["kind"] == "rouge"
    assert "evaluate: the judge is rouge, because the spec names none" in found.err
    planned = rlaif("plan", path)
    assert "evaluate: the judge is rouge" in planned.err
    assert "evaluation/wins/a-vs-sft" in planned.out
