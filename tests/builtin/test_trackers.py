"""The trackers write what their own libraries read, each step once, and nothing leaves the machine."""

from __future__ import annotations

import html
import json
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import MissingPackageError, PluginError, PluginManager, Spec, SpecError, Table
from rlaif_framework.contracts import read_metrics
from rlaif_plugins.trackers.tensorboard import _format_table
from support.runs import execute
from support.wandb_files import read_run

STEPS = ("sft", "rlaif/reward", "rlaif/policy")
"""Stages of the tiny spec that log metrics."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else "localhost"
        assert host in ("localhost", "127.0.0.1", "::1"), f"connects to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def twice(
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Any], Path]:
    """Run the finished tiny spec with a tracker, and again in the same folder; return the folder."""
    monkeypatch.chdir(tmp_path)
    store = run_folder.parent / f"{run_folder.name}-store"

    def run(tracker: Any) -> Path:
        for _ in range(2):
            execute(tiny_spec(trackers=[tracker]), tmp_path / "run", manager, store)
        return tmp_path / "run"

    return run


def results(folder: Path) -> tuple[str, dict[str, float]]:
    """The win rate of the run."""
    rate = json.loads((folder / "report.json").read_text())["evaluation"]["wins"][0]["rate"]
    return "win_rate/rlaif-vs-sft", rate


def test_tensorboard_has_each_step_once(twice: Callable[[Any], Path]) -> None:
    folder = twice("tensorboard")
    for step in STEPS:
        (events,) = folder.glob(f"tensorboard/{step.replace('/', '-')}/*")
        found = read_events(events)
        for row in read_metrics(folder / step):
            for name in row.keys() - {"step"}:
                values = [event.value for event in found.Scalars(name) if event.step == row["step"]]
                assert values == [pytest.approx(row[name], rel=1e-6)]


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def read_text(folder: Path, tag: str) -> str:
    """The only text of a tag, without the escapes of Markdown."""
    (event,) = read_events(folder).Tensors(f"{tag}/text_summary")
    (text,) = event.tensor_proto.string_val
    return html.unescape(text.decode())


def test_tensorboard_has_settings_tables_and_results_once(twice: Callable[[Any], Path]) -> None:
    folder = twice("tensorboard")
    events = folder / "tensorboard"
    settings = json.loads(read_text(events / "settings", "spec"))
    assert settings["arms"]["rlaif"]["reward"]["kind"] == "bradley-terry"
    name, rate = results(folder)
    found = read_events(events / "results")
    for end, key in (("", "value"), ("/low", "low"), ("/high", "high")):
        assert [event.value for event in found.Scalars(name + end)] == [pytest.approx(rate[key], rel=1e-6)]
    rows = read_text(next(events.glob("texts/rlaif-labels/*/labels")), "labels").splitlines()
    labels = (folder / "rlaif/labels/preferences.jsonl").read_text().splitlines()
    assert len(rows) == 2 + len(labels)
    assert rows[2].startswith(f"| {json.loads(labels[0])['comparison']} | ")
    samples = read_text(next(events.glob("texts/evaluation-summary/*/samples")), "samples").splitlines()
    assert samples[0].startswith("| prompt | reference | sft | rlaif")


def test_texts_stay_texts_in_tensorboard() -> None:
    table = Table("t", ("a_b", "c"), [("<img src=x> | **bold**\n# title", None), ("é, 1.5", 0.25)])
    head, _, first, second = _format_table(table)
    assert head == "| a&#95;b | c |"
    assert set("<*#|_") & set(first.replace("<br>", "").replace("&#", "")[1:-1].replace(" |", "")) == set()
    assert html.unescape(first.replace("<br>", "\n")) == "| <img src=x> | **bold**\n# title |  |"
    assert second == "| é, 1.5 | 0.25 |"


def test_wandb_has_each_step_once_with_settings_tables_results_and_report(twice: Callable[[Any], Path]) -> None:
    pytest.importorskip("wandb")
    folder = twice({"kind": "wandb", "project": "news"})
    paths = sorted(folder.parent.glob("wandb/offline-run-*/*.wandb"))
    first, second = sorted(map(read_run, paths), key=lambda run: -len(run["history"]))
    run = first["run"]
    assert (run.project, run.display_name, run.run_group.rpartition("-")[0]) == ("news", "run", "tiny")
    assert second["run"].run_id == run.run_id, "a second run instead of the same one"
    assert first["config"]["seed"] == 3
    assert first["config"]["arms"]["rlaif"]["reward"]["kind"] == "bradley-terry"
    for step in STEPS:
        metrics = read_metrics(folder / step)
        # A table has the step of its stage too.
        rows = [
            row for row in first["history"] if any(f"{step}/{name}" in row for name in metrics[0].keys() - {"step"})
        ]
        for row, expected in zip(rows, metrics, strict=True):
            logged = {name: row[f"{step}/{name}"] for name in expected}
            assert logged == pytest.approx(expected)
    assert not [row for row in second["history"] if not row.keys() <= {"_step", "_runtime", "_timestamp"}]
    name, rate = results(folder)
    ends = [first["summary"][f"{name}{end}"] for end in ("", "/low", "/high")]
    assert ends == [rate["value"], rate["low"], rate["high"]]
    (table,) = folder.parent.glob("wandb/offline-run-*/files/media/table/rlaif/labels/*.json")
    content = json.loads(table.read_text())
    assert content["columns"][:4] == ["comparison", "prompt", "first", "second"]
    assert len(content["data"]) == len((folder / "rlaif/labels/preferences.jsonl").read_text().splitlines())
    (report,) = folder.parent.glob("wandb/offline-run-*/files/media/html/*.html")
    assert report.read_text() == (folder / "report.html").read_text()
    assert (first["exit"], second["exit"]) == (0, 0)


def test_trackio_has_each_step_once_with_settings_tables_results_and_report(
    twice: Callable[[Any], Path], tmp_path: Path
) -> None:
    trackio = pytest.importorskip("trackio")
    folder = twice({"kind": "trackio", "project": tmp_path.name})
    with sqlite3.connect(trackio.TRACKIO_DIR / f"{tmp_path.name}.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        (config,) = database.execute("select config from configs").fetchone()
    assert len({name for name, _, _ in rows}) == 1, "a second run instead of the same one"
    assert json.loads(config)["policy"]["max_new_tokens"] == 12
    logged = [(step, json.loads(metrics)) for _, step, metrics in rows]
    for step in STEPS:
        found = [
            {"step": number, **{name.removeprefix(f"{step}/"): value for name, value in metrics.items()}}
            for number, metrics in logged
            if any(name.startswith(f"{step}/") and not isinstance(value, dict) for name, value in metrics.items())
        ]
        assert found == [pytest.approx(row) for row in read_metrics(folder / step)]
    name, rate = results(folder)
    assert [metrics[f"results/{name}/low"] for _, metrics in logged if f"results/{name}/low" in metrics] == [
        rate["low"]
    ]
    (table,) = (metrics["rlaif/labels/labels"] for _, metrics in logged if "rlaif/labels/labels" in metrics)
    assert len(table["_value"]) == len((folder / "rlaif/labels/preferences.jsonl").read_text().splitlines())
    assert len([metrics for _, metrics in logged if "report" in metrics]) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_has_each_step_once_with_settings_tables_results_and_report(
    twice: Callable[[Any], Path], tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")  # which mlflow-skinny does not need
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = twice({"kind": "mlflow", "tracking_uri": uri, "experiment": "news"})
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("news").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["arms.rlaif.reward.kind"] == "bradley-terry"
    assert run.data.tags["rlaif.group"].startswith("tiny-")
    for step in STEPS:
        rows = read_metrics(folder / step)
        for name in rows[0].keys() - {"step"}:
            history = client.get_metric_history(run.info.run_id, f"{step}/{name}")
            found = sorted((metric.step, metric.value) for metric in history)
            assert found == [(row["step"], pytest.approx(row[name])) for row in rows if name in row]
    name, rate = results(folder)
    assert [run.data.metrics[f"{name}{end}"] for end in ("", "/low", "/high")] == [
        rate["value"],
        rate["low"],
        rate["high"],
    ]
    artefacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "spec.json", "rlaif"} <= artefacts
    table = next((tmp_path / "mlruns").rglob("labels.json"))
    assert len(json.loads(table.read_text())["data"]) == len(
        (folder / "rlaif/labels/preferences.jsonl").read_text().splitlines()
    )


@pytest.mark.parametrize("kind", ["wandb", "trackio", "mlflow"])
def test_a_missing_library_is_an_error_with_its_extra_before_anything_is_computed(
    kind: str, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name == f"rlaif_plugins.trackers.{kind}.tracker":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    message = (
        rf"tracker '{kind}': the package '{kind}' is not installed; install it: pip install 'rlaif-framework\[{kind}\]'"
    )
    with pytest.raises(MissingPackageError, match=message):
        execute(tiny_spec(trackers=[kind]), tmp_path / "run", manager)
    assert not (tmp_path / "run").exists()


def test_wandb_does_not_write_links_into_the_run_folder(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    message = "its folder .*inside is in the run folder, where it would make links; change 'folder'"
    tracker = {"kind": "wandb", "folder": str(tmp_path / "run/inside")}
    with pytest.raises(SpecError, match=message):
        execute(tiny_spec(trackers=[tracker]), tmp_path / "run", manager)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "run/inside"))
    with pytest.raises(SpecError, match=message):
        execute(tiny_spec(trackers=["wandb"]), tmp_path / "run", manager)
    assert not (tmp_path / "run/inside").exists()


@pytest.mark.parametrize(("chosen", "expected"), [(None, "2"), ("5", "5")], ids=["default", "chosen"])
def test_mlflow_does_not_try_for_minutes_whether_there_is_a_server(
    chosen: str | None,
    expected: str,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow = pytest.importorskip("mlflow")
    name, asked = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", []
    monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv(name, chosen)

    def fail(self: Any, experiment: str) -> None:
        asked.append(os.environ[name])
        raise ConnectionError("refused")

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", fail)
    tracker = {"kind": "mlflow", "tracking_uri": "http://127.0.0.1:1"}
    with pytest.raises(PluginError, match=r"tracker 'mlflow' .*cannot start: ConnectionError: refused"):
        execute(tiny_spec(trackers=[tracker]), tmp_path / "run", manager)
    assert (asked, os.environ.get(name)) == ([expected], chosen)
