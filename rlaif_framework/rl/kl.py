"""Estimate the KL of the policy from the initial policy during training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.packing import split_by_tokens
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.rl.estimators import estimate_kl
from rlaif_framework.rl.learner import OnlineLearner


@torch.no_grad()
def sample_kl(learner: OnlineLearner, prompts: Sequence[Prompt], seed: int) -> list[float]:
    """Sample a response to each prompt at the temperature of training, and estimate the KL on it.

    The estimate is k1, summed over the tokens of a response: its mean over responses is unbiased. Only one process
    needs to call this.

    Args:
        learner: The policy and its reference.
        prompts: Prompts within the policy's length limit.
        seed: Seed of the samples.

    Returns:
        The estimate for each prompt in nats.
    """
    groups = learner.roll_out(prompts, 1, seed).groups
    policy = learner.policy_model  # not wrapped by Accelerate, whose forward pass may wait for other processes
    policy.eval()
    estimates = [0.0] * len(prompts)
    for part in split_by_tokens([group.length for group in groups], learner.context.policy.train_tokens):
        packed = learner.pack([groups[i] for i in part])
        with learner.autocast():
            logprobs = response_logprobs(policy, packed, learner.temperature)
        kl = estimate_kl(logprobs, learner.reference_logprobs(packed), "k1")  # (response tokens,)
        for i, total in zip(part, packed.per_response(kl).tolist(), strict=True):
            estimates[i] = total
    policy.train()
    return estimates
