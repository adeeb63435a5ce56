"""The length reward: a baseline that reproduces much of what RLHF gains by judges (Singhal et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, Context, LabelledComparison, Prompt, Reward, RewardConfig, Stage, hookimpl


class LengthRewardConfig(RewardConfig):
    """The length of a response as its reward: what any other reward has to beat; in a `sum`, a penalty."""

    kind: Literal["length"] = "length"
    unit: Literal["characters", "words"] = "characters"
    """What is counted."""
    per: float = Field(100.0, gt=0)
    """So many are worth a reward of 1."""
    target: int | None = Field(None, ge=0)
    """Reward a length near this: the score is less the distance to it. Default: the longer the better."""


class LengthReward:
    """Trains nothing."""

    def __init__(self, config: LengthRewardConfig, context: Context) -> None:
        self.config = config

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Leave a note."""
        (stage.folder / "reward.txt").write_text(f"length in {self.config.unit} / {self.config.per:g}\n")

    def load(self, folder: Path) -> Reward:
        """Itself."""
        return self

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Count."""
        config = self.config
        lengths = [len(text) if config.unit == "characters" else len(text.split()) for text in responses]
        values = lengths if config.target is None else [-abs(length - config.target) for length in lengths]
        return [value / config.per for value in values]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `length`."""
    yield Component("length", LengthRewardConfig, "rlaif_plugins.rewards.length:LengthReward")
