"""Direct preference optimisation (Rafailov et al. 2023), on soft or hard labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import LearnerConfig


class DpoConfig(LearnerConfig):
    """Train the policy directly on the arm's labelled comparisons: no reward, no sampling."""

    kind: Literal["dpo"] = "dpo"
    labels: Literal["soft", "hard"] = "soft"
    """Train on the labeler's probabilities (cross-entropy), or on the preferred response alone."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed probability e that a label is flipped (conservative DPO, Mitchell 2023); p becomes
    (1 - e) p + e (1 - p)."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the comparisons (Huang et al. 2024: 1)."""
    batch_size: int = Field(16, ge=1)
    """Comparisons per update (Huang et al. 2024: 64), on average: those of one prompt stay together."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning-rate schedule after the warm-up: constant, or decay to zero."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Those of sampling."""
        return frozenset({"max_new_tokens", "batch_tokens"})

    @property
    def needs_reward(self) -> bool:
        """Always False."""
        return False

    @property
    def needs_preferences(self) -> bool:
        """Always True."""
        return True


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `dpo`."""
    yield Component("dpo", DpoConfig, "rlaif_plugins.algorithms.dpo.algorithm:Dpo")
