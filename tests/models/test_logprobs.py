"""Log-probabilities and entropies of chosen tokens against the plain expressions."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_framework.models import selective_logprobs, token_entropies
from rlaif_framework.training import soft_label_loss


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


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_of_selective_logprobs(temperature: float) -> None:
    """Its backward pass is written by hand; differences in float64 know nothing of it. More rows than one chunk."""
    torch.manual_seed(0)
    logits = torch.randn(66, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 3, (66,))
    assert torch.autograd.gradcheck(lambda x: selective_logprobs(x, targets, temperature), logits)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_entropies_and_their_gradient_equal_float64(temperature: float) -> None:
    """-p (log p + H) / T each; certain and uniform rows included."""
    torch.manual_seed(0)
    rows = [*torch.randn(6, 5).tolist(), [0.0] * 5, [50.0, 0.0, 0.0, 0.0, 0.0]]
    logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    ours = token_entropies(logits, temperature)
    logprobs = (logits.detach() / temperature).log_softmax(1)
    entropies = -(logprobs.exp() * logprobs).sum(1)
    torch.testing.assert_close(ours.double(), entropies, rtol=1e-6, atol=1e-6)
    assert float(ours[6].detach()) == pytest.approx(math.log(5))
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    expected = -logprobs.exp() * (logprobs + entropies[:, None]) / temperature
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
