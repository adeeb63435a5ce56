"""The Bradley-Terry reward model: a scalar head trained by cross-entropy on soft labels (RLAIF A.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import Component, ComponentConfig, ModelLoad, hookimpl


class BradleyTerryConfig(ComponentConfig):
    """A scalar head on a causal LM, trained so that differences of scores explain the soft labels."""

    needs_preferences: ClassVar[bool] = True

    kind: Literal["bradley-terry"] = "bradley-terry"
    model: str | None = None
    """What it starts from; default: the supervised baseline (the paper's choice for AI labels)."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the labels (RLAIF: 2-3)."""
    lr: float = Field(1e-5, gt=0)
    """Learning rate (RLAIF: 1e-5)."""
    batch_size: int = Field(16, ge=1)
    """Comparisons per optimiser step (RLAIF: 128), on average: those of one prompt stay together."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The model it starts from."""
        return [ModelLoad(self.model or policy, "reward model", trained=True)]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `bradley-terry`."""
    yield Component("bradley-terry", BradleyTerryConfig, "rlaif_plugins.bradley_terry.model:BradleyTerry")
