"""A spec with mistakes: one clear message, exit code 2, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework.files import cache_folder
from rlaif_framework.pipeline.run_folder import default_store
from support.outcomes import Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


def test_a_missing_spec_file_is_named(rlaif: Callable[..., Outcome]) -> None:
    for command in ("run", "plan", "check"):
        refused(rlaif(command, "nowhere.yaml"), "no spec file at nowhere.yaml")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [1, 2", ["spec.yaml is not valid YAML", 'in "spec.yaml", line 1']),
        (
            "task: " + "[" * 5000 + "]" * 5000,
            ["spec.yaml cannot be read: its lists and mappings are nested too deeply"],
        ),
        ("seed: " + "9" * 5000, ["spec.yaml is not valid YAML", "number in line 1 has more than 100 characters"]),
        ("seed: 0x" + "f" * 4000, ["spec.yaml is not valid YAML", "number in line 1 has more than 100 characters"]),
        ("[1, 2]", ["spec.yaml does not hold a mapping"]),
        ("", ["does not hold a mapping"]),
        ("{task: tldr, polcy: {model: m}}", ["polcy: unknown key; did you mean 'policy'?", "policy: Field required"]),
        ("{task: tlrd, policy: {model: m}}", ["task: no task named 'tlrd'; did you mean 'tldr'?"]),
        ("{task: tldr, policy: {model: m}, arms: {a: {algorithm: 3}}}", ["expected the name of an algorithm or a map"]),
        ("{task: tldr, policy: {model: 3}}", ["policy.model: Input should be a valid string"]),
        ("{task: tldr, policy: m}", ["policy: expected a mapping of settings, got str"]),
        ("{task: tldr, policy: {model: m}, requires: [rlaif-gone]}", ["pip install 'rlaif-gone'"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_a_spec_that_is_not_valid_says_all_that_is_wrong(
    rlaif: Callable[..., Outcome], tmp_path: Path, command: str, text: str, parts: list[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    refused(rlaif(command, tmp_path / "spec.yaml"), *parts)
    assert files(Path()) == set()


def test_a_json_spec_out_of_bounds_is_told(rlaif: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"task": ' + "[" * 200_000 + "]" * 200_000 + "}")
    refused(rlaif("check", path), f"{path} cannot be read: its lists and mappings are nested too deeply")
    path.write_text('{"seed": ' + "9" * 5000 + "}")
    refused(rlaif("check", path), f"{path} is not valid JSON", "limit (4300 digits)")


def test_a_bad_set_is_named(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    refused(rlaif("check", spec(), "--set", "seed"), "--set seed: expected path=value")
    refused(rlaif("check", spec(), "--set", "sede=3"), "sede: unknown key; did you mean 'seed'?")
    refused(rlaif("check", spec(), "--set", "seed=x"), "seed: Input should be a valid integer")
    refused(rlaif("check", spec(), "--set", "seed=0x" + "f" * 400), "--set seed", "has more than 100 characters")
    refused(rlaif("check", spec(), "--set", "seed=!!int ''"), "--set seed", "a value does not fit its tag")
    refused(rlaif("check", spec(), "--set", "seed=[1"), "--set seed=[1: the value is not valid YAML", 'in "--set"')
    refused(rlaif("check", spec(), "--set", "seed=" + "[" * 3000), "--set seed: the value is nested too deeply")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("~nobody-has-this/x.py", "the home folder of '~nobody-has-this' is unknown"),
        ("a\0.py", "cannot be the name of a file"),
        ("\ud800.py", "cannot be the name of a file"),
    ],
)
def test_code_with_a_name_that_no_file_can_have_is_an_error(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, name: str, reason: str
) -> None:
    for data in ({"plugins": [name]}, {"arms": {"a": {"reward": {"kind": "function", "target": f"{name}:score"}}}}):
        (tmp_path / "code.json").write_text(json.dumps({"base": str(spec()), **data}))
        refused(rlaif("check", tmp_path / "code.json"), reason)


def test_paths_of_options_and_variables_may_begin_with_a_home_folder(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RLAIF_STORE", "~/store")
    monkeypatch.setenv("RLAIF_CACHE", "~/cache")
    assert default_store() == tmp_path / "home/store"
    assert cache_folder() == tmp_path / "home/cache"
    assert rlaif("new-plugin", "acme", "--kind", "labeler", "--out=~/plugin").code == 0
    assert (tmp_path / "home/plugin").is_dir()
    unknown = "the home folder of '~nobody-has-this' is unknown; write the path of the folder"
    for options in (["--out", "~nobody-has-this/x"], ["--store", "~nobody-has-this/x"]):
        refused(rlaif("run", spec(), *options), unknown)
    refused(rlaif("check", spec(), "--plugin", "~nobody-has-this/x.py"), unknown)
    monkeypatch.setenv("RLAIF_STORE", "~nobody-has-this/x")
    refused(rlaif("plan", spec()), unknown)
    assert not [path for path in files(Path()) if str(path).startswith("~")]


def test_check_prints_the_resolved_spec_and_nothing_else_to_standard_output(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    found = rlaif("check", spec(), "--set", "seed=3", "--json")
    assert found.code == 0
    resolved = json.loads(found.out)
    assert resolved["seed"] == 3
    assert resolved["arms"]["a"]["feedback"]["labeler"] == {"kind": "length", "prefer": "longer"}
