"""What every component is given beside its config: the task, nested components, the device, and the spec's settings."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from rlaif_framework.component import ComponentConfig, Slot
from rlaif_framework.model_source import ModelSource, find_model
from rlaif_framework.plugins import Registry
from rlaif_framework.protocols import Task
from rlaif_framework.spec import PolicyConfig, Spec

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Context:
    """Shared by the components of one run. Nothing heavy happens before it is asked for."""

    def __init__(self, spec: Spec, registry: Registry, checkpoint_seconds: float = 60.0) -> None:
        self.spec = spec
        self.registry = registry
        self.checkpoint_seconds = checkpoint_seconds

    @property
    def policy(self) -> PolicyConfig:
        """Settings of the policy: model, precision, adapters, lengths."""
        return self.spec.policy

    @cached_property
    def task(self) -> Task:
        """The spec's task."""
        return cast(Task, self.build("task", self.spec.task))

    @cached_property
    def policy_source(self) -> ModelSource:
        """Where the policy's first weights come from."""
        return find_model(self.policy.model, self.policy.revision)

    @cached_property
    def accelerator(self) -> Accelerator:
        """One accelerator for the run; `accelerate launch` decides its processes and device."""
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
        from rlaif_framework.models import compute_dtype

        return compute_dtype(self.policy.dtype, self.device)

    def build(self, slot: Slot, config: ComponentConfig) -> Any:
        """Build a component, nested ones included: a labeler builds its backend with this."""
        return self.registry.resolve(slot, config)(config, self)
