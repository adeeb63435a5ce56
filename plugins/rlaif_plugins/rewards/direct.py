"""The direct reward: a labeler's own scores inside the RL loop, with no reward model in between (d-RLAIF)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rlaif_framework import (
    Component,
    Context,
    LabelerSlot,
    LabelledComparison,
    Reward,
    RewardConfig,
    SpecError,
    Stage,
    hookimpl,
)


class DirectRewardConfig(RewardConfig):
    """A labeler that scores responses one at a time, such as `rate`, as the reward."""

    kind: Literal["direct"] = "direct"
    labeler: LabelerSlot
    """Who scores; it must be able to score single responses."""


class DirectReward:
    """Trains nothing."""

    def __init__(self, config: DirectRewardConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Leave a note of who scores."""
        (stage.folder / "reward.txt").write_text(f"the scores of labeler '{self.config.labeler.kind}'\n")

    def load(self, folder: Path) -> Reward:
        """The labeler.

        Raises:
            SpecError: It only compares.
        """
        labeler = self.context.build_labeler(self.config.labeler)
        if not isinstance(labeler, Reward):
            raise SpecError(
                f"reward 'direct': labeler '{self.config.labeler.kind}' compares responses and cannot score one alone; "
                "'rate' can"
            )
        return labeler


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `direct`."""
    yield Component("direct", DirectRewardConfig, "rlaif_plugins.rewards.direct:DirectReward")
