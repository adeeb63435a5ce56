"""Measure the memory of a training step with fake tensors: shapes without data."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlaif_framework.errors import ModelError
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients, leave_casts_to_autocast
from rlaif_framework.models.gguf import gguf_settings
from rlaif_framework.models.layouts import set_layout
from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.packed_attention import prepare_attention
from rlaif_framework.models.packing import Group, Packed, choose_rows, pack_groups, split_by_tokens
from rlaif_framework.models.probe import find_layout
from rlaif_framework.models.source import ModelSource
from rlaif_framework.models.trust import has_own_code
from rlaif_framework.spec.model import PolicyConfig

EQUAL_LAYERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gpt_neox", "gpt2")
"""Architectures whose layers have the same shapes; for these the measurement of two small models is extrapolated."""

FEW_LAYERS = 2
"""Layers of the smaller model: enough for tensors that only pass between layers."""


def measure_training(
    source: ModelSource, causal: bool, policy: PolicyConfig, compute: torch.dtype, groups: int, responses: int
) -> tuple[int, int]:
    """Count the trained weights, and the bytes that autograd keeps for the backward pass of the largest batch.

    The model is built and run on fake tensors, and the tensors it saves for the backward pass are added up, together
    with the gradient of the logits, which is as large as the logits.

    Args:
        source: The model.
        causal: If True, a language model; otherwise a model with a scalar head.
        policy: Lengths, batch size and adapters.
        compute: Compute precision.
        groups: Number of prompts per step.
        responses: Number of responses per prompt.
    """
    config = AutoConfig.from_pretrained(_find_config(source), trust_remote_code=source.trusted)
    group = Group([1] * policy.max_prompt_tokens, [[1] * policy.max_new_tokens] * responses)
    part = max(map(len, split_by_tokens([group.length] * groups, policy.train_tokens)))
    packed = pack_groups(choose_rows([group] * part), 0, torch.device("cpu"))
    layers = config.get_text_config().num_hidden_layers
    if layers > FEW_LAYERS + 1 and _has_equal_layers(config, policy):
        # Every further layer adds the same amount: extrapolate from two small models, in a tenth of the time.
        count, kept = _measure(_with_layers(config, FEW_LAYERS), causal, policy, compute, packed)
        more_count, more_kept = _measure(_with_layers(config, FEW_LAYERS + 1), causal, policy, compute, packed)
        count += (layers - FEW_LAYERS) * (more_count - count)
        kept += (layers - FEW_LAYERS) * (more_kept - kept)
    else:
        count, kept = _measure(config, causal, policy, compute, packed)
    # A pass of the longest prompts may not use the whole budget; one of shorter prompts does: scale up to a full pass.
    tokens = part * group.length
    return count, kept * max(tokens, min(policy.train_tokens, groups * group.length)) // tokens


def _has_equal_layers(config: Any, policy: PolicyConfig) -> bool:
    """Return True if all layers of a model have the same shapes and are trained alike."""
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or [])
    known = config.model_type in EQUAL_LAYERS
    return known and len(kinds) < 2 and (policy.lora is None or policy.lora.last_layers is None)


def _with_layers(config: Any, layers: int) -> Any:
    """Return a copy of a config with fewer layers."""
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    text.num_hidden_layers = layers
    return changed


def _measure(config: Any, causal: bool, policy: PolicyConfig, compute: torch.dtype, packed: Packed) -> tuple[int, int]:
    """Count the trained weights of a model, and the bytes that autograd keeps of one batch."""
    model, trained = _build(config, causal, policy, compute)
    with FakeTensorMode(allow_non_fake_inputs=True):  # the packed batch has data
        _place_on_cpu(trained)  # autocast for the CPU does not apply to meta tensors
        trained.train()
        kept = _KeptTensors(trained)
        gradients = 0
        autocast = torch.autocast("cpu", compute, enabled=compute != torch.float32)
        with saved_tensors_hooks(kept.keep, lambda tensor: tensor), autocast:
            if causal:
                response_logprobs(trained, packed)
                gradients = len(packed.targets) * config.get_text_config().vocab_size * compute.itemsize
            else:
                with leave_casts_to_autocast(model):
                    model.base_model(**packed.fit(model).model_inputs(model), use_cache=False)
        count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        return count, kept.total() + gradients


def measure_process() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError):
        return 0


def _find_config(source: ModelSource) -> str:
    """Return a folder with the model's config, without downloading or converting weights."""
    if source.is_gguf:
        return str(gguf_settings(source))
    if Path(source.location).exists():
        return source.location
    kept = try_to_load_from_cache(source.location, "config.json", revision=source.commit or source.revision)
    if not isinstance(kept, str):
        raise ModelError(f"the config of '{source.name}' is not in the local cache")
    return str(Path(kept).parent)


def _build(config: Any, causal: bool, policy: PolicyConfig, compute: torch.dtype) -> tuple[PreTrainedModel, nn.Module]:
    """Build a model on the meta device; return it without and with adapters (the same model if there are none)."""
    if not causal:
        config.num_labels, config.pad_token_id = 1, 0
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    dtype = torch.float32 if policy.lora is None else compute  # weights that are trained are kept in fp32
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, dtype=dtype, trust_remote_code=has_own_code(config))  # type: ignore[no-untyped-call]
        set_layout(model, find_layout(config, "causal" if causal else "score", config.model_type))
        prepare_attention(model)
        trained: nn.Module = model
        if policy.lora is not None:
            trained = add_lora(model, policy.lora, "CAUSAL_LM" if causal else "SEQ_CLS")
    if policy.gradient_checkpointing:
        checkpoint_gradients(trained)
    return model, trained


def _place_on_cpu(model: nn.Module) -> None:
    """Move parameters and buffers from the meta device to the CPU; tied ones stay tied."""
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


class _KeptTensors:
    """The tensors that autograd saves for the backward pass, other than the model's parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {p.untyped_storage()._cdata for p in model.parameters()}
        self.storages: dict[int, torch.UntypedStorage] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Record the storage of a saved tensor."""
        # Views share a storage, which is counted once.
        storage = tensor.untyped_storage()
        if storage._cdata not in self.parameters:
            self.storages[storage._cdata] = storage  # kept alive, so that no address is used twice
        return tensor

    def total(self) -> int:
        """Return the bytes of all storages."""
        return sum(storage.nbytes() for storage in self.storages.values())
