"""What a stage will hold in memory, worked out on tensors that have shapes and no contents, before any is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlaif_framework.models.adapters import add_lora, checkpoint_gradients
from rlaif_framework.models.gguf import gguf_settings
from rlaif_framework.models.loading import compute_dtype
from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.packed_attention import prepare_attention
from rlaif_framework.models.packing import Group, choose_rows, pack_groups, split_by_tokens
from rlaif_framework.models.source import ModelSource, find_model
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.spec.model import PolicyConfig

CPU = torch.device("cpu")


OPTIMISER = {"adamw": 12, "adafactor": 4}
"""Bytes for each trained weight besides itself: fp32 gradient, and two moments of AdamW."""


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """A model a step will hold, with its size."""

    model: str
    role: str
    parameters: int | None
    memory_bytes: int | None
    """Weights, and for a trained model gradients and optimiser state too; None if nothing is known about the model."""
    activation_bytes: int = 0
    """What the fullest forward pass of a trained model keeps for the backward one."""


def plan_load(load: ModelLoad, policy: PolicyConfig) -> PlannedLoad:
    """Size a model as a stage will hold it."""
    source = find_model(load.model, policy.revision if load.model == policy.model else None)
    parameters = source.parameters
    if parameters is None:
        return PlannedLoad(load.model, load.role, None, None)
    if load.lora != "policy":
        policy = policy.model_copy(update={"lora": load.lora})
    on_gpu = torch.cuda.is_available()
    compute = compute_dtype(policy.dtype, torch.device("cuda" if on_gpu else "cpu"))
    full = policy.lora is None
    narrow = {"fp32": 4, "bf16": 2, "policy": compute.itemsize}[load.dtype]
    if load.shared and full and load.dtype == "policy":
        narrow = 4  # a copy of weights that are trained in fp32
    elsewhere = full and on_gpu and load.device == "cpu"
    base = 0 if elsewhere or (load.shared and not full) else parameters * narrow
    if not load.trained:
        return PlannedLoad(load.model, load.role, parameters, base)
    facts, shape = _find_config(source), (load.groups, load.responses)
    measured = facts and _try_training(facts, load.role == "policy", policy.model_dump_json(), compute, *shape)
    rough = parameters if policy.lora is None else policy.lora.rank * (source.linear_width or 0)
    trained, kept = measured or (rough, 0)
    weights = 4 * parameters if full else base + 4 * trained
    return PlannedLoad(load.model, load.role, parameters, weights + OPTIMISER[load.optimizer] * trained, kept)


def estimate_peak(loads: Sequence[PlannedLoad]) -> int | None:
    """Bytes in use at the peak of a stage: all its models, the activations of those trained, and the process itself.

    None if nothing is known about one of the models.

    On a CPU more is resident than is in use, because glibc keeps freed blocks: up to twice as much in the quickstart.
    """
    if any(load.memory_bytes is None for load in loads):
        return None
    held = sum((load.memory_bytes or 0) + load.activation_bytes for load in loads)
    return held + (0 if torch.cuda.is_available() else _own_size())


def _own_size() -> int:
    """Resident bytes of this process, which has imported what a stage needs and holds no model."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError):
        return 0


def _find_config(source: ModelSource) -> str | None:
    """Where a model's settings can be read without fetching or converting weights; a hub's may be in its cache."""
    if source.is_gguf:
        return str(gguf_settings(source))
    if Path(source.location).exists():
        return source.location
    kept = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
    return str(Path(kept).parent) if isinstance(kept, str) else None


def _place_on_cpu(model: nn.Module) -> None:
    """Put parameters and buffers without contents in the place of those on no device; tied ones stay tied."""
    placed: dict[int, torch.Tensor] = {}
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for own in tables:
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if id(tensor) not in placed:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    placed[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
                own[name] = placed[id(tensor)]


def _try_training(*question: Any) -> tuple[int, int] | None:
    """As `_measure_training`, or None for a model that needs contents to run: a plan is no reason for a run to stop."""
    try:
        return _measure_training(*question)
    except Exception:  # of many kinds, as many as there are architectures
        return None


@lru_cache
def _measure_training(
    folder: str, causal: bool, settings: str, compute: torch.dtype, groups: int, responses: int
) -> tuple[int, int]:
    """Trained weights, and bytes that autograd keeps of the largest batch.

    The model is built and run on tensors without contents; what it saves for the backward pass is added up. On top come
    the gradients of the logits, which are as large as these.
    """
    policy = PolicyConfig.model_validate_json(settings)
    config = AutoConfig.from_pretrained(folder)
    group = Group([1] * policy.max_prompt_tokens, [[1] * policy.max_new_tokens] * responses)
    part = max(map(len, split_by_tokens([group.length] * groups, policy.train_tokens)))
    dtype = torch.float32 if policy.lora is None else compute
    if not causal:
        config.num_labels, config.pad_token_id = 1, 0
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        prepare_attention(model)
        trained: nn.Module = model
        if policy.lora is not None:
            trained = add_lora(model, policy.lora, "CAUSAL_LM" if causal else "SEQ_CLS")
    if policy.gradient_checkpointing:
        checkpoint_gradients(trained)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _place_on_cpu(trained)
        trained.train()
        own = {p.untyped_storage()._cdata for p in trained.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        packed = pack_groups(choose_rows([group] * part), 0, CPU)
        extra = 0
        autocast = torch.autocast("cpu", compute, enabled=compute != torch.float32)
        with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            if causal:
                response_logprobs(trained, packed)
                extra = len(packed.targets) * config.get_text_config().vocab_size * compute.itemsize
            else:
                model.base_model(**packed.model_inputs(model), use_cache=False)
        count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        held = sum(storage.nbytes() for storage in kept.values()) + extra
        # Shorter prompts may fill a pass that the longest ones leave room in.
        tokens = part * group.length
        return count, held * max(tokens, min(policy.train_tokens, groups * group.length)) // tokens
