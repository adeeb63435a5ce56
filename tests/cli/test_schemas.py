"""The schemas that `rlaif schema` prints accept what runs and the catalogue hold, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from rlaif_framework.cli.schemas import SCHEMAS
from rlaif_framework.metrics.seeds import Measure, Measured
from rlaif_framework.report.family_report import FamilyMember, FamilyReport
from rlaif_registry import read_files
from support.fake_plugins import write_rows
from support.runs import run_rows

ROOT = Path(__file__).parents[2]
RunCommand = Callable[..., tuple[int, str, str]]


def load(name: str, rlaif: RunCommand) -> dict[str, Any]:
    code, out, _ = rlaif("schema", name)
    assert code == 0
    schema: dict[str, Any] = json.loads(out)
    Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_named_and_has_the_version_of_its_form(name: str, rlaif: RunCommand) -> None:
    schema = load(name, rlaif)
    assert (schema["$id"], schema["title"]) == (f"urn:rlaif-framework:0.1:{name}", f"rlaif {name}")
    if name != "spec":  # which has a test beside the specs
        assert json.loads((ROOT / f"specs/schemas/{name}.json").read_text()) == schema, "run: python docs/generate.py"


def test_an_unknown_schema_is_an_error_that_suggests_one(rlaif: RunCommand) -> None:
    code, _, err = rlaif("schema", "preference")
    assert (code, err) == (2, "rlaif: no schema named 'preference'; did you mean 'preferences'?\n")


def find_rows(name: str, run_folder: Path, tmp_path: Path, rlaif: RunCommand) -> list[Any]:
    """Documents of a kind that a run, a command or the catalogue has."""
    if name == "catalogue":
        return list(read_files())
    if name == "comparisons":
        return run_rows(run_folder / "rlaif/pairs/comparisons.jsonl")
    if name == "preferences":
        return run_rows(run_folder / "rlaif/labels/preferences.jsonl")
    if name == "evaluation":
        return [json.loads((run_folder / "evaluation/summary/evaluation.json").read_text())]
    if name == "report":
        return [json.loads((run_folder / "report.json").read_text())]
    if name == "family":
        return [make_family_report().model_dump(mode="json")]
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "long"}])
    labels = tmp_path / "labels.jsonl"
    page = tmp_path / "labels.html"
    assert rlaif("label", pairs, "--labeler", "length", "--out", labels, "--report", page)[0] == 0
    return [json.loads(page.with_suffix(".json").read_text())] if name == "label-report" else run_rows(labels)


def make_family_report() -> FamilyReport:
    members = [
        FamilyMember(
            name=f"{variant},seed={seed}", variant=variant, seed=seed, choices={"seed": str(seed)}, state=state
        )
        for seed, state in enumerate(get_args(FamilyMember.model_fields["state"].annotation))
        for variant in ("a", "b")
    ]
    found = {
        member.name: [
            Measure("win_rate/a-vs-sft", "win rate", True, Measured(0.1 * i, ["p", "q"], [0.0, 0.2 * i])),
            Measure("kl/a", "KL", False, Measured(float(i * i))),
        ]
        for i, member in enumerate(members)
    }
    return FamilyReport.build("family", {"seeds": [0, 1, 2]}, members, found)


BROKEN: dict[str, dict[str, Any]] = {
    "catalogue": {"distribution": 3},
    "comparisons": {"responses": ["one"]},
    "preferences": {"probabilities": "half"},
    "labels": {"probabilities": [1.0]},
    "evaluation": {"prompts": None},
    "report": {"steps": [{"name": "sft"}]},
    "label-report": {"pairs": {"path": "pairs.jsonl"}},
    "family": {"members": [{"name": "seed=0"}]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_schema_accepts_what_there_is_and_not_what_is_broken(
    name: str, run_folder: Path, tmp_path: Path, rlaif: RunCommand
) -> None:
    check, rows = Draft202012Validator(load(name, rlaif)), find_rows(name, run_folder, tmp_path, rlaif)
    assert rows
    for row in rows:
        assert not [error.message for error in check.iter_errors(row)]
        assert not check.is_valid({**row, **BROKEN[name]})
