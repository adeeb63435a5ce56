"""Tests that every tracker must pass."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import ResultTracker, StageTracker, TableTracker, Tracker
from rlaif_framework.contracts.tracking import Table, TrackedRun
from rlaif_framework.pipeline.engine import run_spec
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import TrackerConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.spec.loading import build_spec
from rlaif_framework.store import Store
from rlaif_framework.testing.component import ComponentConformance
from rlaif_framework.testing.world import POLICY

REPORT = "report.html"
SETTINGS: Mapping[str, Any] = {
    "name": "tiny",
    "seed": 0,
    "task": {"kind": "testing/tiny"},
    "arms": {"rlaif": {"rounds": 1, "reward": None, "note": "naïve, 日本語\nsecond line"}},
    "trackers": [],
}
"""Settings as a spec has them: nested, with lists, null and texts of any script."""

TABLE = Table("samples", ("prompt", "response", "reward"), [("a", "naïve\n日本語", 0.5), ("b", "x" * 10_000, None)])
"""A table with all that tables may have."""


@dataclass(frozen=True)
class TinyStep:
    """A step of a run that did not take place."""

    name: str
    stage: str
    key: str = "0123456789abcdef"


STEPS = (TinyStep("sft", "sft"), TinyStep("rlaif/policy", "improve"))


class TrackerConformance(ComponentConformance):
    """Tests of a tracker. It must not need a network: override the fixture `settings` to work offline."""

    slot: ClassVar[Slot] = "tracker"
    uses_run_folder: ClassVar[bool] = False
    """True if the tracker writes into the run folder. Plugins should have a setting for the place to write to."""

    @pytest.fixture(autouse=True)
    def _own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep what a tracker writes to the current folder out of the project."""
        (tmp_path / "cwd").mkdir()
        monkeypatch.chdir(tmp_path / "cwd")

    @pytest.fixture
    def build(self, context: Context, parsed: TrackerConfig) -> Callable[[], Tracker]:
        """A function that builds the tracker, as in a run."""
        return lambda: context.build_tracker(parsed)

    @pytest.fixture
    def tracked(self, tmp_path: Path) -> TrackedRun:
        """A run to track."""
        folder = tmp_path / "runs" / "tiny"
        folder.mkdir(parents=True)
        (folder / REPORT).write_text("<!doctype html><title>Report</title>", encoding="utf-8")
        return TrackedRun("0123456789ab", "tiny", "tiny-01234567", folder, SETTINGS, resumed=False)

    @pytest.mark.parametrize("error", [None, RuntimeError("it failed"), KeyboardInterrupt()], ids=str)
    def test_it_accepts_every_event(
        self, error: BaseException | None, build: Callable[[], Tracker], tracked: TrackedRun
    ) -> None:
        """Check all calls of a run, whether it ends well or not."""
        send_events(build(), tracked, error)

    def test_it_goes_on_with_a_resumed_run(self, build: Callable[[], Tracker], tracked: TrackedRun) -> None:
        """Check a run that is interrupted, and resumed by another process."""
        send_events(build(), tracked, RuntimeError("killed"))
        again = TrackedRun(tracked.id, tracked.name, tracked.group, tracked.folder, tracked.settings, resumed=True)
        send_events(build(), again, None, resumed_at=1)

    def test_it_can_finish_a_run_that_logged_nothing(self, build: Callable[[], Tracker], tracked: TrackedRun) -> None:
        """Check a run that fails at once."""
        tracker = build()
        tracker.run_started(tracked)
        tracker.run_finished(RuntimeError("it failed"))

    def test_it_closes_its_files(self, build: Callable[[], Tracker], tracked: TrackedRun) -> None:
        """Check that a process with many runs does not run out of files."""
        send_events(build(), tracked, None)  # the first run may import modules that keep files open
        before = _count_open_files()
        send_events(build(), tracked, None)
        assert _count_open_files() <= before, "it leaves files or connections open after `run_finished`"

    def test_it_leaves_the_run_folder_alone(self, build: Callable[[], Tracker], tracked: TrackedRun) -> None:
        """Check that nothing is written between the results."""
        if self.uses_run_folder:
            pytest.skip("`uses_run_folder = True`")
        send_events(build(), tracked, None)
        found = [path.name for path in tracked.folder.rglob("*") if path.name != REPORT]
        assert not found, f"it wrote {', '.join(found)} into the run folder"

    def test_it_tracks_a_run(
        self, manager: PluginManager, settings: Mapping[str, Any], tiny_model: Path, tmp_path: Path
    ) -> None:
        """Check that it follows a real run, and the same one again from its artefacts, without an error."""
        spec = {
            "task": "testing/tiny",
            "policy": {**POLICY, "model": str(tiny_model)},
            "sft": {"limit": 4, "batch_size": 2, "epochs": 1},
            "trackers": [settings],
        }
        for _ in range(2):
            told = io.StringIO()
            progress = Progress(Console(file=told, width=1000))
            run_spec(build_spec(spec, "tiny", manager), tmp_path / "run", Store(tmp_path / "store"), manager, progress)
            assert "failed in" not in told.getvalue(), told.getvalue()


def send_events(tracker: Tracker, run: TrackedRun, error: BaseException | None, resumed_at: int = 0) -> None:
    """Send the events of a run with two stages to a tracker."""
    tracker.run_started(run)
    for step in STEPS:
        if isinstance(tracker, StageTracker):
            tracker.stage_started(step, resumed_at)
        for number in range(resumed_at + 1, resumed_at + 4):
            tracker.step_logged(step, number, {"loss": 1 / number, "reward/length": -1e9, "tokens": 0.0})
        if isinstance(tracker, TableTracker):
            tracker.table_logged(step, TABLE)
        if isinstance(tracker, StageTracker):
            tracker.stage_finished(step)
    if isinstance(tracker, ResultTracker) and error is None:
        rates = {"win_rate/rlaif-vs-sft": 0.6, "win_rate/rlaif-vs-sft/low": 0.5, "win_rate/rlaif-vs-sft/high": 0.7}
        tracker.results_measured(rates, run.folder / REPORT)
    tracker.run_finished(error)


def _count_open_files() -> int:
    folder = Path("/dev/fd")  # Linux and macOS
    return len(list(folder.iterdir())) if folder.exists() else 0
