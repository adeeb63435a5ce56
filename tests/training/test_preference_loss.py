"""The mathematics, against closed forms and plain float64 torch."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_framework.training import soft_label_loss


def test_soft_label_loss_has_the_hard_label_loss_as_its_limit_and_never_overflows() -> None:
    margins = torch.tensor([3.0, -500.0, 500.0])
    hard = -torch.nn.functional.logsigmoid(margins)
    torch.testing.assert_close(soft_label_loss(margins, torch.ones(3)), hard)
    assert torch.isfinite(soft_label_loss(torch.tensor([1e30, -1e30]), torch.tensor([0.5, 0.5]))).all()
    assert soft_label_loss(torch.zeros(1), torch.tensor([0.3])).item() == pytest.approx(math.log(2))


def test_soft_label_loss_has_the_closed_forms_gradient() -> None:
    """s(d) - p, which is computed in fp32 whatever comes in."""
    margins = torch.tensor([-30.0, -2.0, -0.1, 0.0, 0.4, 3.0, 30.0], dtype=torch.float64, requires_grad=True)
    for p in (0.0, 0.3, 0.5, 1.0):
        probabilities = torch.full((7,), p, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(soft_label_loss(margins, probabilities).sum(), margins)
        expected = torch.sigmoid(margins.detach()) - p
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)
