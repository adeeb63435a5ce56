"""The local backend: any causal language model that transformers supports."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from rlaif_framework import BackendConfig, Component, DType, ModelLoad, ModelName, hookimpl


class TransformersConfig(BackendConfig):
    """A causal language model on this machine, from the hub, a folder, a GGUF file or an installed package."""

    exact_mass: ClassVar[bool] = True

    kind: Literal["transformers"] = "transformers"
    model: ModelName
    """Name of the model, as in `policy.model`."""
    revision: str | None = None
    """Git revision of a hub model."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    dtype: DType = "auto"
    """Compute precision (auto: bf16 if the hardware supports it)."""
    chat: Literal["auto", "yes", "no"] = "auto"
    """Apply the model's chat template, with the question's ending as the start of the answer (auto: if the model has a
    template)."""
    date: datetime.date = datetime.date(2025, 1, 1)
    """The date that chat templates with the current date get, so that labels do not change from day to day."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the model."""
        dtype: Literal["fp32", "policy"] = "fp32" if self.dtype == "fp32" else "policy"
        return [ModelLoad(self.model, "backend", dtype=dtype, trust_remote_code=self.trust_remote_code)]


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `transformers`."""
    yield Component(
        "transformers", TransformersConfig, "rlaif_plugins.backends.transformers.backend:TransformersBackend"
    )
