from __future__ import annotations

from rlaif_framework import Prompt
from rlaif_framework.testing import RewardConformance

from rlaif_acme import VotingReward


class TestWordVotes(RewardConformance):
    component = "acme/word-votes"

    def test_every_word_counts_once(self) -> None:
        reward = VotingReward({"because": 1.5, "something": -2.0})
        prompt = Prompt("1", text="NOTE: a cat\n\nSUMMARY:", source="a cat")
        scores = reward.score([prompt] * 3, ["Because. Because!", "Something because of it", "else"])
        assert scores == [1.5, -0.5, 0.0]
