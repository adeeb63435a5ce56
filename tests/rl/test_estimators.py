"""KL estimates, returns, advantages and clipping, against brute force in float64."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_framework.rl import (
    clipped_fraction,
    clipped_surrogate,
    discount,
    estimate_kl,
    gae,
    leave_one_out,
    normalise_groups,
    sum_responses,
)
from rlaif_framework.rl.config import KlEstimator
from rlaif_framework.rl.estimators import adapt_beta, ends_response, replace_missing_eos, value_loss, whiten

OWNERS = torch.tensor([0, 0, 0, 1, 2, 2])
torch.manual_seed(0)
REWARDS = torch.randn(6, dtype=torch.float64)
VALUES = torch.randn(6, dtype=torch.float64)
RESPONSES = [[0, 1, 2], [3], [4, 5]]


def test_kl_estimators_have_the_right_expectations() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(6).double().log_softmax(0), torch.randn(6).double().log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    for name in ("k1", "k3"):  # expectation over all six outcomes
        torch.testing.assert_close((p.exp() * estimate_kl(p, q, name)).sum(), exact)
    torch.testing.assert_close((p.exp() * estimate_kl(p, q, "k2")).sum(), (p.exp() * (p - q) ** 2 / 2).sum())
    assert (estimate_kl(p, q, "k2") >= 0).all()
    assert (estimate_kl(p, q, "k3") >= 0).all()
    assert (estimate_kl(p, q, "k1") < 0).any()
    assert (estimate_kl(p, p, "k3") == 0).all()


def test_the_gradient_of_k2_is_that_of_the_kl_and_k1_has_none_on_average() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    q = torch.randn(6).double().log_softmax(0)

    def gradient(of: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of, logits)[0]

    p = logits.log_softmax(0)
    exact = gradient((p.exp() * (p - q)).sum())
    p = logits.log_softmax(0)
    sampled = p.detach().exp()  # samples are weighed, not differentiated through
    torch.testing.assert_close(gradient((sampled * estimate_kl(p, q, "k2")).sum()), exact)
    p = logits.log_softmax(0)
    torch.testing.assert_close(gradient((sampled * estimate_kl(p, q, "k1")).sum()), torch.zeros(6).double())


def test_sums_and_ends_of_responses() -> None:
    torch.testing.assert_close(
        sum_responses(REWARDS, OWNERS, 3), torch.stack([REWARDS[:3].sum(), REWARDS[3], REWARDS[4:].sum()])
    )
    assert ends_response(OWNERS).tolist() == [False, False, True, True, False, True]


@pytest.mark.parametrize("factor", [1.0, 0.9, 0.0])
def test_discounted_returns_equal_the_sum_written_out(factor: float) -> None:
    expected = [
        sum(factor ** (later - t) * float(REWARDS[later]) for later in own if later >= t)
        for own in RESPONSES
        for t in own
    ]
    torch.testing.assert_close(discount(REWARDS, OWNERS, factor), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_gae_equals_its_weighted_sum_of_k_step_advantages(gamma: float, lam: float) -> None:
    expected = []
    for own in RESPONSES:
        for t in own:
            total, rest = 0.0, [x for x in own if x >= t]
            for k, place in enumerate(rest):
                following = float(VALUES[rest[k + 1]]) if k + 1 < len(rest) else 0.0
                total += (gamma * lam) ** k * (float(REWARDS[place]) + gamma * following - float(VALUES[place]))
            expected.append(total)
    torch.testing.assert_close(gae(REWARDS, VALUES, OWNERS, gamma, lam), torch.tensor(expected, dtype=torch.float64))


def test_gae_with_lambda_1_is_the_return_less_the_value() -> None:
    torch.testing.assert_close(gae(REWARDS, VALUES, OWNERS, 1.0, 1.0), discount(REWARDS, OWNERS, 1.0) - VALUES)


def test_leave_one_out_and_group_normalisation_equal_their_definitions() -> None:
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [[1 - 4.0, 2 - 3.5, 6 - 1.5], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(leave_one_out(scores), torch.tensor(expected, dtype=torch.float64))
    deviation = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2) + 1e-4
    expected = [[-2 / deviation, -1 / deviation, 3 / deviation], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(normalise_groups(scores), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(normalise_groups(scores, scale=False)[0], torch.tensor([-2.0, -1, 3]).double())


def test_whitening_has_unit_variance_and_keeps_the_mean_if_told() -> None:
    mean, variance = REWARDS.mean(), REWARDS.var()
    white = whiten(REWARDS, mean, variance)
    assert float(white.mean()) == pytest.approx(0, abs=1e-7)
    assert float(white.var()) == pytest.approx(1, abs=1e-6)
    kept = whiten(REWARDS, mean, variance, shift=False)
    assert float(kept.mean()) == pytest.approx(float(mean), abs=1e-7)
    assert float(kept.var()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "flows"),
    [
        (1.0, 2.0, -2.0, True),  # nothing has changed
        (1.5, 2.0, -2.4, False),  # better, and already likelier: clipped from above
        (0.5, 2.0, -1.0, True),  # better, and less likely: free to come back
        (0.5, -2.0, 1.6, False),  # worse, and already less likely: clipped from below
        (1.5, -2.0, 3.0, True),  # worse, and likelier: free to come back
    ],
)
def test_the_surrogate_is_clipped_on_both_sides(ratio: float, advantage: float, loss: float, flows: bool) -> None:
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    value = clipped_surrogate(log_ratio, advantages, 0.2)
    assert float(value.detach()) == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(value.sum(), log_ratio)
    assert (float(gradient) != 0) == flows
    assert float(clipped_fraction(log_ratio.detach(), advantages, 0.2)) == float(not flows)
    assert float(clipped_surrogate(log_ratio, advantages, None).detach()) == pytest.approx(-ratio * advantage)
    assert float(clipped_fraction(log_ratio.detach(), advantages, None)) == 0


def test_at_ratio_1_the_surrogate_has_the_gradient_of_the_policy_gradient() -> None:
    logprobs = torch.randn(6, dtype=torch.float64, requires_grad=True)
    (clipped,) = torch.autograd.grad(clipped_surrogate(logprobs - logprobs.detach(), REWARDS, 0.2).sum(), logprobs)
    (plain,) = torch.autograd.grad(-(logprobs * REWARDS).sum(), logprobs)
    torch.testing.assert_close(clipped, plain)


def test_value_loss_takes_the_larger_of_the_two_errors() -> None:
    values, old, returns = (torch.tensor([x]).double() for x in ([1.0, 1.0], [0.0, 0.0], [2.0, 0.0]))
    assert value_loss(values, old, returns, None).tolist() == [[1.0, 1.0]]
    torch.testing.assert_close(value_loss(values, old, returns, 0.2), torch.tensor([[1.8**2, 1.0]]).double())


def test_adaptive_beta_follows_the_kl_and_is_bounded() -> None:
    assert adapt_beta(0.1, 6.0, 6.0, 100, 1000) == pytest.approx(0.1)
    assert adapt_beta(0.1, 60.0, 6.0, 100, 1000) == pytest.approx(0.1 * (1 + 0.2 * 0.1))  # the error is cut at 0.2
    assert adapt_beta(0.1, 0.0, 6.0, 100, 1000) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
    assert adapt_beta(0.1, 6.6, 6.0, 100, 1000) == pytest.approx(0.1 * (1 + 0.1 * 0.1))


def test_a_missing_end_token_costs_or_replaces_the_reward() -> None:
    rewards, finished = torch.tensor([1.0, 1.0]), torch.tensor([True, False])
    assert replace_missing_eos(rewards, finished, 0.5).tolist() == [1.0, 0.5]
    assert replace_missing_eos(rewards, finished, replacement=-1.0).tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("value", "target", "loss", "flows"),
    [
        (0.1, 2.0, 1.9**2, True),  # moved by less than the clip: as if there were none
        (1.0, 2.0, 1.8**2, False),  # towards the return and far enough: what is left of the clipped way counts
        (1.0, 0.0, 1.0, True),  # past the return, upwards: free to come back
        (-1.0, -2.0, 1.8**2, False),
        (-1.0, 0.0, 1.0, True),
        (-1.0, 2.0, 9.0, True),  # away from the return: the whole error
    ],
)
def test_values_are_clipped_on_both_sides(value: float, target: float, loss: float, flows: bool) -> None:
    now = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    old, returns = torch.zeros(1).double(), torch.tensor([target], dtype=torch.float64)
    result = value_loss(now, old, returns, 0.2)
    assert result.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(result.sum(), now)
    assert gradient.item() == pytest.approx(2 * (value - target) if flows else 0.0)


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_gradients_of_kl_estimates(name: KlEstimator) -> None:
    logprobs = torch.randn(8, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: estimate_kl(x, reference, name), logprobs)


def test_k3_is_its_closed_form_also_where_it_nearly_vanishes() -> None:
    """exp(-x) - 1 + x loses all its digits near 0: x^2 / 2 - x^3 / 6 does not."""
    large = torch.tensor([-3.0, -0.5, 0.7, 4.0], dtype=torch.float64)
    expected = torch.tensor([math.exp(-x) - 1 + x for x in large.tolist()], dtype=torch.float64)
    torch.testing.assert_close(estimate_kl(large, torch.zeros(4).double(), "k3"), expected)
    small = torch.tensor([1e-5, -1e-5], dtype=torch.float64)
    torch.testing.assert_close(
        estimate_kl(small, torch.zeros(2).double(), "k3"), small**2 / 2 - small**3 / 6, rtol=1e-5, atol=0.0
    )


@pytest.mark.parametrize("clip", [0.2, None])
def test_gradients_of_surrogates_and_value_losses(clip: float | None) -> None:
    log_ratios = torch.tensor([0.0, 0.1, -0.1, 0.6, 0.6, -0.6, -0.6], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.5, 0.7, -0.7], dtype=torch.float64)  # no ratio at a kink
    assert torch.autograd.gradcheck(lambda x: clipped_surrogate(x, advantages, clip), log_ratios)
    values = torch.tensor([0.1, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    returns = torch.tensor([2.0, 2.0, -2.0, 0.3, 0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: value_loss(x, torch.zeros(5).double(), returns, clip), values)


def test_gradients_of_returns_and_advantages() -> None:
    rewards, values = REWARDS.clone().requires_grad_(), VALUES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: discount(x, OWNERS, 0.9), rewards)
    assert torch.autograd.gradcheck(lambda x, v: gae(x, v, OWNERS, 0.9, 0.8), (rewards, values))
    scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(leave_one_out, scores)
    assert torch.autograd.gradcheck(normalise_groups, scores)


def test_weighed_by_the_ratio_k3_has_value_and_gradient_of_the_kl_away_from_the_samples() -> None:
    """Samples of an older policy, weighed by pi / pi_old, say what the KL of the policy is now, and where it falls."""
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    old, q = (torch.randn(6).double().log_softmax(0) for _ in range(2))

    def expect(correction: bool) -> torch.Tensor:
        p = logits.log_softmax(0)
        ratio = (p - old).exp() if correction else 1.0
        return (old.exp() * ratio * estimate_kl(p, q, "k3")).sum()

    p = logits.log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    torch.testing.assert_close(expect(True), exact)
    (gradient,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(torch.autograd.grad(expect(True), logits)[0], gradient)
    assert not torch.allclose(torch.autograd.grad(expect(False), logits)[0], gradient, atol=0.05)
