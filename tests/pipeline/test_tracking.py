"""Trackers get each step once, however often a run is interrupted, and their errors stop nothing."""

from __future__ import annotations

import io
import json
import shutil
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from rich.console import Console

from rlaif_framework import (
    Component,
    Context,
    PluginError,
    PluginManager,
    Spec,
    Stage,
    StepInfo,
    Store,
    Table,
    TrackedRun,
    TrackerConfig,
    hookimpl,
    run_spec,
)
from rlaif_framework.contracts import read_metrics
from rlaif_framework.pipeline.tracking import redact_settings
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.progress import Progress
from support.runs import digest, execute, run_rows

SENT: list[tuple[Any, ...]] = []
"""What the trackers below were sent: the tracker, the method and its arguments."""
FAILING: set[str] = set()
"""Methods that raise an error."""


class ListConfig(TrackerConfig):
    """Keeps what it is sent."""

    kind: Literal["test/list"] = "test/list"
    project: str = "p"


class RewindConfig(ListConfig):
    """Can remove metrics."""

    kind: Literal["test/rewind"] = "test/rewind"  # type: ignore[assignment]
    rewinds: ClassVar[bool] = True


class ListTracker:
    def __init__(self, config: ListConfig, context: Context) -> None:
        self.config = config

    def _note(self, method: str, *arguments: Any) -> None:
        if method in FAILING:
            raise OSError(f"the server is down\nin {method}")
        SENT.append((self.config.kind, method, *arguments))

    def run_started(self, run: TrackedRun) -> None:
        self._note("run_started", run)

    def stage_started(self, step: StepInfo, resumed_at: int) -> None:
        self._note("stage_started", step.name, resumed_at)

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        self._note("step_logged", step.name, number, dict(metrics))

    def stage_finished(self, step: StepInfo) -> None:
        self._note("stage_finished", step.name)

    def table_logged(self, step: StepInfo, table: Table) -> None:
        self._note("table_logged", step.name, table)

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        self._note("results_measured", dict(results), report)

    def run_finished(self, error: BaseException | None) -> None:
        self._note("run_finished", error)


@pytest.fixture
def tracked(manager: PluginManager) -> PluginManager:
    """The components of other tests and two trackers."""
    module = types.ModuleType("rlaif_lists")

    @hookimpl
    def rlaif_trackers() -> Iterable[Component]:
        yield Component("test/list", ListConfig, f"{__name__}:ListTracker")
        yield Component("test/rewind", RewindConfig, f"{__name__}:ListTracker")

    module.rlaif_trackers = rlaif_trackers  # type: ignore[attr-defined]
    plugin = Plugin("lists", "rlaif-test", "2.0", module=module)
    manager.add(plugin)
    assert plugin.error is None
    SENT.clear()
    FAILING.clear()
    return manager


def sent(method: str, kind: str = "test/list") -> list[Any]:
    """The arguments of each call of a method."""
    return [call[2] if len(call) == 3 else call[2:] for call in SENT if call[:2] == (kind, method)]


BOTH = ["test/list", "test/rewind"]


@pytest.fixture
def store(run_folder: Path) -> Path:
    """The store of a finished run of the tiny spec."""
    return run_folder.parent / f"{run_folder.name}-store"


def test_a_reused_run_is_sent_whole_and_only_once(
    store: Path, run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    spec = tiny_spec(trackers=BOTH)
    execute(spec, tmp_path / "run", tracked, store)
    (run,) = sent("run_started")
    assert (run.name, run.folder, run.resumed) == ("run", tmp_path / "run", False)
    assert run.settings["arms"] == spec.model_dump(mode="json")["arms"]
    for step in ("sft", "rlaif/reward", "rlaif/policy"):
        rows = [{"step": number, **metrics} for name, number, metrics in sent("step_logged") if name == step]
        assert rows == read_metrics(run_folder / step)
    labels, policy, samples = (table for _, table in sent("table_logged"))
    assert (labels.name, len(labels.rows)) == ("labels", len(run_rows(run_folder / "rlaif/labels/preferences.jsonl")))
    first = run_rows(run_folder / "rlaif/labels/preferences.jsonl")[0]
    assert (labels.rows[0][0], labels.rows[0][4]) == (first["comparison"], first["probabilities"][0])
    assert policy.columns[:2] == ["prompt", "response"]
    assert samples.columns == ("prompt", "reference", "sft", "rlaif", "reference")[: len(samples.columns)]
    (results, report), evaluation = sent("results_measured")[0], read_evaluation(run_folder)
    rate = evaluation["wins"][0]["rate"]
    ends = [results[f"win_rate/rlaif-vs-sft{end}"] for end in ("", "/low", "/high")]
    assert ends == [rate["value"], rate["low"], rate["high"]]
    assert results["agreement/judge"] == evaluation["labelers"]["judge"]["quality"]["agreement"]["value"]
    assert report.read_text().startswith("<!doctype html>")
    assert sent("run_finished") == [None]

    SENT.clear()
    execute(spec, tmp_path / "run", tracked, store)
    (again,) = sent("run_started")
    assert (again.id, again.resumed) == (run.id, True)
    assert not sent("step_logged") + sent("table_logged") + sent("results_measured")


def read_evaluation(folder: Path) -> Any:
    return json.loads((folder / "evaluation/summary/evaluation.json").read_text())


def test_seeds_share_a_group_and_nothing_else_does(
    tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    small: dict[str, Any] = {"arms": {}, "evaluate": None, "sft": None, "trackers": ["test/list"]}
    changes: dict[str, dict[str, Any]] = {"a": {}, "b": {"seed": 4}, "c": {"sft": {"limit": 8}}}
    for name, change in changes.items():
        execute(tiny_spec(**{**small, **change}), tmp_path / name, tracked, tmp_path / "store")
    first, second, third = sent("run_started")
    assert first.group == second.group != third.group
    assert len({run.id for run in (first, second, third)}) == 3


def test_changed_settings_start_another_tracked_run(
    store: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    execute(tiny_spec(trackers=["test/list"]), tmp_path / "run", tracked, store)
    evaluate = {**tiny_spec().model_dump(mode="json")["evaluate"], "show": 2}
    execute(tiny_spec(trackers=["test/list"], evaluate=evaluate), tmp_path / "run", tracked, store)
    first, second = sent("run_started")
    assert first.id != second.id
    assert not second.resumed
    numbers = [number for name, number, _ in sent("step_logged") if name == "rlaif/policy"]
    assert numbers == [1, 2, 3, 1, 2, 3]


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def test_a_run_killed_after_its_checkpoint_logs_no_step_twice(
    store: Path,
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    tracked: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(store, tmp_path / "store")
    for artefact in (tmp_path / "store").glob("improve-*/"):
        shutil.rmtree(artefact)
    log = Stage.log

    def kill(self: Stage, number: int, metrics: Any) -> None:
        log(self, number, metrics)
        if self.name == "improve" and number == 2:
            raise Killed  # the last checkpoint is that of step 1

    spec = tiny_spec(trackers=BOTH)
    monkeypatch.setattr(Stage, "log", kill)
    with pytest.raises(Killed):
        execute(spec, tmp_path / "run", tracked, tmp_path / "store", checkpoint_seconds=0)
    assert [type(error) for error in sent("run_finished")] == [Killed]
    monkeypatch.setattr(Stage, "log", log)
    execute(spec, tmp_path / "run", tracked, tmp_path / "store", checkpoint_seconds=0)
    for kind, expected in (("test/list", [1, 2, 3]), ("test/rewind", [1, 2, 2, 3])):
        assert [number for name, number, _ in sent("step_logged", kind) if name == "rlaif/policy"] == expected
    assert [at for name, at in sent("stage_started", "test/rewind") if name == "rlaif/policy"] == [0, 1]
    assert digest(tmp_path / "run") == digest(run_folder)


def test_a_tracker_that_fails_is_reported_once_by_name_and_version_and_stops_nothing(
    store: Path, run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    FAILING.update({"step_logged", "table_logged", "results_measured", "run_finished"})
    out = io.StringIO()
    run_spec(tiny_spec(trackers=["test/list"]), tmp_path / "run", Store(store), tracked, Progress(Console(file=out)))
    assert [line for line in out.getvalue().splitlines() if "warning: tracker" in line] == [
        "warning: tracker 'test/list' of rlaif-test 2.0 failed in step_logged(): OSError: the server is down in "
        "step_logged; the run goes on"
    ]
    assert digest(tmp_path / "run") == digest(run_folder)
    FAILING.clear()
    execute(tiny_spec(trackers=["test/list"]), tmp_path / "run", tracked, store)
    assert [number for name, number, _ in sent("step_logged") if name == "sft"] == [1, 2, 3], "lost for ever"


def test_a_tracker_that_cannot_start_stops_the_run_before_anything_is_computed(
    tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    FAILING.add("run_started")
    message = r"tracker 'test/list' of rlaif-test 2.0 cannot start: OSError: the server is down in run_started; change"
    with pytest.raises(PluginError, match=message):
        execute(tiny_spec(trackers=["tensorboard", "test/list"]), tmp_path / "run", tracked, tmp_path / "store")
    assert not list((tmp_path / "store").glob("*"))


@pytest.mark.parametrize("text", ["", "[]", '{"test/list": {"id": "../x", "keys": {}}}', "\x00"])
def test_a_record_of_somebody_else_is_not_believed(
    text: str, tmp_path: Path, tiny_spec: Callable[..., Spec], tracked: PluginManager
) -> None:
    spec = tiny_spec(arms={}, evaluate=None, sft=None, trackers=["test/list"])
    execute(spec, tmp_path / "run", tracked)
    (tmp_path / "run/trackers.json").write_text(text)
    execute(spec, tmp_path / "run", tracked)
    assert [run.resumed for run in sent("run_started")] == [False, False]


def test_passwords_in_addresses_are_not_sent() -> None:
    settings = {"base_urls": ["https://me:secret@host/v1", "http://host"], "uri": "postgresql://u:p@db/x", "n": 1}
    assert redact_settings(settings) == {
        "base_urls": ["https://***@host/v1", "http://host"],
        "uri": "postgresql://***@db/x",
        "n": 1,
    }


def test_the_same_tracker_twice_is_refused(tiny_spec: Callable[..., Spec], tracked: PluginManager) -> None:
    with pytest.raises(Exception, match="'test/list' is listed twice with the same settings"):
        tiny_spec(trackers=["test/list", "test/list"])
    assert len(tiny_spec(trackers=["test/list", {"kind": "test/list", "project": "q"}]).trackers) == 2
