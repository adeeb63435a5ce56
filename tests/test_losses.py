"""The mathematics, against closed forms and plain float64 torch."""

from __future__ import annotations

import math

import pytest
import torch
from rlaif_plugins.reinforce.algorithm import leave_one_out_advantages, objective_returns, penalise_missing_eos

from rlaif_framework import Group, kl_estimates, pack_groups, selective_logprobs, soft_label_loss

CPU = torch.device("cpu")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_selective_logprobs_equal_log_softmax_with_gradient(temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(150, 40, dtype=torch.float64, requires_grad=True)  # more rows than one chunk
    targets, weights = torch.randint(0, 40, (150,)), torch.randn(150, dtype=torch.float64)
    ours = selective_logprobs(logits, targets, temperature)
    plain = (logits / temperature).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(ours, plain)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), logits)
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_selective_logprobs_survive_large_logits() -> None:
    values = selective_logprobs(torch.tensor([[1e4, 0.0], [0.0, 1e4]]), torch.tensor([0, 0]))
    assert values.tolist() == [0.0, -1e4]


def test_soft_label_loss_is_cross_entropy_of_the_two_rewards() -> None:
    rewards = torch.tensor([[0.3, -1.2], [2.0, 2.5], [-4.0, 4.0]])
    p = torch.tensor([0.7, 0.2, 0.5])
    expected = torch.nn.functional.cross_entropy(rewards, torch.stack([p, 1 - p], 1), reduction="none")
    torch.testing.assert_close(soft_label_loss(rewards[:, 0] - rewards[:, 1], p), expected)


def test_soft_label_loss_has_the_hard_label_loss_as_its_limit_and_never_overflows() -> None:
    margins = torch.tensor([3.0, -500.0, 500.0])
    hard = -torch.nn.functional.logsigmoid(margins)
    torch.testing.assert_close(soft_label_loss(margins, torch.ones(3)), hard)
    assert torch.isfinite(soft_label_loss(torch.tensor([1e30, -1e30]), torch.tensor([0.5, 0.5]))).all()
    assert soft_label_loss(torch.zeros(1), torch.tensor([0.3])).item() == pytest.approx(math.log(2))


def test_kl_estimates_average_to_the_exact_kl() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(6).double().log_softmax(0), torch.randn(6).double().log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    k1, k3 = kl_estimates(p, q)
    torch.testing.assert_close((p.exp() * k1).sum(), exact)  # expectation over all six outcomes
    torch.testing.assert_close((p.exp() * k3).sum(), exact)
    assert (k3 >= 0).all()


def test_returns_hold_the_reward_and_the_kl_still_to_come() -> None:
    packed = pack_groups([Group([5], [[1, 2, 3], [4]]), Group([6, 6], [[7, 8]])], 0, CPU)
    k1 = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    rewards = torch.tensor([1.0, 2.0, 3.0])
    beta = 0.25
    tails = [[0.6, 0.5, 0.3], [0.4], [1.1, 0.6]]  # sums of k1 from each token to its response's end
    expected = [(1 - beta) * r - beta * tail for r, own in zip([1.0, 2.0, 3.0], tails, strict=True) for tail in own]
    torch.testing.assert_close(objective_returns(rewards, k1, packed, beta), torch.tensor(expected))


def test_leave_one_out_advantages_equal_the_definition_written_out() -> None:
    packed = pack_groups([Group([5], [[1, 2], [3], [4]]), Group([6], [[7], [8, 9], [1]])], 0, CPU)
    k1 = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    rewards = torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]])
    beta = 0.2
    kls = [[0.3, 0.3, 0.4], [0.5, 1.3, 0.8]]
    gains = [[(1 - beta) * r - beta * k for r, k in zip(*row, strict=True)] for row in zip(rewards, kls, strict=True)]
    expected = [[g - (sum(row) - g) / 2 for g in row] for row in gains]
    tokens = [float(expected[o // 3][o % 3]) for o in [0, 0, 1, 2, 3, 4, 4, 5]]
    torch.testing.assert_close(leave_one_out_advantages(rewards, k1, packed, beta), torch.tensor(tokens))


def test_missing_eos_penalty_hits_only_unfinished_responses() -> None:
    assert penalise_missing_eos(torch.tensor([1.0, 1.0]), [True, False], 0.5).tolist() == [1.0, 0.5]
