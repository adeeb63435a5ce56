"""A report that is built again from the artefacts is the report that the run has written."""

from __future__ import annotations

import io
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlaif_framework import DataError, Panel, PluginManager, Store, hookimpl, load_family, run_family
from rlaif_framework.files import locked
from rlaif_framework.pipeline.reporting import rebuild_report
from rlaif_framework.pipeline.run_record import RunRecord
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.progress import Progress

DELETE = "to write it again, delete it first"
RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def test_it_is_equal_to_the_first_one(copy: Path, run_folder: Path, rlaif: RunCommand) -> None:
    remove(copy, "report.json", "report.html")
    code, out, err = rlaif("report", copy)
    assert (code, err, out) == (0, "", f"{(copy / 'report.html').resolve()}\n")
    for name in ("report.json", "report.html"):
        assert (copy / name).read_text() == (run_folder / name).read_text()
    (copy / "sft/README.md").write_text("mine")
    code, out, err = rlaif("report", copy)
    assert (code, " ".join(err.split())) == (0, f"kept {copy}/sft/README.md, which has been edited; {DELETE}")
    assert (copy / "sft/README.md").read_text() == "mine"


def test_a_run_that_another_process_writes_keeps_its_report(copy: Path, rlaif: RunCommand) -> None:
    remove(copy, "report.html")
    with locked(copy, "the test writes it"):
        code, _, err = rlaif("report", copy)
    assert (code, "the test writes it; wait until it has finished" in err) == (2, True)
    assert not (copy / "report.html").exists()


def test_the_data_the_models_and_the_plugins_of_the_run_are_not_needed(copy: Path, run_folder: Path) -> None:
    spec = copy / "spec.yaml"
    text = spec.read_text()
    spec.unlink()
    spec.write_text(text.replace("kind: test/taste", "kind: gone/labeler"))
    rebuild_report(copy, PluginManager(), Progress())
    report, first = (json.loads((folder / "report.json").read_text()) for folder in (copy, run_folder))
    assert report.pop("spec") != first.pop("spec")
    assert report == first


def test_plugins_add_their_panels_to_it(copy: Path, manager: PluginManager) -> None:
    def rlaif_report_panels(run: Any) -> list[Panel]:
        steps = {step.name: step for step in run.steps}
        rows = (run.artefact(steps["rlaif/labels"]) / "preferences.jsonl").read_text().count("\n")
        return [Panel("Notes", f"{rows} labels, {steps['sft'].stage}")]

    module = types.ModuleType("rlaif_notes")
    module.rlaif_report_panels = hookimpl(rlaif_report_panels)  # type: ignore[attr-defined]
    manager.add(Plugin("notes", "rlaif-notes", "1.0", module=module))
    rebuild_report(copy, manager, Progress())
    (panel,) = json.loads((copy / "report.json").read_text())["panels"]
    labels = (copy / "rlaif/labels/preferences.jsonl").read_text().count("\n")
    assert panel["text"] == f"{labels} labels, sft"


def test_a_run_that_is_not_finished_has_no_report(copy: Path, rlaif: RunCommand, tmp_path: Path) -> None:
    shutil.rmtree(copy / "evaluation" / "responses" / "sft")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is not finished: evaluation/responses/sft is missing, so it has no report"):
        rebuild_report(copy, PluginManager(), Progress())
    code, out, err = rlaif("report", tmp_path / "empty")
    assert (code, out, "is not the folder of a run" in err) == (2, "", True)


@pytest.fixture
def family(tmp_path: Path, tiny_model: Path, manager: PluginManager) -> Path:
    """The folder of a family that has run."""
    path = tmp_path / "family.yaml"
    path.write_text(
        f"name: f\nseeds: [0, 1]\ntask: tldr\nsft: null\ntrackers: []\n"
        f"policy: {{model: {tiny_model}, dtype: fp32, max_prompt_tokens: 96, max_new_tokens: 6}}\n"
        "arms: {a: {feedback: {kind: ai, labeler: synthetic, pairs: {limit: 8}}}}\n"
        "evaluate: {comparisons: 6}\n"
    )
    loaded: Any = load_family(path, manager=manager)
    run_family(loaded, tmp_path / "f", Store(tmp_path / "store"), manager)
    return tmp_path / "f"


def test_the_report_of_a_family_is_built_from_those_of_its_members(family: Path, rlaif: RunCommand) -> None:
    first = {name: (family / name).read_text() for name in ("family.json", "family.html", "seed=0/report.json")}
    found = json.loads(first["family.json"])
    assert found["measures"]
    for member in found["members"]:
        member["measures"] = {"agreement/a": 0.123}
    (family / "family.json").write_text(json.dumps({**found, "measures": [], "notes": []}))
    remove(family, "family.html", "seed=0/report.json")
    code, out, err = rlaif("report", family)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str((family / "family.html").resolve())
    assert len(out.splitlines()) == 3
    assert {name: (family / name).read_text() for name in first} == first
    shutil.rmtree(family / "seed=1")
    code, out, err = rlaif("report", family)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "left out: member 'seed=1' has not run" in err


def test_numbers_that_cannot_be_read_again_stay_in_the_report_of_a_family(
    family: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch, rlaif: RunCommand
) -> None:
    first = json.loads((family / "family.json").read_text())
    with monkeypatch.context() as patched:
        patched.setattr("rlaif_framework.pipeline.reporting._measure", refuse)
        notes = io.StringIO()
        rebuild_report(family, manager, Progress(Console(file=notes, width=1000)))
    assert "left out: another version" in notes.getvalue()
    assert "the tables of" in notes.getvalue()
    assert json.loads((family / "family.json").read_text()) == first
    failed = {**first["members"][1], "state": "failed", "error": "no memory", "measures": {}}
    with_failed = json.dumps({**first, "members": [first["members"][0], failed]})
    (family / "family.json").write_text(with_failed)
    assert rlaif("report", family)[0] == 0
    assert json.loads((family / "family.json").read_text()) == first  # the member has been run again on its own
    # Its folder is of an earlier version of the spec, whose numbers do not belong into the tables.
    keys = list(RunRecord.read(family / "seed=0").steps.values())
    (family / "steps.json").write_text(json.dumps({"keys": keys}))
    (family / "family.json").write_text(with_failed)
    code, out, err = rlaif("report", family)
    assert (code, "left out: member 'seed=1' failed" in err) == (0, True)
    (measure, *_) = json.loads((family / "family.json").read_text())["measures"]
    assert list(measure["variants"][0]["mean"]["seeds"]) == ["0"]
    runs = json.loads(rlaif("runs", family.parent, "--json")[1])["families"][0]["members"]
    assert [(run["state"], run["error"]) for run in runs] == [("finished", None), ("failed", "no memory")]
    (family / "family.json").write_text("{}")
    code, out, err = rlaif("report", family)
    assert (code, out, "family.json is damaged" in err) == (2, "", True)


def refuse(*_: object) -> None:
    raise DataError("another version")
