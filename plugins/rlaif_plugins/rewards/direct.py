"""The reward `direct`: the scores of a labeler during RL, without a reward model (d-RLAIF)."""

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
from rlaif_framework.plugins.configs import MODEL_FREE


class DirectRewardConfig(RewardConfig):
    """Use the scores of a labeler as the reward, without a reward model."""

    kind: Literal["direct"] = "direct"
    labeler: LabelerSlot
    """The labeler. It must be able to score single responses, such as `rate`."""

    @property
    def needs_baseline(self) -> bool:
        """Always False: nothing is trained."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy."""
        return MODEL_FREE


class DirectReward:
    """Uses a labeler as the reward, without training."""

    def __init__(self, config: DirectRewardConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Write the name of the labeler."""
        (stage.folder / "reward.txt").write_text(f"the scores of labeler '{self.config.labeler.kind}'\n")

    def load(self, folder: Path) -> Reward:
        """Build the labeler.

        Raises:
            SpecError: It cannot score single responses.
        """
        labeler = self.context.build_labeler(self.config.labeler)
        if not isinstance(labeler, Reward):
            raise SpecError(
                f"reward 'direct': labeler '{self.config.labeler.kind}' cannot score single responses; "
                "use one that can, such as 'rate'"
            )
        return labeler


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `direct`."""
    yield Component("direct", DirectRewardConfig, "rlaif_plugins.rewards.direct:DirectReward")
