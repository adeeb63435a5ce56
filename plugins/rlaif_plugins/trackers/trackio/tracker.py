"""Log a run to Trackio."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

import trackio

from rlaif_framework import Context, StepInfo, Table, TrackedRun
from rlaif_plugins.trackers.trackio import TrackioConfig


class TrackioTracker:
    """Metrics under the names of their stages, tables and results."""

    def __init__(self, config: TrackioConfig, context: Context) -> None:
        self.config = config

    def run_started(self, run: TrackedRun) -> None:
        """Create or continue the run, with the settings of the spec as its config."""
        with redirect_stdout(sys.stderr):  # it prints how to open the dashboard
            self.run = trackio.init(
                project=self.config.project,
                # Runs are found by name, and folders in several places may have the same one.
                name=f"{run.name}-{run.id[:6]}",
                group=run.group,
                space_id=self.config.space,
                config=dict(run.settings),
                resume="allow" if run.resumed else "never",
                embed=False,
            )

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a training step."""
        self.run.log({f"{step.name}/{name}": value for name, value in metrics.items()}, step=number)

    def table_logged(self, step: StepInfo, table: Table) -> None:
        """Log a table of texts."""
        rows = trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
        self.run.log({f"{step.name}/{table.name}": rows})

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Log the results under `results`, and the report."""
        self.run.log({f"results/{name}": value for name, value in results.items()})
        self.run.log({"report": trackio.Html(str(report))})

    def run_finished(self, error: BaseException | None) -> None:
        """Write what is buffered."""
        with redirect_stdout(sys.stderr):
            trackio.finish()  # type: ignore[no-untyped-call,unused-ignore]  # not that of the run, after which Trackio would finish it again at exit
