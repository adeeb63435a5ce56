"""REINFORCE with a baseline, the paper's algorithm (RLAIF F, v2 and v3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import model_validator

from rlaif_framework import Component, ModelLoad, hookimpl
from rlaif_framework.rl import ValueConfig


class ReinforceConfig(ValueConfig):
    """Policy gradient against a baseline, maximising (1 - beta) r - beta KL."""

    kind: Literal["reinforce"] = "reinforce"
    baseline: Literal["value", "leave-one-out"] = "value"
    """What a response's return is compared with: a value model trained beside the policy (the paper), or the mean of
    the other responses to the same prompt (Ahmadian et al. 2024), which costs no second model."""

    @model_validator(mode="after")
    def _check_baseline(self) -> ReinforceConfig:
        if self.baseline == "leave-one-out" and self.responses_per_prompt < 2:
            raise ValueError("baseline: leave-one-out needs responses_per_prompt of 2 or more")
        return self

    @property
    def needs_reward_model(self) -> bool:
        """If there is a value model that starts from it."""
        return self.baseline == "value" and super().needs_reward_model

    def loads(self, policy: str) -> list[ModelLoad]:
        """Policy and value model, if there is one."""
        return [load for load in super().loads(policy) if self.baseline == "value" or load.role != "value model"]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `reinforce`."""
    yield Component("reinforce", ReinforceConfig, "rlaif_plugins.algorithms.reinforce.algorithm:Reinforce")
