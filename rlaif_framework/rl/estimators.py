"""KL estimates, returns, advantages and surrogate losses: each a function of tensors, tested against brute force.

Values per token are flat: all tokens of the first response, then all of the second, and so on; `response_index` tells whose
each is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlaif_framework.rl.config import KlEstimator


def estimate_kl(logprobs: Tensor, reference: Tensor, estimator: KlEstimator) -> Tensor:
    """Per-token estimate of KL(policy || reference) for tokens sampled from the policy (Schulman 2020).

    Args:
        logprobs: log pi(a) under the policy, any shape.
        reference: log pi_ref(a) of the same tokens.
        estimator: k1 = log pi - log pi_ref (unbiased, can be negative), k2 = k1^2 / 2 (biased, never negative, its
            gradient is that of the KL), k3 = exp(-k1) - 1 + k1 (unbiased, never negative).
    """
    k1 = logprobs - reference
    return {"k1": lambda: k1, "k2": lambda: k1**2 / 2, "k3": lambda: torch.expm1(-k1) + k1}[estimator]()


def sum_responses(values: Tensor, response_index: Tensor, responses: int) -> Tensor:
    """Sums over each response's tokens: (tokens,) to (responses,)."""
    return torch.zeros(responses, dtype=values.dtype, device=values.device).index_add(0, response_index, values)


def discount(rewards: Tensor, response_index: Tensor, factor: float) -> Tensor:
    """Discounted sums from each token to the end of its response: x_t + factor x_(t+1) + ...

    Args:
        rewards: (tokens,) x.
        response_index: (tokens,) response of each token, in order.
        factor: In [0, 1].

    Returns:
        (tokens,).
    """
    padded, places = _to_rows(rewards, response_index)
    sums = torch.zeros_like(padded)
    running = torch.zeros_like(padded[:, 0])
    for t in reversed(range(padded.shape[1])):
        running = padded[:, t] + factor * running
        sums[:, t] = running
    return sums[places]


def gae(rewards: Tensor, values: Tensor, response_index: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16); after the last token the value is 0.

    Args:
        rewards: (tokens,) reward of each token.
        values: (tokens,) value of the state before each token.
        response_index: (tokens,) response of each token, in order.
        gamma: Discount.
        lam: Lambda: 1 gives return less value, 0 the one-step temporal difference.

    Returns:
        (tokens,) advantages; advantages + values are the returns the value model learns.
    """
    following = torch.cat([values[1:], values.new_zeros(1)])
    last = ends_response(response_index)
    errors = rewards + gamma * following.masked_fill(last, 0) - values
    return discount(errors, response_index, gamma * lam)


def delay_scores(
    rewards: Tensor, scores: Tensor, end_values: Tensor, response_index: Tensor, gamma: float, lam: float
) -> Tensor:
    """Rewards for `gae` where the score comes one step after the last token (Huang et al. 2024).

    The step after the last token has the temporal difference score - V_end; folded into the last token's, the score
    becomes gamma (lam score + (1 - lam) V_end), which keeps values and advantages one a token.

    Args:
        rewards: (tokens,) with the score at the last token of each response.
        scores: (responses,) in any shape: these scores.
        end_values: As `scores`: value of the state after the last token.
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
    """Whether a token is the last of its response, (tokens,) bool."""
    changes = response_index[1:] != response_index[:-1]
    return torch.cat([changes, changes.new_ones(1)])


def leave_one_out(scores: Tensor) -> Tensor:
    """Scores less the mean of the others of their group (Ahmadian et al. 2024, equation 4).

    Args:
        scores: (prompts, responses per prompt), at least two responses each.

    Returns:
        (prompts, responses per prompt).
    """
    return scores - (scores.sum(1, keepdim=True) - scores) / (scores.shape[1] - 1)


def normalise_groups(scores: Tensor, scale: bool = True) -> Tensor:
    """Scores less the mean of their group, divided by its (sample) standard deviation (Shao et al. 2024, 4.1.2).

    Args:
        scores: (prompts, responses per prompt), at least two responses each.
        scale: Divide; without it, as Liu et al. 2025 (Dr. GRPO).

    Returns:
        (prompts, responses per prompt).
    """
    centred = scores - scores.mean(1, keepdim=True)
    return centred / (scores.std(1, keepdim=True) + 1e-4) if scale else centred


def whiten(values: Tensor, mean: Tensor, variance: Tensor, shift: bool = True) -> Tensor:
    """Scale values to unit variance; their mean becomes 0, or stays as it was without `shift` (Huang et al. 2024)."""
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return white if shift else white + mean


def clipped_surrogate(log_ratios: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """Loss of the clipped probability ratio, -min(ratio A, clip(ratio) A) (Schulman et al. 2017, equation 7).

    Args:
        log_ratios: log pi - log pi_old, of tokens or of whole responses.
        advantages: The same shape.
        clip: The ratio is clipped to [1 - clip, 1 + clip]; None does not clip.
    """
    if clip is None:
        return -log_ratios.exp() * advantages
    # Bounded before the exponential: a ratio that overflows would leave NaN as the gradient of what the minimum drops.
    highest = torch.full_like(log_ratios, torch.inf).masked_fill(advantages > 0, math.log1p(clip))
    lowest = torch.full_like(log_ratios, -torch.inf)
    if clip < 1:
        lowest = lowest.masked_fill(advantages < 0, math.log1p(-clip))
    return -log_ratios.clamp(lowest, highest).exp() * advantages


def clipped_fraction(log_ratios: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """Whether clipping takes the gradient of a token away, as 0 or 1; the same shape."""
    if clip is None:
        return torch.zeros_like(log_ratios)
    ratios = log_ratios.exp()
    return (((ratios > 1 + clip) & (advantages > 0)) | ((ratios < 1 - clip) & (advantages < 0))).float()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Squared error of values, the larger one of the value itself and its clipped change (Huang et al. 2024).

    Args:
        values: (tokens,) now.
        old: (tokens,) when the responses were sampled.
        returns: (tokens,) what they should be.
        clip: Values are clipped to old +- clip; None does not clip.
    """
    errors = (values - returns) ** 2
    if clip is None:
        return errors
    return torch.maximum(errors, (old + (values - old).clamp(-clip, clip) - returns) ** 2)


def adapt_beta(beta: float, kl: float, target: float, responses: int, horizon: float) -> float:
    """The adaptive KL coefficient after a step (Ziegler et al. 2019, 2.2).

    Args:
        beta: The coefficient so far.
        kl: Mean KL of the step's responses, nats.
        target: Wanted KL, nats.
        responses: Responses in the step.
        horizon: Responses over which a full error changes beta by its own size.
    """
    error = min(0.2, max(-0.2, kl / target - 1))
    return beta * (1 + error * responses / horizon)


def replace_missing_eos(
    rewards: Tensor, finished: Tensor, penalty: float = 0.0, replacement: float | None = None
) -> Tensor:
    """Rewards of responses of which some have no end token: less a penalty, or replaced.

    Args:
        rewards: (responses,).
        finished: (responses,) bool: the end token was reached.
        penalty: Taken off (TRL's meaning of "missing EOS penalty").
        replacement: Takes the place of the reward (Huang et al. 2024: -1).
    """
    if replacement is not None:
        return rewards.masked_fill(~finished, replacement)
    return rewards - penalty * (~finished).to(rewards.dtype)


def _to_rows(values: Tensor, response_index: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Flat values as rows of responses padded with 0, and where each value is."""
    responses = int(response_index[-1]) + 1 if len(response_index) else 0
    counts = torch.bincount(response_index, minlength=responses)
    starts = counts.cumsum(0) - counts
    columns = torch.arange(len(values), device=values.device) - starts[response_index]
    rows = torch.zeros(responses, int(counts.max()) if responses else 0, dtype=values.dtype, device=values.device)
    rows[response_index, columns] = values
    return rows, (response_index, columns)
