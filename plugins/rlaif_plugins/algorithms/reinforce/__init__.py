"""REINFORCE with a baseline, the paper's algorithm (RLAIF F, v2 and v3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import model_validator

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import ValueConfig


class ReinforceConfig(ValueConfig):
    """Policy gradient with a baseline; maximises (1 - beta) r - beta KL."""

    kind: Literal["reinforce"] = "reinforce"
    baseline: Literal["value", "leave-one-out"] = "value"
    """Baseline of the return: a value model trained along with the policy (the paper), or the mean reward of the other
    responses to the prompt (Ahmadian et al. 2024), without a second model."""

    @model_validator(mode="after")
    def _check_baseline(self) -> ReinforceConfig:
        if self.baseline == "leave-one-out" and self.responses_per_prompt < 2:
            raise ValueError("baseline: leave-one-out needs at least 2 responses; raise responses_per_prompt")
        return self

    @property
    def value_settings(self) -> ValueConfig | None:
        """Settings of the value model; None with `baseline: leave-one-out`."""
        return self if self.baseline == "value" else None


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `reinforce`."""
    yield Component("reinforce", ReinforceConfig, "rlaif_plugins.algorithms.reinforce.algorithm:Reinforce")
