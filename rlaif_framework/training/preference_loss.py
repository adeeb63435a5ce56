"""The loss of preference labels, and their conversion to hard labels."""

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
    # `logsigmoid` does not overflow for any margin, as the logarithm of a sigmoid would.
    return -(probabilities * F.logsigmoid(margins) + (1 - probabilities) * F.logsigmoid(-margins))


def harden_labels(probabilities: Tensor) -> Tensor:
    """Round probabilities to 0 or 1; exact ties stay 0.5, and NaN (no label) stays NaN."""
    hard = (torch.sign(probabilities - 0.5) + 1) / 2
    return hard.where(~probabilities.isnan(), probabilities)  # the sign of NaN is 0, which would be a tie
