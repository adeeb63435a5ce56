"""The context that every component receives besides its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from rlaif_framework.assembly.measuring import ResponseMetrics
from rlaif_framework.assembly.score_functions import ScoreFunction
from rlaif_framework.contracts.protocols import (
    Algorithm,
    Backend,
    Labeler,
    Metric,
    PromptStrategy,
    RewardModel,
    Task,
    Tracker,
)
from rlaif_framework.errors import ModelError, SpecError
from rlaif_framework.models.source import ModelSource, find_load, find_model
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.plugins.configs import (
    AlgorithmConfig,
    BackendConfig,
    LabelerConfig,
    MetricConfig,
    RewardConfig,
    StrategyConfig,
    TaskConfig,
    TrackerConfig,
)
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.spec.model import BATCH_TOKENS, LoraSettings, PolicyConfig, Spec

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase


class Context:
    """The task, the policy's settings, the seed and the device of a run. Task and device are created on first use.

    Args:
        task: The task's config.
        policy: Settings of the policy; None if nothing is trained, as in `rlaif label`.
        seed: Seed of the run.
        manager: The components of all plugins.
        batch_tokens: Overrides the policy's `batch_tokens`.
    """

    def __init__(
        self,
        task: TaskConfig,
        policy: PolicyConfig | None,
        seed: int,
        manager: PluginManager,
        batch_tokens: int | None = None,
    ) -> None:
        self.task_config = task
        self._policy = policy
        self.batch_tokens = batch_tokens or (policy.batch_tokens if policy else BATCH_TOKENS)
        """Maximum number of tokens in a batch of local models that nothing is trained on, padding included."""
        self.seed = seed
        """Seed of the run, from which all random streams are derived (see `derive_seed`)."""
        self.manager = manager
        """The components of all plugins."""

    @classmethod
    def from_spec(cls, spec: Spec, manager: PluginManager) -> Self:
        """Create the context of a run."""
        return cls(spec.task, spec.policy, spec.seed, manager)

    @property
    def policy(self) -> PolicyConfig:
        """Settings of the policy: model, precision, adapters, lengths.

        Raises:
            SpecError: There is no policy.
        """
        if self._policy is None:
            raise SpecError(
                "a component needs a policy, which `rlaif label` does not have; use the component in a spec"
            )
        return self._policy

    @property
    def policy_model(self) -> str:
        """Name of the policy's model; empty if there is no policy."""
        return "" if self._policy is None else self._policy.model

    @cached_property
    def task(self) -> Task:
        """The task."""
        return self.build_task(self.task_config)

    @cached_property
    def policy_source(self) -> ModelSource:
        """Source of the policy's initial weights."""
        return find_model(self.policy.model, self.policy.revision, self.policy.trust_remote_code)

    def find_trained(self, where: Path | ModelSource, trust_remote_code: bool = False) -> ModelSource:
        """Find a model that this run trained, or its source. Trusted code was copied with the model.

        Args:
            where: Its folder, or a source, which is returned as it is.
            trust_remote_code: The setting of a model that was not trained from the policy.

        Raises:
            ModelError: The folder is not a model.
        """
        if isinstance(where, ModelSource):
            return where
        return find_model(str(where), trust_remote_code=trust_remote_code or self.policy.trust_remote_code)

    def find_loaded(self, load: ModelLoad) -> ModelSource:
        """Find the model of a load. The policy's model has the revision and the trust of the policy.

        Raises:
            ModelError: There is no such model.
        """
        return find_load(load, self._policy)

    @cached_property
    def accelerator(self) -> Accelerator:
        """The accelerator of the run; `accelerate launch` sets its processes and devices."""
        from accelerate import Accelerator  # imports torch, which labelers without a model do not need

        return Accelerator()

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Compute precision."""
        from rlaif_framework.models.precision import compute_dtype

        return compute_dtype(self.policy.dtype, self.device)

    @property
    def weights_dtype(self) -> torch.dtype:
        """Precision of the policy's weights in memory: fp32 if all are trained, as bf16 would round small updates to
        0; with adapters, which are kept in fp32, the compute precision."""
        return self._weights_dtype(self.policy.lora)

    def _weights_dtype(self, lora: LoraSettings | None) -> torch.dtype:
        import torch

        return torch.float32 if lora is None else self.dtype

    def saved_dtype(self, lora: LoraSettings | None) -> torch.dtype:
        """Return the precision in which a model is saved that was trained with these adapters, or in full."""
        from rlaif_framework.models.precision import compute_dtype

        if self.policy.save_dtype != "auto":
            return compute_dtype(self.policy.save_dtype, self.device)
        return self._weights_dtype(lora)

    def load_policy_tokenizer(self, where: Path | ModelSource) -> PreTrainedTokenizerBase:
        """Load the tokenizer of a policy, or of a reward or value model, without its chat template if `chat` is
        `plain`.

        Raises:
            ModelError: It cannot be loaded, or has no chat template although `chat` is `template`.
        """
        from rlaif_framework.models.loading import load_tokenizer

        tokenizer = load_tokenizer(self.find_trained(where))
        if self.policy.chat == "plain":
            tokenizer.chat_template = None
        elif self.policy.chat == "template" and tokenizer.chat_template is None:
            name = where.name if isinstance(where, ModelSource) else where
            raise ModelError(f"policy.chat: the tokenizer of '{name}' has no chat template; set 'chat: auto'")
        return tokenizer

    # `resolve` has checked that the class has the methods of the protocol, so the casts below are safe.

    def build_task(self, config: TaskConfig) -> Task:
        """Instantiate a task."""
        return cast(Task, self.manager.resolve("task", config)(config, self))

    def build_backend(self, config: BackendConfig) -> Backend:
        """Instantiate a backend."""
        return cast(Backend, self.manager.resolve("backend", config)(config, self))

    def build_strategy(self, config: StrategyConfig) -> PromptStrategy:
        """Instantiate a prompt strategy."""
        return cast(PromptStrategy, self.manager.resolve("strategy", config)(config, self))

    def build_labeler(self, config: LabelerConfig) -> Labeler:
        """Instantiate a labeler."""
        return cast(Labeler, self.manager.resolve("labeler", config)(config, self))

    def build_reward(self, config: RewardConfig) -> RewardModel:
        """Instantiate a reward model."""
        return cast(RewardModel, self.manager.resolve("reward", config)(config, self))

    def build_algorithm(self, config: AlgorithmConfig) -> Algorithm:
        """Instantiate an algorithm."""
        return cast(Algorithm, self.manager.resolve("algorithm", config)(config, self))

    def build_metric(self, config: MetricConfig) -> Metric:
        """Instantiate a metric."""
        return cast(Metric, self.manager.resolve("metric", config)(config, self))

    def build_metrics(self, configs: Sequence[MetricConfig]) -> ResponseMetrics:
        """Instantiate several metrics, to measure them together."""
        return ResponseMetrics([(config, self.build_metric(config)) for config in configs])

    def load_function(self, target: str, columns: Mapping[str, str], conversational: bool, owner: str) -> ScoreFunction:
        """Find a function of the user's own that scores responses; see `ScoreFunction`.

        Raises:
            SpecError: The code is not allowed to run.
            PluginError: There is no such function, or it takes something that it cannot be given.
        """

        def load_tokenizer() -> PreTrainedTokenizerBase:
            return self.load_policy_tokenizer(self.policy_source)

        available = self.task_config.prompt_columns
        return ScoreFunction(target, self.manager.code, load_tokenizer, available, columns, conversational, owner)

    def build_tracker(self, config: TrackerConfig) -> Tracker:
        """Instantiate a tracker."""
        return cast(Tracker, self.manager.resolve("tracker", config)(config, self))
