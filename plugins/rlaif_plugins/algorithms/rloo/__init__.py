"""REINFORCE leave-one-out (Ahmadian et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import PolicyGradientConfig


class RlooConfig(PolicyGradientConfig):
    """Whole responses as actions, with the mean of the other responses to the prompt as baseline; no value model."""

    kind: Literal["rloo"] = "rloo"
    responses_per_prompt: int = Field(4, ge=2)
    """Responses sampled to each prompt (Ahmadian et al. 2024: 2 or 4)."""
    objective: Literal["weighted", "penalised"] = "penalised"
    """r - beta KL, or the paper's (1 - beta) r - beta KL."""
    clip: float | None = Field(0.2, gt=0)
    """Clip the probability ratio of a response to [1 - clip, 1 + clip]; a single update a step clips nothing."""


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `rloo`."""
    yield Component("rloo", RlooConfig, "rlaif_plugins.algorithms.rloo.algorithm:Rloo")
