"""The rewards `ensemble` and `sum`, which combine other rewards."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rlaif_framework import (
    Component,
    Context,
    LabelledComparison,
    PolicyConfig,
    Prompt,
    Reward,
    RewardConfig,
    RewardModel,
    RewardSlot,
    Stage,
    hookimpl,
)
from rlaif_framework.contracts import read_measures

FITTED = "fitted.json"


def _check_names(terms: dict[str, RewardConfig]) -> dict[str, RewardConfig]:
    bad = [name for name in terms if not name.replace("-", "").replace("_", "").isalnum()]
    if bad:
        raise ValueError(f"'{bad[0]}' is not a valid name: use letters, digits, '-' and '_' only")
    return terms


class EnsembleRewardConfig(RewardConfig):
    """Combine several rewards of similar scale, against over-optimisation (Coste et al. 2024)."""

    kind: Literal["ensemble"] = "ensemble"
    members: list[RewardSlot] = Field(min_length=2)
    """The rewards. Equal ones are trained with different seeds: `[bradley-terry, bradley-terry]`."""
    combine: Literal["mean", "worst", "mean-minus-spread"] = "mean"
    """Combination of the scores: the mean, the lowest score (worst of k), or the mean minus `spread_weight` times the
    standard deviation."""
    spread_weight: float = Field(1.0, ge=0)
    """Weight of the standard deviation in `mean-minus-spread`."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Those that no member uses."""
        return frozenset(PolicyConfig.model_fields)


class SumRewardConfig(RewardConfig):
    """Sum weighted rewards and penalties; each term is logged separately."""

    kind: Literal["sum"] = "sum"
    terms: Annotated[dict[str, RewardSlot], AfterValidator(_check_names)] = Field(min_length=1)
    """Rewards by name, e.g. `{quality: bradley-terry, length: {kind: length, per: 100}}`."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Weights of terms, by name; the default is 1, and a negative weight makes a penalty, e.g. `{length: -0.1}`."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Those that no term uses."""
        return frozenset(PolicyConfig.model_fields)

    @model_validator(mode="after")
    def _check_weights(self) -> SumRewardConfig:
        unknown = sorted(self.weights.keys() - self.terms.keys())
        if unknown:
            raise ValueError(f"weights: no term is named '{unknown[0]}'; the terms are {', '.join(self.terms)}")
        return self


class EnsembleReward:
    """Trains the members one after another."""

    def __init__(self, config: EnsembleRewardConfig, context: Context) -> None:
        self.config = config
        self.parts = _build({f"member-{i}": member for i, member in enumerate(config.members, 1)}, context)

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train all members."""
        _fit_parts(self.parts, labels, initial, stage)

    def load(self, folder: Path) -> Reward:
        """Load all members."""
        return _Ensemble(self.config, [part.load(folder / name) for name, part in self.parts.items()])


class _Ensemble:
    def __init__(self, config: EnsembleRewardConfig, members: Sequence[Reward]) -> None:
        self.config, self.members = config, members

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Combine the members' scores of each response."""
        columns = [member.score(prompts, responses) for member in self.members]
        return [self.combine(scores) for scores in zip(*columns, strict=True)]

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return the measures of the members."""
        return _name_measures({f"member-{i}": member for i, member in enumerate(self.members, 1)})

    def combine(self, scores: Sequence[float]) -> float:
        """Combine the scores of one response."""
        if self.config.combine == "worst":
            return min(scores)
        mean = statistics.fmean(scores)
        if self.config.combine == "mean":
            return mean
        return mean - self.config.spread_weight * statistics.pstdev(scores)


class SumReward:
    """Trains the terms one after another."""

    def __init__(self, config: SumRewardConfig, context: Context) -> None:
        self.config = config
        self.parts = _build(config.terms, context)

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train all terms."""
        _fit_parts(self.parts, labels, initial, stage)

    def load(self, folder: Path) -> Reward:
        """Load all terms."""
        weights = {name: self.config.weights.get(name, 1.0) for name in self.parts}
        return _Sum({name: part.load(folder / name) for name, part in self.parts.items()}, weights)


class _Sum:
    def __init__(self, terms: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
        self.terms, self.weights = terms, weights

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Add up the weighted terms of each response."""
        return [sum(parts) for parts in zip(*self.score_terms(prompts, responses).values(), strict=True)]

    def score_terms(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Return the weighted terms of each response."""
        return {
            name: [self.weights[name] * score for score in term.score(prompts, responses)]
            for name, term in self.terms.items()
        }

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return the measures of the terms."""
        return _name_measures(self.terms)


def _name_measures(rewards: Mapping[str, Reward]) -> dict[str, Sequence[float]]:
    found = {name: read_measures(reward) for name, reward in rewards.items()}
    return {f"{name}/{key}": values for name, own in found.items() for key, values in own.items()}


def _build(configs: Mapping[str, RewardConfig], context: Context) -> dict[str, RewardModel]:
    return {name: context.build_reward(config) for name, config in configs.items()}


def _fit_parts(
    parts: Mapping[str, RewardModel], labels: Sequence[LabelledComparison], initial: Path, stage: Stage
) -> None:
    """Fit each part in its own folder; parts that an interrupted run has finished are skipped."""
    from accelerate.utils import set_seed

    for name, part in parts.items():
        own = stage.part(name)
        done = own.checkpoint / FITTED
        if not done.exists():
            set_seed(own.seed("start") % 2**32)  # new weights must not depend on the parts fitted before
            part.fit(labels, initial, own)
            stage.accelerator.wait_for_everyone()
            if stage.is_main:
                # A rename is atomic: a full disk must not leave a partial file of this name.
                written = done.with_name(f".{FITTED}")
                written.write_text(json.dumps(own.facts), encoding="utf-8")
                written.replace(done)
            stage.accelerator.wait_for_everyone()
            stage.accelerator.free_memory()  # otherwise the models of all parts would stay in memory
        with own.reading_checkpoint():
            facts = json.loads(done.read_text(encoding="utf-8"))
        stage.facts.update({f"{name} {key}": value for key, value in facts.items()})


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `ensemble` and `sum`."""
    yield Component("ensemble", EnsembleRewardConfig, "rlaif_plugins.rewards.combined:EnsembleReward")
    yield Component("sum", SumRewardConfig, "rlaif_plugins.rewards.combined:SumReward")
