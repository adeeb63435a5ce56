"""Compute advantages from ranks. `PolicyGradient` samples, scores, trains, logs and saves."""

from __future__ import annotations

from rlaif_framework.rl import Experience, PolicyGradient
from torch import Tensor

from rlaif_acme import GroupRankConfig


class GroupRank(PolicyGradient[GroupRankConfig]):
    """REINFORCE with ranks instead of rewards: their scale and outliers have no effect."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute the advantage of each token: that of its response."""
        totals = experience.totals(rewards)  # (prompts, responses)
        return experience.broadcast(self.config.top * rank_groups(totals)), None


def rank_groups(totals: Tensor) -> Tensor:
    """Rank values within rows, from -1 for the lowest to 1 for the highest; equal values have equal ranks.

    Args:
        totals: (prompts, responses) values, at least two in a row.

    Returns:
        (prompts, responses) ranks, whose sum over a row is 0.
    """
    differences = totals[:, :, None] - totals[:, None, :]  # (prompts, responses, responses)
    return differences.sign().sum(2) / (totals.shape[1] - 1)
