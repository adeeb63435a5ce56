"""The value model: a score at every token position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlaif_framework.models.packing import Packed
from rlaif_framework.models.score_model import ScoreModel


class ValueModel(nn.Module):
    """V(X_t): a score at every position, plus a level, set so that the first responses' values are right on average.

    A reward model's level is arbitrary. A value model that had to climb there first would, for as long as it took, push
    all responses the same way, good and bad alike.
    """

    def __init__(self, scores: ScoreModel) -> None:
        super().__init__()
        self.scores = scores
        self.level = nn.Parameter(torch.zeros((), device=next(scores.parameters()).device))

    def shift(self, by: Tensor) -> None:
        """Shift all values."""
        with torch.no_grad():
            self.level.add_(by)

    def forward(self, packed: Packed, ends: bool = False) -> Tensor:
        """Values of the states before each response token, and then after each response if `ends`; fp32, flat."""
        rows, columns = packed.rows, packed.columns
        if ends:
            rows, columns = torch.cat([rows, packed.ends[:, 0]]), torch.cat([columns, packed.ends[:, 1]])
        values: Tensor = self.scores(packed, rows, columns) + self.level
        return values
