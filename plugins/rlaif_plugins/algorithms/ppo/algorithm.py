"""PPO: generalised advantages; the shared update clips ratios and values."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework.rl import Experience, PolicyGradient
from rlaif_plugins.algorithms.ppo import PpoConfig


class Ppo(PolicyGradient[PpoConfig]):
    """L = -min(ratio A, clip(ratio) A) + weight max((V - R)^2, (clip(V) - R)^2), token by token."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute generalised advantages, and returns as their sum with the values before the update."""
        return experience.estimate_advantages(rewards, self.config.gamma, self.config.lam)
