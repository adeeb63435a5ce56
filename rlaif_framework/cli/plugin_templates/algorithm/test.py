from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from rlaif_framework.testing import AlgorithmConformance

from rlaif_acme import GroupRankConfig
from rlaif_acme.group_rank import rank_groups


class TestGroupRank(AlgorithmConformance):
    component = "acme/group-rank"


def test_ranks_are_symmetric_and_ties_are_equal() -> None:
    totals = torch.tensor([[0.1, 5.0, 900.0], [2.0, 2.0, 1.0]])
    assert rank_groups(totals).tolist() == [[-1.0, 0.0, 1.0], [0.5, 0.5, -1.0]]


def test_a_single_response_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 2"):
        GroupRankConfig(responses_per_prompt=1)
