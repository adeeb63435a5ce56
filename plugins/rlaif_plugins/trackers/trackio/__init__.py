"""The tracker `trackio`: a local database with a dashboard, or a Space on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlaif_framework import Component, TrackerConfig, hookimpl


class TrackioConfig(TrackerConfig):
    """Log to Trackio: a local database by default, which `trackio show` displays."""

    kind: Literal["trackio"] = "trackio"
    project: str = "rlaif"
    """Project that the run is logged to."""
    space: str | None = None
    """Space on the Hugging Face Hub to log to, such as `user/trackio`. By default nothing leaves the machine."""


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer `trackio`."""
    yield Component("trackio", TrackioConfig, "rlaif_plugins.trackers.trackio.tracker:TrackioTracker")
