"""Sampled responses as tensors, and the targets that an update is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif_framework.errors import TrainingError
from rlaif_framework.models.packing import Packed
from rlaif_framework.rl.estimators import delay_scores, gae, sum_responses
from rlaif_framework.rl.rollouts import Rollout


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Some prompts of a rollout, whose responses are computed in one pass."""

    prompts: list[int]
    """Indices of the prompts in the rollout."""
    responses: Tensor
    """(responses,) indices of their responses in the rollout."""
    tokens: Tensor
    """(tokens,) indices of their response tokens in the rollout."""
    packed: Packed
    """Model inputs."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Outputs of the policy and the value model for a microbatch."""

    logprobs: Tensor
    """(tokens,) log-probabilities of the response tokens."""
    entropies: Tensor | None
    """(tokens,) entropies of the next-token distributions; None without an entropy bonus."""
    values: Tensor | None
    """(tokens,) or, with `end_value`, (tokens + responses,) values of states; None without a value model."""


@dataclass(frozen=True, slots=True)
class Experience:
    """Responses to some prompts as they were sampled; flat over their tokens, except for values of each response."""

    scores: Tensor
    """(prompts, responses per prompt) reward of each response after scaling, penalties and weighting."""
    response_index: Tensor
    """(tokens,) response of each token."""
    logprobs: Tensor
    """(tokens,) log pi_old: under the policy that sampled them."""
    reference: Tensor
    """(tokens,) log pi_ref: under the initial policy."""
    values: Tensor | None
    """(tokens,) V(X_t) of the state before each token; None without a value model."""
    end_values: Tensor | None = None
    """(prompts, responses per prompt) V of the state after each response; None without `end_value`."""

    @classmethod
    def join(cls, parts: Sequence[Experience], rollout: Rollout, order: Sequence[int]) -> Experience:
        """Join the experience of microbatches into that of a whole rollout, in the rollout's order.

        Args:
            parts: Experience of each microbatch.
            rollout: The rollout.
            order: Indices of the rollout's prompts, in the order of the parts.
        """
        device = parts[0].scores.device
        # The argsort of a permutation is its inverse.
        prompts = torch.tensor(order, device=device).argsort()
        tokens = rollout.tokens_of(order).to(device).argsort()
        return cls(
            torch.cat([part.scores for part in parts])[prompts],
            rollout.response_index.to(device),
            torch.cat([part.logprobs for part in parts])[tokens],
            torch.cat([part.reference for part in parts])[tokens],
            _join([part.values for part in parts], tokens),
            _join([part.end_values for part in parts], prompts),
        )

    def totals(self, rewards: Tensor) -> Tensor:
        """Sum token rewards over responses: (tokens,) to (prompts, responses per prompt)."""
        return sum_responses(rewards, self.response_index, self.scores.numel()).view_as(self.scores)

    def broadcast(self, values: Tensor) -> Tensor:
        """Repeat the value of each response for its tokens: (prompts, responses per prompt) to (tokens,)."""
        return values.flatten()[self.response_index]

    def estimate_advantages(self, rewards: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
        """Estimate generalised advantages, and the returns that the value model learns.

        Args:
            rewards: (tokens,) reward of each token, with the score at the last one.
            gamma: Discount.
            lam: Lambda.

        Returns:
            (tokens,) each.

        Raises:
            TrainingError: There is no value model.
        """
        if self.values is None:
            raise TrainingError("generalised advantages need a value model; derive the config from ValueConfig")
        if self.end_values is not None:
            rewards = delay_scores(rewards, self.scores, self.end_values, self.response_index, gamma, lam)
        advantages = gae(rewards, self.values, self.response_index, gamma, lam)
        return advantages, advantages + self.values


@dataclass(frozen=True, slots=True)
class ValueTargets:
    """Targets of a value model, (tokens,) or, with `end_value`, (tokens + responses,) like `Predictions.values`."""

    old: Tensor
    """Values before the update."""
    returns: Tensor
    """Values to learn: the returns of tokens, and of final states the scores."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of an update, flat over tokens like the experience that they are computed from."""

    advantages: Tensor
    """(tokens,)."""
    logprobs: Tensor
    """(tokens,) log pi_old."""
    reference: Tensor
    """(tokens,) log pi_ref."""
    values: ValueTargets | None
    """Targets of the value model; None without one."""

    def select(self, batch: Microbatch) -> Targets:
        """Return the targets of a microbatch."""
        tokens, values = batch.tokens, self.values
        if values is not None:
            total = len(self.advantages)  # final states, if they have values, come after all tokens
            states = tokens if len(values.old) == total else torch.cat([tokens, total + batch.responses])
            values = ValueTargets(values.old[states], values.returns[states])
        return Targets(self.advantages[tokens], self.logprobs[tokens], self.reference[tokens], values)


def _join(pieces: Sequence[Tensor | None], order: Tensor) -> Tensor | None:
    """Concatenate and reorder tensors; None if all of them are None."""
    present = [piece for piece in pieces if piece is not None]
    return torch.cat(present)[order] if present else None
