"""KL estimates, returns, advantages and surrogate losses, as functions of tensors.

Values per token are flat: all tokens of the first response, then all of the second, and so on; `response_index` holds
the response of each token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlaif_framework.rl.config import KlEstimator


def estimate_kl(logprobs: Tensor, reference: Tensor, estimator: KlEstimator) -> Tensor:
    """Estimate KL(policy || reference) per token, for tokens sampled from the policy (Schulman 2020).

    Args:
        logprobs: log pi(a) under the policy, any shape.
        reference: log pi_ref(a) of the same tokens.
        estimator: k1 = log pi - log pi_ref (unbiased, can be negative), k2 = k1^2 / 2 (biased, never negative, its
            gradient is that of the KL), k3 = exp(-k1) - 1 + k1 (unbiased, never negative).
    """
    k1 = logprobs - reference
    # expm1: near 0, exp(-k1) - 1 would lose digits.
    return {"k1": lambda: k1, "k2": lambda: k1**2 / 2, "k3": lambda: torch.expm1(-k1) + k1}[estimator]()


def sum_responses(values: Tensor, response_index: Tensor, responses: int) -> Tensor:
    """Sum values over the tokens of each response: (tokens,) to (responses,)."""
    return torch.zeros(responses, dtype=values.dtype, device=values.device).index_add(0, response_index, values)


def discount(rewards: Tensor, response_index: Tensor, factor: float) -> Tensor:
    """Compute discounted sums from each token to the end of its response: x_t + factor x_(t+1) + ...

    Args:
        rewards: (tokens,) x.
        response_index: (tokens,) response of each token, in order.
        factor: In [0, 1].

    Returns:
        (tokens,).
    """
    # In rows, so that a step of the recursion serves all responses at once.
    padded, flat = _to_rows(rewards, response_index)  # (responses, longest response)
    sums = torch.zeros_like(padded)
    running = torch.zeros_like(padded[:, 0])  # (responses,)
    for t in reversed(range(padded.shape[1])):
        running = padded[:, t] + factor * running
        sums[:, t] = running
    return sums[flat]


def gae(rewards: Tensor, values: Tensor, response_index: Tensor, gamma: float, lam: float) -> Tensor:
    """Estimate generalised advantages (Schulman et al. 2016, equation 16); the value after the last token is 0.

    Args:
        rewards: (tokens,) reward of each token.
        values: (tokens,) value of the state before each token.
        response_index: (tokens,) response of each token, in order.
        gamma: Discount.
        lam: Lambda: 1 is return minus value, 0 is the one-step temporal difference.

    Returns:
        (tokens,) advantages; advantages plus values are the returns that the value model learns.
    """
    following = torch.cat([values[1:], values.new_zeros(1)])  # (tokens,) V of the state after each token
    last = ends_response(response_index)
    errors = rewards + gamma * following.masked_fill(last, 0) - values
    return discount(errors, response_index, gamma * lam)


def delay_scores(
    rewards: Tensor, scores: Tensor, end_values: Tensor, response_index: Tensor, gamma: float, lam: float
) -> Tensor:
    """Move scores one step past the last token, as rewards for `gae` (Huang et al. 2024).

    The step after the last token has the temporal difference score - V_end. `gae` has one value per token, so its
    discounted share is added to the last token: the score becomes gamma (lam score + (1 - lam) V_end).

    Args:
        rewards: (tokens,) with the score at the last token of each response.
        scores: (responses,) those scores, in any shape.
        end_values: Value of the state after the last token, likewise.
        response_index: (tokens,) response of each token, in order.
        gamma: Discount.
        lam: Lambda.

    Returns:
        (tokens,).
    """
    scores, end_values = scores.flatten(), end_values.flatten()
    folded = rewards.clone()
    folded[ends_response(response_index)] += gamma * (lam * scores + (1 - lam) * end_values) - scores
    return folded


def ends_response(response_index: Tensor) -> Tensor:
    """Return True for the last token of each response, (tokens,) bool."""
    changes = response_index[1:] != response_index[:-1]
    return torch.cat([changes, changes.new_ones(1)])


def leave_one_out(scores: Tensor) -> Tensor:
    """Subtract from each score the mean of the others in its group (Ahmadian et al. 2024, equation 4).

    Args:
        scores: (prompts, responses per prompt), at least two responses each.

    Returns:
        (prompts, responses per prompt).
    """
    return scores - (scores.sum(1, keepdim=True) - scores) / (scores.shape[1] - 1)


def normalise_groups(scores: Tensor, scale: bool = True) -> Tensor:
    """Subtract the mean of each group and divide by its sample standard deviation (Shao et al. 2024, 4.1.2).

    Args:
        scores: (prompts, responses per prompt), at least two responses each.
        scale: If False, do not divide (Dr. GRPO, Liu et al. 2025).

    Returns:
        (prompts, responses per prompt).
    """
    centred = scores - scores.mean(1, keepdim=True)
    return centred / (scores.std(1, keepdim=True) + 1e-4) if scale else centred


def whiten(values: Tensor, mean: Tensor, variance: Tensor, shift: bool = True) -> Tensor:
    """Scale values to unit variance; their mean becomes 0, or without `shift` is unchanged (Huang et al. 2024)."""
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return white if shift else white + mean


def clipped_surrogate(log_ratios: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """Compute the clipped surrogate loss, -min(ratio A, clip(ratio) A) (Schulman et al. 2017, equation 7).

    Args:
        log_ratios: log pi - log pi_old, of tokens or of whole responses.
        advantages: The same shape.
        clip: The ratio is clipped to [1 - clip, 1 + clip]; None does not clip.
    """
    if clip is None:
        return -log_ratios.exp() * advantages
    # Clamped before the exponential: an overflowing ratio would have a gradient of NaN even where it is clipped.
    highest = torch.full_like(log_ratios, torch.inf).masked_fill(advantages > 0, math.log1p(clip))
    lowest = torch.full_like(log_ratios, -torch.inf)
    if clip < 1:  # otherwise the lower bound of the ratio is at most 0
        lowest = lowest.masked_fill(advantages < 0, math.log1p(-clip))
    return -log_ratios.clamp(lowest, highest).exp() * advantages


def clipped_fraction(log_ratios: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """Return 1 where clipping removes the gradient of a ratio and 0 elsewhere, in the same shape."""
    if clip is None:
        return torch.zeros_like(log_ratios)
    ratios = log_ratios.exp()
    return (((ratios > 1 + clip) & (advantages > 0)) | ((ratios < 1 - clip) & (advantages < 0))).float()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Compute the squared error of values: the larger of those with and without clipping (Huang et al. 2024).

    Args:
        values: (tokens,) current values.
        old: (tokens,) values when the responses were sampled.
        returns: (tokens,) target values.
        clip: Values are clipped to old +- clip; None does not clip.
    """
    errors = (values - returns) ** 2
    if clip is None:
        return errors
    # The larger error: clipping must not hide that a value is far from its return.
    return torch.maximum(errors, (old + (values - old).clamp(-clip, clip) - returns) ** 2)


def adapt_beta(beta: float, kl: float, target: float, responses: int, horizon: float) -> float:
    """Adapt the KL coefficient after a step (Ziegler et al. 2019, 2.2).

    Args:
        beta: The coefficient so far.
        kl: Mean KL of the step's responses, nats.
        target: Target KL, nats.
        responses: Responses in the step.
        horizon: Number of responses over which beta changes by the whole relative error.
    """
    # Clipped as in the paper, so that a single step cannot change beta much.
    error = min(0.2, max(-0.2, kl / target - 1))
    return beta * (1 + error * responses / horizon)


def replace_missing_eos(
    rewards: Tensor, finished: Tensor, penalty: float = 0.0, replacement: float | None = None
) -> Tensor:
    """Penalise or replace the rewards of responses without an end token.

    Args:
        rewards: (responses,).
        finished: (responses,) bool: True if the end token was sampled.
        penalty: Subtracted from the reward (TRL's `missing_eos_penalty`).
        replacement: Replaces the reward (Huang et al. 2024: -1).
    """
    if replacement is not None:
        return rewards.masked_fill(~finished, replacement)
    return rewards - penalty * (~finished).to(rewards.dtype)


def _to_rows(values: Tensor, response_index: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Arrange flat values as rows of responses padded with 0; also return the index of each value in them."""
    responses = int(response_index[-1]) + 1 if len(response_index) else 0
    counts = torch.bincount(response_index, minlength=responses)
    starts = counts.cumsum(0) - counts  # (responses,) index of each first token
    columns = torch.arange(len(values), device=values.device) - starts[response_index]
    rows = torch.zeros(responses, int(counts.max()) if responses else 0, dtype=values.dtype, device=values.device)
    rows[response_index, columns] = values
    return rows, (response_index, columns)
