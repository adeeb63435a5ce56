"""A2C: generalised advantages of a learned critic."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework import Experience, PolicyGradient, defer_scores, gae
from rlaif_plugins.a2c import A2cConfig


class A2c(PolicyGradient[A2cConfig]):
    """Policy gradient with generalised advantages; lambda 1, the default, is Monte Carlo returns less values."""

    def weigh(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Advantages, and advantages plus values as what the critic learns."""
        assert experience.values is not None
        config, ends = self.config, experience.end_values
        if ends is not None:
            rewards = defer_scores(rewards, experience.scores, ends, experience.owners, config.gamma, config.lam)
        advantages = gae(rewards, experience.values, experience.owners, config.gamma, config.lam)
        return advantages, advantages + experience.values
