"""A2C: generalised advantages of a learned critic."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework.rl import Experience, PolicyGradient
from rlaif_plugins.algorithms.a2c import A2cConfig


class A2c(PolicyGradient[A2cConfig]):
    """Policy gradient with generalised advantages; with lambda 1, the default, they are returns minus values."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute generalised advantages, and returns as their sum with the values."""
        return experience.estimate_advantages(rewards, self.config.gamma, self.config.lam)
