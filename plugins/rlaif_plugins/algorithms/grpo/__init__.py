"""Group relative policy optimisation (Shao et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import PolicyGradientConfig


class GrpoConfig(PolicyGradientConfig):
    """Rewards normalised within the responses to a prompt, token ratios clipped, KL as a term of the loss."""

    kind: Literal["grpo"] = "grpo"
    responses_per_prompt: int = Field(4, ge=2)
    """Responses sampled to each prompt (Shao et al. 2024: 64)."""
    scale_groups: bool = True
    """Divide by the standard deviation of a prompt's rewards. Without it, prompts whose responses hardly differ in
    reward have less weight (Liu et al. 2025, Dr. GRPO)."""
    objective: Literal["weighted", "penalised"] = "penalised"
    """r - beta KL, or the (1 - beta) r - beta KL of RLAIF; `scale_groups` cancels the factor of r."""
    kl: Literal["reward", "loss"] = "loss"
    """Place of the KL term (Shao et al. 2024: the loss)."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of a token's KL (Shao et al. 2024: k3)."""
    clip: float | None = Field(0.2, gt=0)
    """Clip the probability ratio of a token to [1 - clip, 1 + clip]; a single update a step clips nothing."""
    average: Literal["responses", "response-tokens", "tokens"] = "response-tokens"
    """Reduction of token losses; see PolicyGradientConfig (Shao et al. 2024: over a response's tokens, then over
    responses; DAPO: over all tokens)."""


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `grpo`."""
    yield Component("grpo", GrpoConfig, "rlaif_plugins.algorithms.grpo.algorithm:Grpo")
