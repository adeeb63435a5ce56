"""Load models and tokenizers: hub ids, folders, and GGUF files that are dequantised once and kept."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, cast

import torch
from filelock import FileLock
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlaif_framework.errors import ModelError
from rlaif_framework.model_source import ModelSource, cache_folder, check_hub, find_model
from rlaif_framework.packed_attention import prepare_attention
from rlaif_framework.spec import LoraSettings

ModelClass = Literal["causal", "score", "plain"]
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # a weight's shape is not what the config says
    SafetensorError,
    StrictDataclassError,  # a setting of the config is of a wrong type
)
"""What the libraries raise for a model's files that are damaged, or do not fit each other."""
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
_CLASSES = {"causal": AutoModelForCausalLM, "score": AutoModelForSequenceClassification, "plain": AutoModel}


def compute_dtype(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Resolve a spec's dtype: `auto` is bf16 where the processor computes in it, else fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    else:
        fast = device.type == "xpu"
    return torch.bfloat16 if fast else torch.float32


def converted_folder(source: ModelSource) -> Path:
    """Where a GGUF file's conversion is kept, made or not."""
    return cache_folder() / "models" / source.identity.removeprefix("sha256:")


def gguf_settings(source: ModelSource) -> Path:
    """A folder with the config of a GGUF file, read on first use and kept: its weights need not be converted for it."""
    folder = converted_folder(source)
    if folder.exists():
        return folder
    folder = cache_folder() / "configs" / folder.name
    if not folder.exists():
        file = Path(source.location)
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
        AutoConfig.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(temporary)
        temporary.rename(folder)
    return folder


def materialise(source: ModelSource) -> str:
    """Give what `from_pretrained` opens: a folder or hub id. A GGUF file is converted on first use and cached.

    Raises:
        ModelError: The file is no language model, or the hub has none or cannot be reached.
    """
    if not source.is_gguf:
        check_hub(source)
        return source.location
    folder = converted_folder(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _convert_gguf(Path(source.location), folder)
    return str(folder)


def _convert_gguf(file: Path, folder: Path) -> None:
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{file} cannot be read as a language model: {error}") from error
    # `save_pretrained` refuses a model whose config says it is quantised: build a plain one from its weights.
    facts = model.config.to_dict()
    facts.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(type(model.config)(**facts))
    plain.load_state_dict(model.state_dict())
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(
    where: str | Path | ModelSource, kind: ModelClass, dtype: torch.dtype, device: torch.device, **settings: Any
) -> PreTrainedModel:
    """Load a model for inference or training, with every kind of dropout off.

    Dropout would make the log-probabilities of sampling and of training differ (Huang et al. 2024).

    Args:
        where: A model folder, a name as in a spec, or a source.
        kind: `causal` language model, `score` (one number per sequence), or `plain` (hidden states only).
        dtype: Precision of the weights in memory.
        device: Where to put it.
        settings: Settings of the model's config to change.

    Raises:
        ModelError: It is not a model of that kind.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    revision = source.revision or "main"
    try:
        location = materialise(source)
        config = AutoConfig.from_pretrained(location, revision=revision, **settings)
        for part in (config, config.get_text_config()):
            # Not the modules alone: attention and some families' layers drop by a function, at a rate of the config.
            rates = [name for name, value in vars(part).items() if "drop" in name and isinstance(value, float)]
            for name in rates:
                setattr(part, name, 0.0)
        model, found = _CLASSES[kind].from_pretrained(
            location, revision=revision, dtype=dtype, config=config, output_loading_info=True
        )
    except DAMAGE as error:
        raise ModelError(f"cannot load '{source.name}' as a {kind} model: {_explain(error)}") from error
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if kind == "causal" and missing:  # transformers would go on with random ones
        raise ModelError(f"'{source.name}' has no weights for {missing[0]} and {len(missing) - 1} more of its config")
    model.to(device)
    prepare_attention(model)
    return cast(PreTrainedModel, model.eval())


def load_tokenizer(where: str | Path | ModelSource, needs_end: bool = True) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; one without a padding token pads with the end token (masks are always explicit).

    Args:
        where: A model folder, a name as in a spec, or a source.
        needs_end: Whether its texts must be able to end; an embedding model's need not.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    try:
        tokenizer = AutoTokenizer.from_pretrained(materialise(source), revision=source.revision or "main")
    except DAMAGE as error:
        folder = Path(source.location)
        if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise ModelError(f"the tokenizer of '{source.name}' is missing: no tokenizer.json in {folder}") from error
        raise ModelError(f"cannot load the tokenizer of '{source.name}': {_explain(error)}") from error
    if not needs_end:
        return tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of '{source.name}' has no end-of-sequence token; responses could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _explain(error: BaseException) -> str:
    """What is wrong, in one line; the libraries' advice on their own settings is no use to a user of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "ignore_mismatched_sizes" in text:
        return "the shapes of its weights are not those that its config.json tells of"
    return shorten(text, 400, placeholder=" ...")


def add_lora(model: nn.Module, lora: LoraSettings, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> nn.Module:
    """Wrap a model in trainable fp32 adapters; a scoring head is trained whole.

    Raises:
        ModelError: The model has no modules of the names in `lora.targets`.
    """
    inner = cast(PreTrainedModel, model)
    depth = inner.config.get_text_config().num_hidden_layers
    layers = None if lora.last_layers is None else list(range(max(0, depth - lora.last_layers), depth))
    scale: Any = lora.alpha  # peft says int and takes any number
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=scale,
        target_modules=_linear_names(inner) if isinstance(lora.targets, str) else list(lora.targets),
        layers_to_transform=layers,
        task_type=task,
    )
    try:
        wrapped: nn.Module = get_peft_model(inner, config)
    except ValueError as error:
        raise ModelError(f"policy.lora: {error}") from error
    return wrapped


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A second tree of modules over the same parameters: adapters added to one do not change the other."""
    kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, kept)


def checkpoint_gradients(module: nn.Module) -> None:
    """Recompute activations in the backward pass instead of keeping them: less memory, about a third more time."""
    model = next(child for child in module.modules() if isinstance(child, PreTrainedModel))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[PreTrainedModel]:
    """The plain model with its adapters merged into a copy of the weights they adapt, for as long as the block lasts.

    Generation runs faster without adapters, and taking a merge back would leave rounding in the weights.
    """
    if not isinstance(model, PeftModel):
        yield cast(PreTrainedModel, model)
        return
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []
    with model.disable_adapter():
        try:
            for layer in _adapted(model):
                weight = cast(nn.Parameter, layer.get_base_layer().weight)
                kept.append((weight, weight.data))
                _merge(layer)
            yield cast(PreTrainedModel, model.get_base_model())
        finally:
            for weight, data in kept:
                weight.data = data


def _adapted(model: nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@torch.no_grad()
def _merge(layer: LoraLayer) -> None:
    """Give a layer the weight that it has with its adapter, computed in fp32 and kept in its own precision."""
    weight = cast(nn.Parameter, layer.get_base_layer().weight)
    delta = cast(Any, layer).get_delta_weight("default")
    weight.data = (weight.data.float() + delta).to(weight.dtype)


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Names of the linear modules inside the layers: all but the heads."""
    inside = [name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)]
    return sorted({name.rpartition(".")[2] for name in inside})


def save_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
    """Save a plain `save_pretrained` folder; adapters are merged into the weights first, each in fp32."""
    if isinstance(model, PeftModel):
        for layer in _adapted(model):
            _merge(layer)
        model = cast(Any, model).unload()
    cast(PreTrainedModel, model.to(dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
