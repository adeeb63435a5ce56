"""The JSON Schema that editors check and complete specs with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rlaif_framework import PluginManager, SpecError
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.slots import SLOT_MARK
from rlaif_framework.spec.merging import set_value
from rlaif_framework.spec.schema import spec_schema
from support.fake_plugins import HEAD, Site, labeler_code

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))
BASE: dict[str, Any] = {
    "task": "tldr",
    "policy": {"model": "m"},
    "arms": {
        "a": {
            "feedback": {"kind": "ai", "labeler": "length"},
            "reward": "bradley-terry",
            "algorithm": {"kind": "reinforce", "steps": 3},
        }
    },
    "evaluate": {"judge": {"kind": "similarity", "against": "reference"}, "matchups": [["a", "sft"]]},
}


def validator(manager: PluginManager) -> Draft202012Validator:
    return Draft202012Validator(spec_schema(manager))


def changed(override: str) -> dict[str, Any]:
    data = deepcopy(BASE)
    set_value(data, override)
    return data


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(value)


def test_the_schema_is_a_valid_json_schema_whose_references_all_exist(manager: PluginManager) -> None:
    schema = spec_schema(manager)
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    for node in walk(schema):
        assert SLOT_MARK not in node, "a slot was left without its alternatives"
        target = node.get("$ref")
        assert target is None or (target.startswith("#/$defs/") and target.removeprefix("#/$defs/") in schema["$defs"])
    assert not [key for key in schema["$defs"] if "/" in key], "a '/' in a key breaks the references to it"


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.name)
def test_every_spec_that_comes_with_the_package_is_accepted(path: Path, manager: PluginManager) -> None:
    errors = list(validator(manager).iter_errors(read_mapping(path, "spec", SpecError)))
    assert not errors, [e.message for e in errors]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "task={kind: tldr, data: {train: a.jsonl, test: b.jsonl}, fields: {post: text}}",
        "arms.a.feedback=human",
        "arms.a.feedback={kind: human, labeler: synthetic}",
        "arms.a={reward: test/taste, algorithm: reinforce}",
        "arms.a.feedback=null",
        "sft=null",
        "evaluate=null",
        "evaluate.judge=rouge",
        "evaluate.judge={kind: llm, backend: {kind: transformers, model: m}}",
        "evaluate.judge={kind: llm, backend: {kind: transformers, model: m}, strategy: direct}",
        "evaluate.labelers={x: length, y: {kind: length, prefer: shorter}}",
        "policy.lora={rank: 8, targets: [q_proj]}",
        "policy.lora={}",
    ],
)
def test_what_a_spec_may_say_is_accepted(override: str, manager: PluginManager) -> None:
    errors = list(validator(manager).iter_errors(changed(override)))
    assert not errors, [e.message for e in errors]


@pytest.mark.parametrize(
    "override",
    [
        "polcy={}",
        "task=tlrd",
        "task={kind: tlrd}",
        "task={data: mini}",
        "task.dta=mini",
        "policy.modl=m",
        "policy.dtype=fp16",
        "seed=x",
        "sft.lr=0",
        "arms.a.reward=rouge",
        "arms.a.feedback.labeler=lenght",
        "arms.a.feedback={labeler: length}",
        "arms.a.feedback=humann",
        "evaluate.judge=llm2",
        "evaluate.judge={kind: llm, backend: direct}",
        "evaluate.judge={kind: llm}",
        "evaluate.matchups=[[a]]",
        "evaluate.labelers={x: {kind: length, prefer: tallest}}",
    ],
)
def test_what_a_spec_may_not_say_is_rejected(override: str, manager: PluginManager) -> None:
    assert not validator(manager).is_valid(changed(override))


def test_every_slot_offers_every_installed_component_in_both_forms(manager: PluginManager) -> None:
    definitions = spec_schema(manager)["$defs"]
    for slot in SLOTS:
        short, *choices = definitions[f"slot.{slot}"]["oneOf"]
        assert short["enum"] == manager.names(slot)
        names = [definitions[c["$ref"].removeprefix("#/$defs/")]["properties"]["kind"]["const"] for c in choices]
        assert names == manager.names(slot)


def test_every_setting_is_described(manager: PluginManager) -> None:
    schema = spec_schema(manager)
    for place in (schema, *schema["$defs"].values()):
        for name, setting in place.get("properties", {}).items():
            known = setting.get("description") or setting.get("$ref") or name == "kind"
            assert known or place["title"].startswith("Taste"), f"{place['title']}.{name} has no description"


def test_a_third_party_component_appears_and_is_checked(site: Site) -> None:
    site.install("rlaif-acme", labeler_code("acme/committee"))
    check = validator(PluginManager.load())
    assert "labeler.acme.committee" in check.schema["$defs"]
    assert check.is_valid(changed("evaluate.judge=acme/committee"))
    assert check.is_valid(changed("evaluate.judge={kind: acme/committee, votes: 5}"))
    assert not check.is_valid(changed("evaluate.judge={kind: acme/committee, votes: many}"))
    assert not check.is_valid(changed("evaluate.judge={kind: acme/committee, vote: 5}"))


NESTED = (
    HEAD
    + """
from rlaif_framework import Config

class Settings(Config):
    {field}: int = 1

class XConfig(LabelerConfig):
    kind: Literal["{name}/x"] = "{name}/x"
    inner: Settings = Settings()

@hookimpl
def rlaif_labelers():
    yield Component("{name}/x", XConfig, "a:b")
"""
)


def test_nested_settings_of_one_name_in_two_plugins_are_kept_apart(site: Site) -> None:
    site.install("rlaif-a", NESTED.format(name="a", field="height"))
    site.install("rlaif-b", NESTED.format(name="b", field="width"))
    check = validator(PluginManager.load())
    assert check.is_valid(changed("evaluate.judge={kind: a/x, inner: {height: 2}}"))
    assert check.is_valid(changed("evaluate.judge={kind: b/x, inner: {width: 2}}"))
    assert not check.is_valid(changed("evaluate.judge={kind: a/x, inner: {width: 2}}"))


def test_the_command_prints_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlaif_framework", "schema"], capture_output=True, text=True, check=True
    )
    Draft202012Validator.check_schema(json.loads(done.stdout))
    assert json.loads(done.stdout)["title"] == "rlaif spec"
