"""Log a run to MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at the import: nothing is sent unasked

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from rlaif_framework import Context, StepInfo, Table, TrackedRun
from rlaif_plugins.trackers.mlflow import MlflowConfig

ID, GROUP = "rlaif.id", "rlaif.group"
"""Tags of a run."""
MAX_PARAM = 500
"""Length at which MLflow has always accepted the value of a parameter."""
BATCH = 100
"""Number of parameters that MLflow accepts at once."""
FORBIDDEN = re.compile(r"[^\w\-. /]")
"""Characters that MLflow does not accept in names."""
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""Variable with the number of times that MLflow repeats a request that fails, 7 by default, which takes minutes."""


class MlflowTracker:
    """Settings as parameters, metrics under the names of their stages, tables and the report as artefacts."""

    def __init__(self, config: MlflowConfig, context: Context) -> None:
        self.config = config

    def run_started(self, run: TrackedRun) -> None:
        """Create the run with its parameters, or continue the one with the same id."""
        self.client = MlflowClient(tracking_uri=self.config.tracking_uri)
        with _fail_early():
            found = self.client.get_experiment_by_name(self.config.experiment)
        experiment = found.experiment_id if found else self.client.create_experiment(self.config.experiment)
        if run.resumed:
            earlier = self.client.search_runs([experiment], filter_string=f"tags.`{ID}` = '{run.id}'")
            if earlier:
                self.run_id = earlier[0].info.run_id
                self.client.update_run(self.run_id, status="RUNNING")
                return
        tags = {ID: run.id, GROUP: run.group}
        self.run_id = self.client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        # Parameters are short texts: the artefact has the settings as they are.
        params = [Param(_name(key), str(value)[:MAX_PARAM]) for key, value in _flatten(run.settings)]
        for start in range(0, len(params), BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + BATCH])
        self.client.log_dict(self.run_id, dict(run.settings), "spec.json")

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a training step."""
        self._log({f"{step.name}/{name}": value for name, value in metrics.items()}, number)

    def table_logged(self, step: StepInfo, table: Table) -> None:
        """Save a table as an artefact that MLflow shows and compares."""
        columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}
        self.client.log_table(self.run_id, columns, f"{step.name}/{table.name}.json")

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Log the results as metrics without steps, and save the report as an artefact."""
        self._log(results, 0)
        self.client.log_artifact(self.run_id, str(report))

    def run_finished(self, error: BaseException | None) -> None:
        """Finish the run, as failed if an error stopped it, or killed by the keyboard."""
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self.client.set_terminated(self.run_id, status)

    def _log(self, values: Mapping[str, float], number: int) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, number) for name, value in values.items()]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])


@contextmanager
def _fail_early() -> Iterator[None]:
    """Repeat requests twice only, unless the user has chosen a number: the address of the server may be wrong."""
    chosen = RETRIES in os.environ
    os.environ.setdefault(RETRIES, "2")
    try:
        yield
    finally:
        if not chosen:
            del os.environ[RETRIES]


def _name(text: str) -> str:
    return FORBIDDEN.sub("_", text)


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings by their path in the spec."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
