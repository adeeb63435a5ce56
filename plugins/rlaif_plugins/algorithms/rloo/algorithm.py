"""RLOO: a response's reward, KL included, minus the mean of the others to its prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif_framework.rl import (
    Experience,
    PolicyGradient,
    clipped_fraction,
    clipped_surrogate,
    leave_one_out,
    sum_responses,
)
from rlaif_plugins.algorithms.rloo import RlooConfig


class Rloo(PolicyGradient[RlooConfig]):
    """L = -min(ratio A, clip(ratio) A) with the probability ratio of the whole response."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute the leave-one-out advantage of each response for all its tokens (equation 4)."""
        return experience.broadcast(leave_one_out(experience.totals(rewards))), None

    def surrogate(self, log_ratios: Tensor, advantages: Tensor, response_index: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of each response, placed on its last token."""
        responses = int(response_index[-1]) + 1
        whole = sum_responses(log_ratios, response_index, responses)  # (responses,)
        last = torch.bincount(response_index, minlength=responses).cumsum(0) - 1  # (responses,) index of the last token
        # The sum over the tokens of a response is its loss; `average` is over responses by default.
        losses = torch.zeros_like(log_ratios).index_put(
            (last,), clipped_surrogate(whole, advantages[last], self.config.clip)
        )
        return losses, clipped_fraction(whole, advantages[last], self.config.clip)
