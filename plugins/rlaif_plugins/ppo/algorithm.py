"""PPO: generalised advantages; the shared update clips ratios and values."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework import Experience, PolicyGradient, defer_scores, gae
from rlaif_plugins.ppo import PpoConfig


class Ppo(PolicyGradient[PpoConfig]):
    """L = -min(ratio A, clip(ratio) A) + weight max((V - R)^2, (clip(V) - R)^2), token by token."""

    def weigh(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Generalised advantages; returns are advantages plus the values before the update."""
        assert experience.values is not None
        config, ends = self.config, experience.end_values
        if ends is not None:
            rewards = defer_scores(rewards, experience.scores, ends, experience.owners, config.gamma, config.lam)
        advantages = gae(rewards, experience.values, experience.owners, config.gamma, config.lam)
        return advantages, advantages + experience.values
