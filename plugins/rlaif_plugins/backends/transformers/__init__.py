"""The local backend: any causal language model that transformers opens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rlaif_framework import BackendConfig, Component, DType, ModelLoad, hookimpl


class TransformersConfig(BackendConfig):
    """A causal language model on this machine: hub id, folder, GGUF file, or installed package."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """As `policy.model`."""
    revision: str | None = None
    """Git revision of a hub model."""
    dtype: DType = "auto"
    """Compute precision: bf16 where the processor has it (auto)."""
    chat: Literal["auto", "yes", "no"] = "auto"
    """Whether questions are put through the model's chat template, the ending as the start of the answer (auto: if
    the model has a template)."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The model."""
        return [ModelLoad(self.model, "backend", dtype="fp32" if self.dtype == "fp32" else "policy")]


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `transformers`."""
    yield Component(
        "transformers", TransformersConfig, "rlaif_plugins.backends.transformers.backend:TransformersBackend"
    )
