"""The loss on preference labels, and hard labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_label_loss(margins: Tensor, probabilities: Tensor) -> Tensor:
    """Compute the cross-entropy between soft labels and the softmax over two rewards (RLAIF A.2).

    Args:
        margins: (pairs,) r(x, y1) - r(x, y2).
        probabilities: (pairs,) label probability that y1 is better, in [0, 1]; 0 and 1 give the hard-label loss.

    Returns:
        (pairs,) -[p log s(d) + (1 - p) log s(-d)].
    """
    margins, probabilities = margins.float(), probabilities.float()
    # Log-sigmoids do not overflow, whatever the margin.
    return -(probabilities * F.logsigmoid(margins) + (1 - probabilities) * F.logsigmoid(-margins))


def harden_labels(probabilities: Tensor) -> Tensor:
    """Replace probabilities by the preferred response: 1, 0, or 0.5 for an exact tie; NaN (no label) is unchanged."""
    hard = (torch.sign(probabilities - 0.5) + 1) / 2
    return hard.where(~probabilities.isnan(), probabilities)  # the sign of NaN is 0, which would be a tie
