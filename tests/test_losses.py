"""The mathematics, against closed forms and plain float64 torch."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_framework import selective_logprobs, soft_label_loss, token_entropies


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


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_entropies_equal_the_definition_with_gradient(temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(150, 12, requires_grad=True)  # more rows than one chunk
    ours = token_entropies(logits, temperature)
    plain = torch.distributions.Categorical(logits=logits / temperature).entropy()
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(150)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), logits)
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected)
