"""The reward `direct`: the scores of a labeler during RL, without a reward model (d-RLAIF)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import Field

from rlaif_framework import (
    MODEL_FREE,
    Component,
    Context,
    LabelledComparison,
    Prompt,
    Reward,
    RewardConfig,
    ScoringLabelerSlot,
    Stage,
    hookimpl,
)
from rlaif_framework.contracts import read_measures
from rlaif_framework.records import LABEL_TOKEN_MASS, check_mass


class DirectRewardConfig(RewardConfig):
    """Use the scores of a labeler as the reward, without a reward model."""

    kind: Literal["direct"] = "direct"
    labeler: ScoringLabelerSlot = Field(examples=["similarity"])
    """The labeler. It must score each response alone, as `rate`, `similarity`, `likelihood`, `rouge` and `length`
    do."""
    scale: float = Field(1.0, gt=0)
    """Factor of the scores, e.g. 10 for the cosine similarities of `similarity`."""
    allow_weak_labels: bool = False
    """If True, train even if the labeler's mean probability mass on the label tokens is below 0.01. The scores are then
    read from tokens that the model would almost never write, so by default the run stops."""

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
        (stage.folder / "reward.txt").write_text(
            f"{self.config.scale:g} x the scores of labeler '{self.config.labeler.kind}'\n"
        )

    def load(self, folder: Path) -> Reward:
        """Build the labeler."""
        # Its class has `score`, since its config says so: checked when the class is imported.
        return _Scaled(cast(Reward, self.context.build_labeler(self.config.labeler)), self.config)


class _Scaled:
    def __init__(self, labeler: Reward, config: DirectRewardConfig) -> None:
        self.labeler, self.config = labeler, config

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Multiply the labeler's scores by the factor.

        Raises:
            TrainingError: The probability mass on the label tokens is too low.
        """
        scores = [self.config.scale * score for score in self.labeler.score(prompts, responses)]
        if not self.config.allow_weak_labels:
            owner = f"reward 'direct': the model of labeler '{self.config.labeler.kind}'"
            masses = self.measures().get(LABEL_TOKEN_MASS, ())
            check_mass(masses, f"{owner} almost never writes a score", "the reward")
        return scores

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return what the labeler measured."""
        return read_measures(self.labeler)


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `direct`."""
    yield Component("direct", DirectRewardConfig, "rlaif_plugins.rewards.direct:DirectReward")
