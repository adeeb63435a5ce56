"""REINFORCE: the return of each token minus a baseline (RLAIF F)."""

from __future__ import annotations

from torch import Tensor

from rlaif_framework.rl import Experience, PolicyGradient, discount, leave_one_out
from rlaif_plugins.algorithms.reinforce import ReinforceConfig


class Reinforce(PolicyGradient[ReinforceConfig]):
    """L_PG = - sum_t log pi(A_t | X_t) (Z_t - V(X_t)); the value model learns Z_t, the return from token t on."""

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute returns minus values or, with `leave-one-out`, rewards of responses minus the mean of the others."""
        if experience.values is None:
            return experience.broadcast(leave_one_out(experience.totals(rewards))), None
        returns = discount(rewards, experience.response_index, self.config.gamma)
        return returns - experience.values, returns
