"""The reward `length`, a baseline that reproduces much of the gains of RLHF in win rates (Singhal et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class LengthRewardConfig(RewardConfig):
    """Reward the length of a response: a baseline for other rewards, or a penalty in a `sum`."""

    kind: Literal["length"] = "length"
    unit: Literal["characters", "words"] = "characters"
    """Unit of the length."""
    per: float = Field(100.0, gt=0)
    """Number of units per reward of 1."""
    target: int | None = Field(None, ge=0)
    """Target length: the reward is minus the distance to it. By default, longer responses have higher rewards."""

    @property
    def needs_baseline(self) -> bool:
        """Always False: nothing is trained."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy."""
        return MODEL_FREE


class LengthReward:
    """Scores responses by their length, without training."""

    def __init__(self, config: LengthRewardConfig, context: Context) -> None:
        self.config = config

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Write the unit of the reward."""
        (stage.folder / "reward.txt").write_text(f"length in {self.config.unit} / {self.config.per:g}\n")

    def load(self, folder: Path) -> Reward:
        """Return the reward itself."""
        return self

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses by their length."""
        config = self.config
        lengths = [len(text) if config.unit == "characters" else len(text.split()) for text in responses]
        values = lengths if config.target is None else [-abs(length - config.target) for length in lengths]
        return [value / config.per for value in values]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `length`."""
    yield Component("length", LengthRewardConfig, "rlaif_plugins.rewards.length:LengthReward")
