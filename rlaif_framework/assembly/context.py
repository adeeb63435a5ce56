"""The context that components are built with: task, settings of the policy, seed, device, nested components."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self, cast

from rlaif_framework.contracts.protocols import (
    Algorithm,
    Backend,
    Labeler,
    PromptStrategy,
    RewardModel,
    Task,
)
from rlaif_framework.errors import SpecError
from rlaif_framework.models.source import ModelSource, find_model
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.spec.model import BATCH_TOKENS, PolicyConfig, Spec

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Context:
    """Shared by the components of one run. Models, devices and the task are created on first use.

    Args:
        task: The task's config.
        policy: Settings of the policy; None if nothing is trained, as in `rlaif label`.
        seed: The run's seed.
        manager: Finds the components that configs name.
        batch_tokens: Overrides the policy's `batch_tokens`.
    """

    def __init__(
        self,
        task: ComponentConfig,
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
        """The run's seed, from which every random stream is derived (see `derive_seed`)."""
        self.manager = manager
        """Finds the components that configs name."""

    @classmethod
    def from_spec(cls, spec: Spec, manager: PluginManager) -> Self:
        """The context of a whole run."""
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
        """Where the policy's initial weights come from."""
        return find_model(self.policy.model, self.policy.revision)

    @cached_property
    def accelerator(self) -> Accelerator:
        """The accelerator of the run; `accelerate launch` decides its processes and device."""
        from accelerate import Accelerator

        return Accelerator()

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Compute precision."""
        from rlaif_framework.models.loading import compute_dtype

        return compute_dtype(self.policy.dtype, self.device)

    def build_task(self, config: ComponentConfig) -> Task:
        """Instantiate a task."""
        return cast(Task, self.manager.resolve("task", config)(config, self))

    def build_backend(self, config: ComponentConfig) -> Backend:
        """Instantiate a backend."""
        return cast(Backend, self.manager.resolve("backend", config)(config, self))

    def build_strategy(self, config: ComponentConfig) -> PromptStrategy:
        """Instantiate a prompt strategy."""
        return cast(PromptStrategy, self.manager.resolve("strategy", config)(config, self))

    def build_labeler(self, config: ComponentConfig) -> Labeler:
        """Instantiate a labeler; it builds its own backend and strategy."""
        return cast(Labeler, self.manager.resolve("labeler", config)(config, self))

    def build_reward(self, config: ComponentConfig) -> RewardModel:
        """Instantiate a reward model."""
        return cast(RewardModel, self.manager.resolve("reward", config)(config, self))

    def build_algorithm(self, config: ComponentConfig) -> Algorithm:
        """Instantiate an algorithm."""
        return cast(Algorithm, self.manager.resolve("algorithm", config)(config, self))
