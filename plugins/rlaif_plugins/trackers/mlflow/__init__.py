"""The tracker `mlflow`: a local database or folder, or a tracking server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlaif_framework import Component, TrackerConfig, hookimpl


class MlflowConfig(TrackerConfig):
    """Log to MLflow: a local database by default, which `mlflow ui` displays."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: str = "rlaif"
    """Experiment that the run is logged to; created if it does not exist."""
    tracking_uri: str | None = None
    """Where to log: a database such as `sqlite:///mlflow.db`, a folder, or the address of a server. By default
    `$MLFLOW_TRACKING_URI`, or the local default of MLflow."""


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer `mlflow`."""
    yield Component("mlflow", MlflowConfig, "rlaif_plugins.trackers.mlflow.tracker:MlflowTracker")
