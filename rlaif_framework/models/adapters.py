"""Add, merge and save LoRA adapters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from rlaif_framework.errors import ModelError
from rlaif_framework.spec.model import LoraSettings

STATE_SPACE = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
UNADAPTABLE = {"out_proj", "conv1d"}
"""Modules that peft refuses to adapt in these architectures, whose kernels read the weights past the adapters."""


def add_lora(model: nn.Module, lora: LoraSettings, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> nn.Module:
    """Add trainable LoRA adapters in fp32 to a model; a scalar head is trained in full.

    Raises:
        ModelError: The model has no modules with the names in `lora.targets`, or one of them shares its weights with
            another module.
    """
    inner = cast(PreTrainedModel, model)
    depth = inner.config.get_text_config().num_hidden_layers
    layers = None if lora.last_layers is None else list(range(max(0, depth - lora.last_layers), depth))
    scale: Any = lora.alpha  # annotated as int by peft, although it accepts any number
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=scale,
        target_modules=_linear_names(inner) if isinstance(lora.targets, str) else list(lora.targets),
        layers_to_transform=layers,
        task_type=task,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in inner.modules()),  # as in GPT-2
    )
    try:
        wrapped: nn.Module = get_peft_model(inner, config)
    except ValueError as error:
        raise ModelError(f"policy.lora: {' '.join(str(error).split())}") from error
    _check_untied(wrapped)
    return wrapped


def _check_untied(model: nn.Module) -> None:
    """Raise a `ModelError` if an adapted weight is also that of another module, which merging would change."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and len(owners[id(_adapted_weight(module))]) > 1:
            raise ModelError(
                f"policy.lora.targets: '{name.rpartition('.')[2]}' shares its weights with another module (tied "
                "embeddings), which an adapter would change too when it is merged; leave it out of the targets"
            )


@contextmanager
def leave_casts_to_autocast(model: nn.Module) -> Iterator[None]:
    """Inside an autocast region, do not cast the inputs of adapters to fp32 first, which autocast would undo.

    Gradients are bitwise the same, and a training step takes about an eighth less time. Outside of an autocast region,
    and for a model without adapters, nothing changes.
    """
    device = next(model.parameters()).device
    with disable_input_dtype_casting(model, active=torch.is_autocast_enabled(device.type)):
        yield


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model's modules but not its parameters: adapters added to the copy leave the original as it is."""
    # The memo of `deepcopy`: tensors in it are not copied.
    kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, kept)


def checkpoint_gradients(module: nn.Module) -> None:
    """Recompute activations in the backward pass instead of keeping them: less memory, about a third more time."""
    model = next(child for child in module.modules() if isinstance(child, PreTrainedModel))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # With adapters the embeddings are frozen, and checkpointed layers need an input that requires a gradient.
    model.enable_input_require_grads()


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[PreTrainedModel]:
    """Merge the adapters into the weights within the block, and restore the original weights afterwards.

    Generation is faster without adapters. The weights are restored from a copy, because subtracting the adapters would
    leave rounding errors.
    """
    if not isinstance(model, PeftModel):
        yield cast(PreTrainedModel, model)
        return
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []
    # The merged weights contain the adapters already: the layers must not add them again.
    with model.disable_adapter():
        try:
            for layer in _adapted(model):
                weight = _adapted_weight(layer)
                # `_merge` replaces the tensor instead of changing it: no copy is needed.
                kept.append((weight, weight.data))
                _merge(layer)
            yield cast(PreTrainedModel, model.get_base_model())
        finally:
            for weight, data in kept:
                weight.data = data


def unwrap_adapters(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model under adapters, or the model itself if it has none."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def _adapted(model: nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _adapted_weight(layer: LoraLayer) -> nn.Parameter:
    """Return the weight that an adapter changes; peft adapts the experts of some models as parameters of one module."""
    if isinstance(layer, ParamWrapper):
        return cast(nn.Parameter, getattr(layer.get_base_layer(), layer.parameter_name))
    return cast(nn.Parameter, layer.get_base_layer().weight)


@torch.no_grad()
def _merge(layer: LoraLayer) -> None:
    """Merge a layer's adapter into its weight, in fp32, and cast the result to the precision of the weight."""
    weight = _adapted_weight(layer)
    delta = cast(Any, layer).get_delta_weight("default")
    weight.data = (weight.data.float() + delta).to(weight.dtype)


def _is_adaptable(module: nn.Module) -> bool:
    """Return True for a linear module; some subclasses compute more than a linear map, such as Llama 4's routers."""
    return isinstance(module, (nn.Linear, Conv1D)) and not type(module).__name__.endswith(("Router", "GroupedLinear"))


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear modules inside the layers, without the heads."""
    # `base_model` is the model without its head.
    inside = [name for name, module in model.base_model.named_modules() if _is_adaptable(module)]
    # peft matches the last part of a module's name.
    names = {name.rpartition(".")[2] for name in inside}
    return sorted(names - UNADAPTABLE if model.config.model_type in STATE_SPACE else names)


def save_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
    """Save a model and tokenizer as a plain folder; adapters are merged into the weights, in fp32."""
    if isinstance(model, PeftModel):
        for layer in _adapted(model):
            _merge(layer)
        # Not `merge_and_unload`: peft adds in the precision of the weights.
        model = cast(Any, model).unload()
    cast(PreTrainedModel, model.to(dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
