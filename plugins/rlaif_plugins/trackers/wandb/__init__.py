"""The tracker `wandb`: Weights & Biases, offline unless the spec says `mode: online`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlaif_framework import Component, TrackerConfig, hookimpl


class WandbConfig(TrackerConfig):
    """Log to Weights & Biases: offline by default, for `wandb sync`."""

    kind: Literal["wandb"] = "wandb"
    project: str = "rlaif"
    """Project that the run is logged to."""
    entity: str | None = None
    """User or team that owns the project. By default that of the account."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes to the folder only; `wandb sync` uploads it. `online` sends everything to the server while the
    run goes on, and needs `wandb login` or the variable `WANDB_API_KEY`."""
    folder: str | None = None
    """Folder that gets the folder `wandb`. By default `$WANDB_DIR` or the current folder. It must not be in the run
    folder, because Weights & Biases makes links."""


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer `wandb`."""
    yield Component("wandb", WandbConfig, "rlaif_plugins.trackers.wandb.tracker:WandbTracker")
