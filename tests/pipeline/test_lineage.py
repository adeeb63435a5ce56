"""The lineage of an artefact is that of the steps of its run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlaif_framework import Context, DataError, PluginManager, Spec
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.lineage import Lineage, trace_artefact
from rlaif_framework.pipeline.steps import Step, find_steps

RunCommand = Callable[..., tuple[int, str, str]]


def list_keys(artefact: Lineage) -> Iterator[tuple[str, str]]:
    """The artefact and its inputs at any depth, each with what it was made for."""
    for inner in artefact.inputs:
        yield artefact.key, inner.key
        yield from list_keys(inner)


def list_step_keys(step: Step) -> Iterator[tuple[str, str]]:
    for inner in find_steps(step.recipe):
        yield step.key, inner.key
        yield from list_step_keys(inner)


@pytest.fixture
def steps(tiny_spec: Callable[..., Spec], manager: PluginManager, run_folder: Path) -> list[Step]:
    spec = tiny_spec()
    return compose(spec, Context.from_spec(spec, manager))


def test_the_tree_is_that_of_the_recipes(run_folder: Path, steps: list[Step]) -> None:
    for step in steps:
        found = trace_artefact(run_folder / step.name)
        assert (found.key, found.stage, found.name) == (step.key, step.stage, step.name)
        assert set(list_keys(found)) == set(list_step_keys(step))
        manifest = json.loads((run_folder / step.name / "artefact.json").read_text())
        assert (found.seconds, found.peak_memory_bytes) == (manifest["seconds"], manifest["peak_memory_bytes"])
        assert found.environment == manifest["environment"]


def test_it_is_the_same_in_the_store(run_folder: Path, steps: list[Step]) -> None:
    store = run_folder.parent / "run-store"
    for step in steps:
        here, there = trace_artefact(run_folder / step.name), trace_artefact(store / f"{step.stage}-{step.key[:20]}")
        assert list(list_keys(here)) == list(list_keys(there))
        assert here.settings == there.settings
        assert there.path == store / f"{step.stage}-{step.key[:20]}"


def test_settings_are_those_of_the_stage_without_its_inputs(run_folder: Path) -> None:
    found = trace_artefact(run_folder / "rlaif" / "policy")
    assert found.settings["algorithm"]["config"]["steps"] == 3
    assert found.settings["policy"]["max_new_tokens"] == 12
    assert "initial" not in found.settings
    assert [inner.role for inner in found.inputs] == ["initial", "reward.step"]


def test_an_input_that_is_gone_is_named(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    shutil.rmtree(folder / "sft")
    (initial, _) = trace_artefact(folder / "rlaif" / "policy").inputs
    assert (initial.path, initial.stage, initial.repeated) == (None, "sft", False)


def test_a_file_belongs_to_the_artefact_that_has_it(run_folder: Path, rlaif: RunCommand) -> None:
    whole = rlaif("lineage", run_folder / "rlaif/policy", "--json")
    assert whole[0] == 0
    assert rlaif("lineage", run_folder / "rlaif/policy/config.json", "--json") == whole
    code, out, _ = rlaif("lineage", run_folder / "rlaif/policy")
    lines = out.splitlines()
    assert (code, lines[1].split()[:2], lines[2].split()[:3]) == (
        0,
        ["rlaif/policy", "improve"],
        ["initial:", "sft", "sft"],
    )
    assert "see above" in out
    assert "steps: 3" in out


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"stage": "x", "key": "y", "recipe": 3, "seconds": "long"}',
        '{"stage": "x", "key": "y", "recipe": ' + '{"a":' * 700 + "1" + "}" * 700 + "}",
    ],
    ids=["list", "empty", "types", "deep"],
)
def test_damaged_manifests_are_errors(tmp_path: Path, content: str) -> None:
    (tmp_path / "artefact.json").write_text(content)
    with pytest.raises(DataError, match=r"is damaged|was not written by a run"):
        trace_artefact(tmp_path)


def test_a_path_that_is_no_artefact_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"name an artefact in it, such as rlaif/policy"):
        trace_artefact(run_folder)
    with pytest.raises(DataError, match="belongs to no artefact"):
        trace_artefact(tmp_path / "nowhere")
