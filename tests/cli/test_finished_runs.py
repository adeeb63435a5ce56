"""The commands `runs` and `compare` on finished, unfinished, damaged and foreign folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import rlaif_framework
from rlaif_framework import DataError, PluginManager, RlaifError, Spec, SpecError
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.records import read_rows
from support.runs import execute

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def other_run(shared: Path, run_folder: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> Path:
    """The run of `run_folder` with another learning rate, on the same baseline."""
    folder = shared / "other-run"
    with FileLock(shared / "other-run.lock"):
        if not (folder / "report.html").exists():
            arms = tiny_spec().model_dump(mode="json")["arms"]
            arms["rlaif"]["algorithm"]["lr"] = 5e-2
            execute(tiny_spec(arms=arms), folder, manager, store=shared / "run-store")
    return folder


@pytest.fixture
def folders(tmp_path: Path, run_folder: Path) -> Path:
    """A folder with a copy of a finished run."""
    folder = tmp_path / "runs"
    shutil.copytree(run_folder, folder / "done")
    return folder


def test_runs_lists_states_times_and_win_rates(folders: Path, run_folder: Path, rlaif: RunCommand) -> None:
    for name in ("stopped", "broken"):
        shutil.copytree(run_folder, folders / name)
    shutil.rmtree(folders / "stopped" / "rlaif" / "policy")
    status = json.loads((folders / "broken" / "status.json").read_text())
    (folders / "broken" / "status.json").write_text(json.dumps({**status, "error": "rlaif/policy: no memory"}))
    shutil.rmtree(folders / "broken" / "rlaif" / "policy")
    code, out, err = rlaif("runs", folders, "--json")
    assert code == 0, err
    found = {run["name"]: run for run in json.loads(out)["runs"]}
    assert {name: (run["state"], run["stage"], run["error"]) for name, run in found.items()} == {
        "done": ("finished", None, None),
        "stopped": ("interrupted", "rlaif/policy", None),
        "broken": ("failed", "rlaif/policy", "rlaif/policy: no memory"),
    }
    win = Evaluation.load(run_folder / "evaluation" / "summary").wins[0]
    assert win.rate is not None
    assert found["done"]["win_rates"]["rlaif"]["value"] == win.rate.value
    steps = json.loads((run_folder / "report.json").read_text())["steps"]
    assert found["done"]["seconds"] == pytest.approx(sum(step["seconds"] for step in steps))
    table = rlaif("runs", folders)[1]
    summary = folders / "stopped/evaluation/summary/evaluation.json"
    evaluation = json.loads(summary.read_text())
    judges = {"mine": evaluation["judges"]["judge"]}
    labelers = {("mine" if name == "judge" else name): x for name, x in evaluation["labelers"].items()}
    wins = [{**x, "judge": "mine"} for x in evaluation["wins"]]
    summary.write_text(json.dumps({**evaluation, "judges": judges, "labelers": labelers, "wins": wins}))
    (named,) = (run for run in json.loads(rlaif("runs", folders, "--json")[1])["runs"] if run["name"] == "stopped")
    assert named["win_rates"] == found["stopped"]["win_rates"], "a judge with a name is not read"
    assert f"rlaif: {100 * win.rate.value:.1f} %" in table
    assert "failed at rlaif/policy" in table


def test_a_run_that_another_process_writes_is_running(folders: Path, rlaif: RunCommand) -> None:
    shutil.rmtree(folders / "done" / "evaluation" / "summary")
    with FileLock(folders / ".done.lock"):
        assert json.loads(rlaif("runs", folders, "--json")[1])["runs"][0]["state"] == "running"
    assert json.loads(rlaif("runs", folders, "--json")[1])["runs"][0]["state"] == "interrupted"


def test_damaged_and_foreign_folders_are_named_and_do_not_stop_the_list(folders: Path, rlaif: RunCommand) -> None:
    (folders / "notes").mkdir()
    (folders / "cut").mkdir()
    (folders / "cut" / "run.json").write_text('{"steps": {"sf')
    (folders / "elsewhere").mkdir()
    (folders / "elsewhere" / "run.json").write_text('{"steps": {"../../etc": "x"}}')
    summary = folders / "done" / "evaluation" / "summary" / "evaluation.json"
    summary.unlink()
    summary.write_text('{"wins": "\\u001b[31m"}')
    code, out, err = rlaif("runs", folders)
    assert (code, len(err.splitlines())) == (0, 4)
    assert f"not read: {folders / 'notes'} is not the folder of a run" in err
    assert "cut/run.json is damaged" in err
    assert "elsewhere/run.json is damaged: steps: ../../etc: " in err
    assert f"{summary} is damaged" in err
    assert [line.split()[0] for line in out.splitlines()] == ["run", "done"]
    code, _, err = rlaif("runs", folders / "nowhere")
    assert (code, "no folder of runs at" in err) == (2, True)


def drop(evaluation: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    """Return an evaluation without a part of it that others name."""
    return {**evaluation, part: {key: value for key, value in evaluation[part].items() if key != name}}


def test_an_evaluation_whose_parts_do_not_fit_together_has_no_report(folders: Path, rlaif: RunCommand) -> None:
    summary = folders / "done" / "evaluation" / "summary" / "evaluation.json"
    evaluation = json.loads(summary.read_text())
    arm = drop({**evaluation, "wins": [], "differences": []}, "policies", "rlaif")
    summary.unlink()
    for damaged, reason in (
        (drop(evaluation, "labelers", "judge"), "labelers: 'judge' is missing"),
        (drop(evaluation, "arms", "rlaif"), "arms: 'rlaif' is missing"),
        (drop(evaluation, "policies", "sft"), "policies: 'sft' is missing"),
        (drop(arm, "arms", "rlaif"), "its arms are not those of spec.yaml"),
    ):
        summary.write_text(json.dumps(damaged))
        code, _, err = rlaif("report", folders / "done")
        advice = "rerun the spec in the same folder to write it again"
        assert (code, err) == (2, f"rlaif: {summary} is damaged: {reason}; {advice}\n")


def test_a_spec_without_what_reports_show_is_named(folders: Path, rlaif: RunCommand) -> None:
    path = folders / "done" / "spec.yaml"
    spec = yaml.safe_load(path.read_text())
    feedback = spec["arms"]["rlaif"]["feedback"]
    for damaged, place in (
        ({key: value for key, value in spec.items() if key != "policy"}, "policy"),
        ({**spec, "task": "tldr"}, "task"),
        ({**spec, "arms": {"rlaif": {"feedback": {**feedback, "pairs": None}}}}, "arms: rlaif: feedback: pairs"),
    ):
        path.write_text(yaml.safe_dump(damaged))
        code, _, err = rlaif("report", folders / "done")
        assert (code, err.startswith(f"rlaif: {path} is damaged: {place}: "), err.count("\n")) == (2, True, 1), err


def test_a_failed_run_is_listed_with_its_error(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, rlaif: RunCommand
) -> None:
    arms = tiny_spec().model_dump(mode="json")["arms"]
    shorter = {"kind": "length", "prefer": "shorter"}
    arms["rlaif"]["feedback"] |= {"labeler": shorter, "allow_weak_labels": False, "pairs": {"limit": 24}}
    with pytest.raises(RlaifError):
        execute(tiny_spec(arms=arms, sft=None), tmp_path / "runs" / "bad", manager)
    (run,) = json.loads(rlaif("runs", tmp_path / "runs" / "bad", "--json")[1])["runs"]
    assert (run["state"], run["stage"], run["win_rates"]) == ("failed", "rlaif/gate", {})
    assert run["error"].startswith("rlaif/gate: ")


def test_members_of_families_are_listed(folders: Path, run_folder: Path, rlaif: RunCommand) -> None:
    family = folders / "lrs"
    shutil.copytree(run_folder, family / "lr=1,seed=0")
    members: list[dict[str, Any]] = [
        {"name": name, "variant": "lr=1", "seed": seed, "choices": {}, "state": state, "error": error}
        for name, seed, state, error in (
            ("lr=1,seed=0", 0, "finished", None),
            ("lr=1,seed=1", 1, "not finished", None),
            ("lr=1,seed=2", 2, "failed", "no labels"),
        )
    ]
    (family / "family.json").write_text(json.dumps({"name": "lrs", "spec": {}, "members": members}))
    found = json.loads(rlaif("runs", folders, "--json")[1])["families"][0]
    assert [(run["name"], run["state"], run["error"]) for run in found["members"]] == [
        ("lrs/lr=1,seed=0", "finished", None),
        ("lrs/lr=1,seed=1", "not started", None),
        ("lrs/lr=1,seed=2", "failed", "no labels"),
    ]
    assert rlaif("runs", folders)[1].splitlines()[-1].split()[0] == "lrs/lr=1,seed=2"
    code, _, err = rlaif("compare", family, folders / "done")
    assert (code, "is the folder of a family; name the folder of one of its members" in err) == (2, True)


def test_compare_equals_the_verdicts_in_the_artefacts(run_folder: Path, other_run: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("compare", run_folder, other_run, "--json")
    assert code == 0, err
    (arm,) = json.loads(out)["arms"]
    (pair,) = arm["pairs"]
    scores = []
    for folder in (run_folder, other_run):
        rows = read_rows(folder / "evaluation/wins/rlaif-vs-sft/preferences.jsonl")
        first = {row["comparison"]: row["probabilities"][0] for _, row in rows}
        scores.append({key: 0.5 if p == 0.5 else float(p > 0.5) for key, p in first.items()})
    assert (pair["shared"], pair["only_first"], pair["only_second"]) == (6, 0, 0)
    assert {flip["id"]: flip["scores"] for flip in pair["flips"]} == {
        key: [scores[0][key], scores[1][key]] for key in scores[0] if scores[0][key] != scores[1][key]
    }
    assert pair["flips"], "the learning rate changes verdicts, or the test shows nothing"
    for flip in pair["flips"]:
        rows = read_rows(other_run / "evaluation/responses/rlaif/responses.jsonl")
        assert flip["responses"][1] == next(row["response"] for _, row in rows if row["prompt"] == flip["id"])
        assert flip["prompt"].endswith("TL;DR:")
    assert arm["settings"] == [{"path": "arms.rlaif.algorithm.lr", "values": [1e-3, 5e-2]}]
    rates = [Evaluation.load(f / "evaluation/summary").wins[0].rate for f in (run_folder, other_run)]
    assert arm["metrics"][0]["name"] == "win rate"
    assert [value["value"] for value in arm["metrics"][0]["values"]] == [rate.value for rate in rates if rate]
    assert pair["difference"] == pytest.approx(rates[1].value - rates[0].value)  # type: ignore[union-attr]


def test_compare_prints_flips_before_settings_and_metrics(run_folder: Path, other_run: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("compare", run_folder, f"{other_run}:rlaif", "--flips", 1)
    assert code == 0, err
    parts = [out.index(text) for text in ("flips between A and B", "B minus A: ", "arms.rlaif.algorithm.lr", "tokens")]
    assert parts == sorted(parts)
    assert out.count("  prompt:  ") == 1
    (agreement,) = (line for line in out.splitlines() if line.startswith("agreement of the labels"))
    assert agreement.count(" % [") == 2


def test_runs_are_compared_without_their_data_models_and_plugins(
    run_folder: Path, other_run: Path, tmp_path: Path
) -> None:
    """Only artefacts are read: a spec that names what is not there any more does not matter."""
    folder = tmp_path / "moved"
    shutil.copytree(run_folder, folder)
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    spec["policy"]["model"] = "/nowhere"
    spec["arms"]["rlaif"]["feedback"]["labeler"]["kind"] = "gone/labeler"
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    found = rlaif_framework.compare(folder, other_run)
    assert {row.path for row in found.arms[0].settings} == {
        "arms.rlaif.algorithm.lr",
        "arms.rlaif.feedback.labeler.kind",
        "policy.model",
    }


def test_what_cannot_be_compared_is_one_line(run_folder: Path, folders: Path, rlaif: RunCommand) -> None:
    def refuse(message: str, *argv: object) -> None:
        code, out, err = rlaif("compare", *argv)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert message in err

    refuse("two runs or more", run_folder)
    refuse("is not the folder of a run", run_folder, folders)
    refuse("has no arm with a policy named 'rlai'; did you mean 'rlaif'?", run_folder, f"{run_folder}:rlai")
    refuse(
        "has not compared rlaif with reference by the judge 'judge'", run_folder, run_folder, "--against", "reference"
    )
    refuse("by the judge 'judg'", run_folder, run_folder, "--judge", "judg")
    done = folders / "done"
    judged = done / "evaluation/wins/rlaif-vs-sft/artefact.json"
    manifest = json.loads(judged.read_text())
    manifest["recipe"]["judge"]["config"]["prefer"] = "shorter"
    judged.unlink()
    judged.write_text(json.dumps(manifest))
    refuse("have different judges", run_folder, done)
    shutil.rmtree(done / "evaluation" / "summary")
    refuse("is not finished: it was stopped at evaluation/summary", run_folder, done)


def test_python_callers_get_the_errors_of_the_framework(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="two runs or more"):
        rlaif_framework.compare(run_folder)
    with pytest.raises(DataError, match="not the folder of a run"):
        rlaif_framework.compare(run_folder, tmp_path)
