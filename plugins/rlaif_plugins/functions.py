"""The reward, labeler and metric `function`, which call a Python function of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from rlaif_framework import (
    MODEL_FREE,
    Comparison,
    Component,
    Config,
    Context,
    Evidence,
    LabelerConfig,
    LabelledComparison,
    MetricConfig,
    Preference,
    Prompt,
    Reward,
    RewardConfig,
    Stage,
    hookimpl,
)
from rlaif_framework.plugins import anchor_target, split_target


def _check_target(value: str) -> str:
    split_target(value)
    return anchor_target(value)


class FunctionSettings(Config):
    """Settings of a function, which is called as `score(prompts, completions, **columns)`."""

    target: Annotated[str, AfterValidator(_check_target)] = Field(examples=["my_rewards.py:score"])
    """The function: `my_rewards.py:score`, in a file beside the spec, or `package.module:score`. Its code runs only if
    you allow it, by `--plugin` or `--trust-local`."""
    columns: dict[str, str] = Field({})
    """Other names for what prompts have, as the function takes them, e.g. `{answer: reference}`: `id`, `source`,
    `reference`, or a column of `task.columns`."""
    conversational: bool = False
    """Pass prompts and completions as lists of messages, as TRL does for conversational data, and not as texts."""

    @property
    def unused_settings(self) -> frozenset[str]:
        """The target: the keys have the name of the function and the hash of its code."""
        return frozenset({"target"})

    @property
    def own_code(self) -> Sequence[str]:
        """The function."""
        return [self.target]


class FunctionRewardConfig(FunctionSettings, RewardConfig):
    """Score responses with a Python function of your own, such as a reward function of TRL."""

    kind: Literal["function"] = "function"

    @property
    def needs_baseline(self) -> bool:
        """Always False: nothing is trained."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy, whose tokenizer may be used."""
        return MODEL_FREE


class FunctionLabelerConfig(FunctionSettings, LabelerConfig):
    """Prefer the response that a Python function of your own scores higher."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["function"] = "function"
    scale: float | None = Field(None, gt=0)
    """Scale of the logits: this difference of scores gives odds of e to 1. By default, the preference is certain."""


class FunctionMetricConfig(FunctionSettings, MetricConfig):
    """Measure responses with a Python function of your own."""

    kind: Literal["function"] = "function"
    name: str | None = None
    """Name of the number in reports; by default that of the function."""

    @property
    def names(self) -> Sequence[str]:
        """The name."""
        return [self.name or split_target(self.target)[1]]


class FunctionReward:
    """Calls the function, without training."""

    def __init__(self, config: FunctionRewardConfig, context: Context) -> None:
        self.config = config
        self.function = context.load_function(config.target, config.columns, config.conversational, "reward 'function'")

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Write the name of the function."""
        (stage.folder / "reward.txt").write_text(f"{split_target(self.config.target)[1]}\n", encoding="utf-8")

    def load(self, folder: Path) -> Reward:
        """Return the reward itself."""
        return self

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses; a function that does not apply to one adds nothing, as in TRL's sum of rewards."""
        return [score or 0.0 for score in self.function(prompts, responses)]

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return what the last call logged by `log_metric`."""
        return self.function.logged


class FunctionLabeler:
    """Compares the scores of two responses."""

    def __init__(self, config: FunctionLabelerConfig, context: Context) -> None:
        self.config = config
        self.function = context.load_function(
            config.target, config.columns, config.conversational, "labeler 'function'"
        )

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by their scores; there is no preference if the function does not apply to a response."""
        pairs = [(comparison.prompt, text) for comparison in comparisons for text in comparison.responses]
        scores = self.function([prompt for prompt, _ in pairs], [text for _, text in pairs])
        for index, comparison in enumerate(comparisons):
            a, b = scores[2 * index : 2 * index + 2]
            if a is None or b is None:
                yield Preference(comparison.id, None, Evidence(self.config.kind))
            else:
                first = self._prefer(a - b)
                yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.kind, scores=(a, b)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses; 0 where the function does not apply."""
        return [score or 0.0 for score in self.function(prompts, responses)]

    def _prefer(self, difference: float) -> float:
        if self.config.scale is None:
            return 0.5 if difference == 0 else float(difference > 0)
        from scipy.special import expit

        return float(expit(difference / self.config.scale))


class FunctionMetric:
    """Returns the scores of the function."""

    def __init__(self, config: FunctionMetricConfig, context: Context) -> None:
        self.config = config
        self.function = context.load_function(config.target, config.columns, config.conversational, "metric 'function'")

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Call the function; None where it does not apply."""
        (name,) = self.config.names
        return {name: self.function(prompts, responses)}


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `function`."""
    yield Component("function", FunctionRewardConfig, "rlaif_plugins.functions:FunctionReward")


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `function`."""
    yield Component("function", FunctionLabelerConfig, "rlaif_plugins.functions:FunctionLabeler")


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `function`."""
    yield Component("function", FunctionMetricConfig, "rlaif_plugins.functions:FunctionMetric")
