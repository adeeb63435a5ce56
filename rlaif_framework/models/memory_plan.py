"""Estimate the memory that a stage needs, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from rlaif_framework.models.precision import compute_dtype
from rlaif_framework.models.remember import remember
from rlaif_framework.models.source import ModelSource, find_load
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.spec.model import PolicyConfig

OPTIMISER_BYTES = {"adamw": 12, "adafactor": 4}
"""Bytes per trained weight besides the weight itself: the fp32 gradient, and for AdamW two moments."""


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """A model that a step holds, with its size."""

    model: str
    role: str
    parameters: int | None
    memory_bytes: int | None
    """Weights, plus gradients and optimiser state of a trained model; None if the size of the model is unknown."""
    activation_bytes: int = 0
    """Activations of a trained model that the largest forward pass keeps for the backward pass."""
    trust_remote_code: bool = False
    """True if the model's own Python code will be run."""


def plan_load(load: ModelLoad, policy: PolicyConfig) -> PlannedLoad:
    """Estimate the memory that a model takes in a stage."""
    source = find_load(load, policy)
    parameters = source.parameters
    if parameters is None:
        return PlannedLoad(load.model, load.role, None, None, trust_remote_code=source.trusted)
    if load.lora != "policy":
        policy = policy.model_copy(update={"lora": load.lora})
    full = policy.lora is None
    base = _base_bytes(load, policy, parameters)
    if not load.trained:
        return PlannedLoad(load.model, load.role, parameters, base, trust_remote_code=source.trusted)
    # For a model that cannot be measured: all weights, or rank * (inputs + outputs) per linear layer.
    rough = parameters if policy.lora is None else policy.lora.rank * (source.linear_width or 0)
    trained, activations = _measure_training(source, load, policy) or (rough, 0)
    # Weights that are trained, and adapters, are kept in fp32.
    weights = 4 * parameters if full else base + 4 * trained
    memory = weights + OPTIMISER_BYTES[load.optimizer] * trained
    return PlannedLoad(load.model, load.role, parameters, memory, activations, source.trusted)


def _base_bytes(load: ModelLoad, policy: PolicyConfig, parameters: int) -> int:
    """Return the bytes of the weights of a model that is frozen, or that only adapters are trained for."""
    full = policy.lora is None
    on_gpu = torch.cuda.is_available()
    if full and on_gpu and load.device == "cpu":
        return 0  # in the memory of the machine; the plan is for the memory of the GPU
    if load.shared and not full:
        return 0  # adapters over the weights of another model, where they are counted
    if load.shared and load.dtype == "policy":
        return 4 * parameters  # a copy of weights that are trained in fp32
    return {"fp32": 4, "bf16": 2, "policy": _compute_dtype(policy).itemsize}[load.dtype] * parameters


def _compute_dtype(policy: PolicyConfig) -> torch.dtype:
    return compute_dtype(policy.dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _measure_training(source: ModelSource, load: ModelLoad, policy: PolicyConfig) -> tuple[int, int] | None:
    """Measure the trained weights and the bytes of activations; None for a model that cannot be measured.

    A measurement takes seconds, most of them for importing transformers, so its result is cached on disk.
    """
    question: dict[str, Any] = {
        "causal": load.role == "policy",
        "policy": policy.model_dump(mode="json", exclude={"model", "revision"}),
        "dtype": str(_compute_dtype(policy)),
        "groups": load.groups,
        "responses": load.responses,
    }

    def measure() -> dict[str, Any]:
        from rlaif_framework.models.memory_measure import measure_training

        trained, activations = measure_training(
            source, load.role == "policy", policy, _compute_dtype(policy), load.groups, load.responses
        )
        return {"trained": trained, "activations": activations}

    try:
        found = remember("plans", {"model": source.identity, "versions": _versions(), **question}, measure)
    except Exception:  # some architectures run only with real weights; a failed estimate must not stop a run
        return None
    return found["trained"], found["activations"]


def estimate_peak(loads: Sequence[PlannedLoad]) -> int | None:
    """Estimate the bytes in use at the peak of a stage: its models, their activations, and the process itself.

    On a CPU, the resident memory can be higher (twice as high in the quickstart), because glibc keeps freed blocks.

    Returns:
        None if the size of one of the models is unknown.
    """
    if any(load.memory_bytes is None for load in loads):
        return None
    held = sum((load.memory_bytes or 0) + load.activation_bytes for load in loads)
    return held + (0 if torch.cuda.is_available() else _process_bytes())


@cache
def _process_bytes() -> int:
    """Return the resident bytes of a process that has imported the libraries of a stage and holds no model."""

    def measure() -> dict[str, Any]:
        from rlaif_framework.models.memory_measure import measure_process

        return {"bytes": measure_process()}

    return int(remember("plans", {"process": _versions()}, measure)["bytes"])


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft")}
