"""The reward `acme/word-votes`: learns which words preferred responses have."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from rlaif_framework import (
    MODEL_FREE,
    Component,
    Context,
    LabelledComparison,
    Prompt,
    Reward,
    RewardConfig,
    Stage,
    hookimpl,
)

FILE = "words.json"


class WordVotesConfig(RewardConfig):
    """Add up the votes of words: how much more often they are in preferred responses than in the others."""

    kind: Literal["acme/word-votes"] = "acme/word-votes"
    smoothing: float = Field(1.0, gt=0)
    """Count that is added for each word, so that a rare word has a small vote."""

    @property
    def needs_preferences(self) -> bool:
        """True: it is trained on labels, so an arm that uses it must have `feedback`."""
        return True

    @property
    def needs_baseline(self) -> bool:
        """False: `fit` does not read the supervised baseline."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Settings of the policy that cannot change the reward: it is not trained again if they change."""
        return MODEL_FREE


class WordVotes:
    """Trains the votes. A run calls `fit` in one stage, and `load` in each stage that scores responses."""

    def __init__(self, config: WordVotesConfig, context: Context) -> None:
        self.config = config

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Count the words of both responses, weighted by the labels, and save the votes."""
        liked, disliked = Counter[str](), Counter[str]()
        for label in labels:
            for text, p in zip(label.comparison.responses, label.probabilities, strict=True):
                for word in find_words(text):
                    liked[word] += p * label.weight  # type: ignore[assignment] # counts may be fractions
                    disliked[word] += (1 - p) * label.weight  # type: ignore[assignment]
        extra = self.config.smoothing
        votes = {word: math.log((liked[word] + extra) / (disliked[word] + extra)) for word in sorted(liked)}
        (stage.folder / FILE).write_text(json.dumps(votes), encoding="utf-8")
        stage.facts["words"] = len(votes)  # shown in the report

    def load(self, folder: Path) -> Reward:
        """Load the votes."""
        return VotingReward(json.loads((folder / FILE).read_text(encoding="utf-8")))


class VotingReward:
    """Scores responses by the votes of their words."""

    def __init__(self, votes: Mapping[str, float]) -> None:
        self.votes = votes

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Add up the votes of the words of each response; every word counts once."""
        return [math.fsum(self.votes.get(word, 0.0) for word in find_words(text)) for text in responses]


def find_words(text: str) -> set[str]:
    """Return the words of a text in lower case."""
    return {word.strip(".,;:!?\"'()") for word in text.lower().split()} - {""}


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `acme/word-votes`."""
    yield Component("acme/word-votes", WordVotesConfig, "rlaif_acme:WordVotes")
