"""The KL of checkpoints, against plain forward passes and the exact KL."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from rlaif_framework import Prompt
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.rl import OnlineLearner
from rlaif_framework.rl.kl import sample_kl
from support.world import World

POSTS = ["POST: my dog ate it\n\nTL;DR:", "POST: a cat\n\nTL;DR:", "POST: she went home at noon\n\nTL;DR:"]


def make_learner(world: World, tokens: int) -> OnlineLearner:
    """Create a learner whose policy has moved away from the initial policy."""
    # A small budget, so that the responses are measured in several batches.
    stage = world.stage("run", max_new_tokens=tokens, train_tokens=64)
    config: Any = narrow("algorithm", {"kind": "rloo", "temperature": 0.8}, world.manager)
    learner = OnlineLearner(config, stage.context, stage, world.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in learner.policy_model.parameters():
            weights.add_(0.02 * torch.randn(weights.shape, generator=generator))
    return learner


@torch.no_grad()
def next_logprobs(model: Any, ids: list[int], temperature: float) -> torch.Tensor:
    """Return log-probabilities of the token after each one, (tokens, vocabulary)."""
    return torch.log_softmax(model(torch.tensor([ids])).logits[0].float() / temperature, -1)


def test_kl_is_the_log_ratio_of_the_sampled_tokens(world: World) -> None:
    learner = make_learner(world, tokens=6)
    prompts = [Prompt(str(i), text, text) for i, text in enumerate(POSTS)]
    found = sample_kl(learner, prompts, seed=3)
    assert learner.policy_model.training
    rollout = learner.roll_out(prompts, 1, 3)
    learner.policy_model.eval()
    for kl, group in zip(found, rollout.groups, strict=True):
        ids = [*group.prompt, *group.responses[0]]
        start = len(group.prompt)
        policy, reference = (next_logprobs(m, ids, 0.8) for m in (learner.policy_model, learner.reference))
        ratios = [float(policy[i - 1, ids[i]] - reference[i - 1, ids[i]]) for i in range(start, len(ids))]
        assert kl == pytest.approx(sum(ratios), abs=1e-4)


def test_kl_has_the_exact_kl_as_its_mean(world: World) -> None:
    learner = make_learner(world, tokens=1)
    prompt = Prompt("p", POSTS[0], POSTS[0])
    found = sample_kl(learner, [prompt] * 600, seed=0)
    learner.policy_model.eval()
    ids = list(learner.roll_out([prompt], 1, 0).groups[0].prompt)
    policy, reference = (next_logprobs(m, ids, 0.8)[-1] for m in (learner.policy_model, learner.reference))
    exact = float((policy.exp() * (policy - reference)).sum())
    assert exact > 0.01
    assert fmean(found) == pytest.approx(exact, abs=4 * stdev(found) / len(found) ** 0.5)
