"""GRPO: a response's reward relative to those of the other responses to its prompt."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework.rl import Experience, PolicyGradient, normalise_groups
from rlaif_plugins.algorithms.grpo import GrpoConfig


class Grpo(PolicyGradient[GrpoConfig]):
    """L = -min(ratio A, clip(ratio) A) + beta k3, averaged over the tokens of each response (equation 3)."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute the normalised reward of each response for all its tokens (4.1.2, outcome supervision)."""
        return experience.broadcast(normalise_groups(experience.totals(rewards), self.config.scale_groups)), None
