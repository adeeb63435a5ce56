"""Proximal policy optimisation (Schulman et al. 2017), with the defaults of Huang et al. 2024."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import GaeConfig


class PpoConfig(GaeConfig):
    """Several clipped policy and value updates from each batch of responses, with generalised advantages."""

    kind: Literal["ppo"] = "ppo"
    epochs: int = Field(4, ge=1)
    """Passes over the responses of a step (Huang et al. 2024: 4)."""
    objective: Literal["weighted", "penalised"] = "penalised"
    """r - beta KL (Stiennon et al. 2020), or the paper's (1 - beta) r - beta KL."""
    clip: float | None = Field(0.2, gt=0)
    """Clip the probability ratio to [1 - clip, 1 + clip] (Huang et al. 2024: 0.2)."""
    value_clip: float | None = Field(0.2, gt=0)
    """Clip the change of a value since sampling to this (Huang et al. 2024: 0.2)."""
    value_weight: float = Field(0.05, ge=0)
    """Weight of the squared error of values (Huang et al. 2024: 0.1, of half of it)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation (Huang et al. 2024: 0.95)."""
    whiten_advantages: bool = True
    """Shift and scale the advantages of a step's tokens to mean 0 and standard deviation 1 (Huang et al. 2024)."""
    average: Literal["responses", "response-tokens", "tokens"] = "tokens"
    """Reduction of token losses; see PolicyGradientConfig (Huang et al. 2024: over all tokens)."""


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `ppo`."""
    yield Component("ppo", PpoConfig, "rlaif_plugins.algorithms.ppo.algorithm:Ppo")
