"""The base config of each kind of component, with the properties that the framework reads from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt

from rlaif_framework.plugins.component import AnyConfig, ComponentConfig, Slot, nested_configs, outermost_configs

if TYPE_CHECKING:
    from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
    from rlaif_framework.records.preferences import Comparison


MODEL_FREE = frozenset({"dtype", "save_dtype", "chat", "lora", "max_prompt_tokens", "max_new_tokens", "train_tokens"})
"""Settings of the policy that labelers, backends and strategies do not use: they also work where there is no policy, as
in `rlaif label`."""


METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
"""Name of a number that a metric measures."""


class TaskConfig(ComponentConfig):
    """Base of the config of a task."""

    _slot: ClassVar[Slot] = "task"

    @property
    def prompt_columns(self) -> Sequence[str]:
        """Names of the `columns` that the prompts have; by default none."""
        return ()

    @property
    def suggested_judges(self) -> Sequence[Mapping[str, Any]]:
        """Labelers to decide win rates if a spec names no judge, the best first, as a spec's `evaluate.judge`.

        Those that an arm learns from, or that need what a test prompt or this machine lacks, are left out. The default
        compares responses with references.
        """
        return ({"kind": "rouge"}, {"kind": "similarity", "against": "reference"})


class BackendConfig(ComponentConfig):
    """Base of the config of a backend."""

    _slot: ClassVar[Slot] = "backend"

    exact_mass: ClassVar[bool] = False
    """True if the answer to a choice has the whole probability mass on the options, at the cost of a forward pass.
    Labelers then find out with up to two more questions whether the model puts a space before its answer."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy; override this if the backend uses one of them."""
        return MODEL_FREE

    def preferred_chunk_size(self) -> NonNegativeInt:
        """Return the preferred number of comparisons per call, 0 for no preference.

        A server that answers many requests concurrently needs chunks that are large enough to keep it busy.
        """
        return 0


class StrategyConfig(ComponentConfig):
    """Base of the config of a prompt strategy."""

    _slot: ClassVar[Slot] = "strategy"

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy; override this if the strategy uses one of them."""
        return MODEL_FREE

    @property
    def longest_answer(self) -> NonNegativeInt:
        """The maximum number of tokens that the model generates before the label.

        Prompts are truncated so that this many tokens still fit into the context. The default is the maximum over the
        strategies in this strategy's slots, or 0.
        """
        return max((part.longest_answer for part in _nested(self, StrategyConfig)), default=0)

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Check that a task's annotator prompts have everything these settings refer to.

        This is called before anything is computed. The default checks the strategies in this strategy's slots.

        Raises:
            DataError: Something is missing.
        """
        for part in _nested(self, StrategyConfig):
            part.check_prompts(prompts)


class LabelerConfig(ComponentConfig):
    """Base of the config of a labeler."""

    _slot: ClassVar[Slot] = "labeler"

    scores_responses: ClassVar[bool] = False
    """True if the labeler scores each response alone: its class then has the method `score` of `Reward`, and reward
    `direct` can use it."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy; override this if the labeler uses one of them."""
        return MODEL_FREE

    def missing_field(self, comparison: Comparison) -> Annotated[str, Field(min_length=1)] | None:
        """Describe what a comparison lacks to be labelled, such as `has no human preference`.

        This is called before anything is computed. The default checks the labelers in this labeler's slots.

        Returns:
            None if the labeler can label the comparison.
        """
        reasons = (part.missing_field(comparison) for part in _nested(self, LabelerConfig))
        return next((reason for reason in reasons if reason), None)

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """Check that a task's annotator prompts have everything these settings refer to.

        This is called before anything is computed. The default checks the labelers and strategies in this labeler's
        slots.

        Raises:
            DataError: Something is missing.
        """
        for part in nested_configs(self):
            if isinstance(part, LabelerConfig | StrategyConfig):
                part.check_prompts(prompts)

    def preferred_chunk_size(self) -> NonNegativeInt:
        """Return the preferred number of comparisons per call, 0 for no preference.

        The default is the maximum over the labelers and backends in this labeler's slots.
        """
        parts = [part for part in nested_configs(self) if isinstance(part, LabelerConfig | BackendConfig)]
        return max((part.preferred_chunk_size() for part in parts), default=0)


class RewardConfig(ComponentConfig):
    """Base of the config of a reward model."""

    _slot: ClassVar[Slot] = "reward"

    saves_model: ClassVar[bool] = False
    """True if `fit` saves a score model that a value model can be initialised from."""

    @property
    def needs_preferences(self) -> bool:
        """True if the reward is trained on preferences. An arm that uses it must then set `feedback`.

        The default is True if a reward in one of its slots is trained on preferences.
        """
        return any(part.needs_preferences for part in _nested(self, RewardConfig))

    def missing_field(self, comparison: Comparison) -> Annotated[str, Field(min_length=1)] | None:
        """Describe what a comparison lacks for its responses to be scored, such as `has a prompt without a reference`.

        This is called before anything is computed, also for responses that do not exist yet and are empty. Rewards and
        labelers in this reward's slots are asked on their own.

        Returns:
            None if the reward can score the responses.
        """
        return None

    @property
    def needs_baseline(self) -> bool:
        """True if `fit` reads the folder of the supervised baseline; otherwise `initial` is an empty path.

        The default is True for a reward without rewards in its slots, else that of any of these.
        """
        parts = list(_nested(self, RewardConfig))
        return any(part.needs_baseline for part in parts) if parts else True


class AlgorithmConfig(ComponentConfig):
    """Base of the config of an algorithm."""

    _slot: ClassVar[Slot] = "algorithm"

    responds: ClassVar[bool] = False
    """True if the algorithm answers test prompts itself (see `Responder`) and saves no policy."""

    @property
    def needs_preferences(self) -> bool:
        """True if the algorithm is trained on preferences. An arm that uses it must then set `feedback`.

        The default is True if a reward or algorithm in one of its slots is trained on preferences.
        """
        parts = [part for part in nested_configs(self) if isinstance(part, RewardConfig | AlgorithmConfig)]
        return any(part.needs_preferences for part in parts)

    @property
    def needs_reward(self) -> bool:
        """True if the algorithm maximises a reward. An arm that uses it must then set `reward`."""
        return True

    @property
    def needs_reward_model(self) -> bool:
        """True if the algorithm initialises a model from the one that the reward saves (`RewardConfig.saves_model`)."""
        return False


class MetricConfig(ComponentConfig):
    """Base of the config of a metric of responses."""

    _slot: ClassVar[Slot] = "metric"

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy; override this if the metric uses one of them."""
        return MODEL_FREE

    @property
    def names(self) -> Annotated[Sequence[str], Field(min_length=1)]:
        """Names of the numbers that the metric measures, as reports show them.

        The default is one, the component's name without its namespace: `copy_rate` for `acme/copy-rate`.
        """
        return [self.kind.rpartition("/")[2].replace("-", "_")]


def check_metric_names(metrics: list[MetricConfig]) -> list[MetricConfig]:
    """Check that the metrics of a list measure numbers with different names.

    Raises:
        ValueError: Two of them measure a number of the same name, or a name cannot be part of a path.
    """
    owners: dict[str, str] = {}
    for metric in metrics:
        for name in metric.names:
            if not METRIC_NAME.fullmatch(name):
                raise ValueError(
                    f"metric '{metric.kind}': the name '{name}' has other characters than letters, digits and _"
                )
            if name in owners:
                advice = "; set 'name' of one of them" if "name" in type(metric).model_fields else ""
                raise ValueError(f"metrics '{owners[name]}' and '{metric.kind}' both measure '{name}'{advice}")
            owners[name] = metric.kind
    return metrics


class TrackerConfig(ComponentConfig):
    """Base of the config of a tracker."""

    _slot: ClassVar[Slot] = "tracker"

    rewinds: ClassVar[bool] = False
    """True if the tracker can remove metrics and has the methods of `StageTracker`. A stage that resumes from a
    checkpoint then logs the steps after it again. By default, a tracker gets each step of a tracked run once."""

    @property
    def unused_settings(self) -> frozenset[str]:
        """All settings: a tracker changes no result."""
        return frozenset(type(self).model_fields) - {"kind"}


def _nested(config: ComponentConfig, kind: type[AnyConfig]) -> Iterator[AnyConfig]:
    return outermost_configs(nested_configs(config), kind)


BASES: Mapping[Slot, type[ComponentConfig]] = {
    base._slot: base
    for base in (
        TaskConfig,
        BackendConfig,
        StrategyConfig,
        LabelerConfig,
        RewardConfig,
        AlgorithmConfig,
        MetricConfig,
        TrackerConfig,
    )
}
"""The base that the config of a component in each slot must have."""


def slot_of(config: ComponentConfig) -> Slot:
    """Return the slot that a config's component belongs in."""
    return config._slot
