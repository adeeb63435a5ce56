"""Build a small random copy of an architecture, to try things on that would take too long on the model itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import gcd
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_HEADS = ("num_key_value_heads", "n_head_kv", "num_kv_heads", "kv_n_heads")
OTHER_HEADS = re.compile(
    r"mamba_(n|num)_heads|n_mamba_heads|mamba_n_?groups|n_groups|linear_num_\w+_heads|\w+_attention_heads"
)
"""Numbers of heads and groups of heads. They are divided along with the width, so that a head keeps its width."""

WIDTHS = re.compile(
    r"hidden_size|n_embd|d_model|dim|word_embed_proj_dim|attention_hidden_size|intermediate_size|mamba_intermediate_size"
    r"|mamba_d_ssm|lru_width|conv_dim|block_dim|block_ff_dim|time_step_rank|mamba_dt_rank"
)
"""Widths, which keep their ratios."""

MLP_WIDTHS = re.compile(r"n_inner|ffn_dim|ffn_hidden_size|\w*(moe|shared|expert|mlp)\w*_intermediate_size|\w+_ffn_dim")
"""Widths that depend on no other one."""

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
EXPERTS = re.compile(r"num_local_experts|num_experts|n_routed_experts|moe_num_experts")
WINDOWS = re.compile(r"(?!max_)\w*window\w*|local_attention|attention_chunk_size|(mamba_)?chunk_size|block_size")
SELECTED = re.compile(r"index_topk(_blocks)?|index_block_size")
"""Numbers of tokens that sparse attention selects."""

WINDOW = 6
"""Window of attention of a tiny copy: sequences of some twenty tokens reach beyond it."""

FEW_SELECTED = 2

FEW_LAYERS = 4
"""Layers of a tiny copy, or more if more are needed to have one of each kind."""

FEW_EXPERTS = 16
MLP_WIDTH = 64
VOCABULARY = 256

LARGEST = 60_000_000
"""Parameters of the largest copy worth building, a second's work."""


def shrink_config(config: PreTrainedConfig, few_layers: bool = True) -> PreTrainedConfig:
    """Return a config of the same architecture with fewer layers, heads, experts and tokens, and short windows.

    Args:
        config: Config of a model.
        few_layers: If False, all layers are kept.
    """
    settings = config.to_dict()
    settings.pop("quantization_config", None)
    # In some architectures it is no setting, but follows from others.
    kinds = list(getattr(config.get_text_config(), "layer_types", None) or [])
    for part in _walk(settings):
        _shrink(part, few_layers, kinds)
    return type(config).from_dict(settings)


def build_tiny(config: PreTrainedConfig, build: Callable[..., Any], attention: str | None = None) -> PreTrainedModel:
    """Build a model in fp32 on the CPU, with weights that make every layer matter.

    The global random stream is left as it is.

    Args:
        config: Result of `shrink_config`.
        build: `from_config` of an auto class.
        attention: Name of the attention implementation; default: that of the architecture.

    Raises:
        ValueError: The model would not be tiny.
    """
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(config).parameters())
    if count > LARGEST:
        raise ValueError(f"{count:,} parameters")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        model: PreTrainedModel = build(config, dtype=torch.float32, attn_implementation=attention)
        model.eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() > 1:  # a new model's are so small that its tokens hardly affect each other
                deviation, wanted = float(parameter.std()), 1.5 * parameter.shape[-1] ** -0.5
                if deviation > 0:
                    parameter.mul_(wanted / deviation)
                else:
                    nn.init.normal_(parameter, std=wanted)
    return model


def _walk(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a config's settings and those of the configs inside it."""
    yield settings
    for value in list(settings.values()):
        if isinstance(value, dict):
            yield from _walk(value)


def _shrink(part: dict[str, Any], few_layers: bool, kinds: list[str]) -> None:
    """Shrink the settings of one config in place."""
    sizes = _shrunk_sizes(part)
    depth = next((part[name] for name in LAYERS if isinstance(part.get(name), int)), 0)
    few = _count_layers(part, depth, kinds) if few_layers else depth
    shared = part.get("num_kv_shared_layers") or 0  # the last layers use the keys of earlier ones
    if few_layers and shared:
        few, part["num_kv_shared_layers"] = 2 * few, few
    for name, value in part.items():
        if not isinstance(name, str):
            continue  # the keys of `id2label` are numbers
        if isinstance(value, list) and len(value) == depth > 0:
            part[name] = [sizes(name, item) for item in value[:few]]
        elif isinstance(value, dict) and name == "per_layer_config":
            part[name] = {key: item for key, item in value.items() if int(key) < few}
        elif name in LAYERS:
            part[name] = few
        else:
            part[name] = sizes(name, value)


def _shrunk_sizes(part: dict[str, Any]) -> Callable[[str, Any], Any]:
    """Return a function from the name and value of a setting to its smaller value."""
    heads = next((part[name] for name in HEADS if isinstance(part.get(name), int)), 0)
    key_heads = next((part[name] for name in KEY_HEADS if isinstance(part.get(name), int)), heads)
    grouped = heads > 4 and heads % 4 == 0 and key_heads not in (0, heads)
    factor = heads // 4 if grouped else _find_factor(part)
    recurrent = not heads  # the width of a recurrent layer is a multiple of the hidden size

    def shrink(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if name in KEY_HEADS and grouped:
            return min(value, 2)
        if name in HEADS or name in KEY_HEADS or OTHER_HEADS.fullmatch(name):
            return max(1, value // factor)
        if MLP_WIDTHS.fullmatch(name) or (name == "intermediate_size" and not recurrent):
            return min(value, MLP_WIDTH)
        if WIDTHS.fullmatch(name):
            return max(1, -(-value // factor))
        if EXPERTS.fullmatch(name):
            return min(value, FEW_EXPERTS)
        if WINDOWS.fullmatch(name):
            return min(value, WINDOW)
        if SELECTED.fullmatch(name):
            return min(value, FEW_SELECTED)
        if "vocab_size" in name:
            return VOCABULARY
        return min(value, VOCABULARY - 1) if name.endswith("_token_id") else value

    return shrink


def _find_factor(part: dict[str, Any]) -> int:
    """Return the number that all widths and numbers of heads are divided by; four heads should remain."""
    names = [str(name) for name in part]
    counts = [part.get(name) for name in names if name in HEADS + KEY_HEADS or OTHER_HEADS.fullmatch(name)]
    found = [n for n in counts if isinstance(n, int) and n > 1]
    if not found:
        width = next((part[name] for name in ("hidden_size", "n_embd", "d_model") if part.get(name)), 1)
        powers = [k for k in (64, 32, 16, 8, 4, 2) if isinstance(width, int) and width % k == 0 and width // k >= 32]
        return powers[0] if powers else 1
    common = gcd(*found)
    divisors = [k for k in range(1, common + 1) if common % k == 0]
    enough = [k for k in divisors if max(found) // k >= 4]
    return max(divisors) if max(found) // max(enough, default=1) > 16 else max(enough, default=1)


def _count_layers(part: dict[str, Any], depth: int, kinds: list[str]) -> int:
    """Return how many of the first layers include one of each kind."""
    lists = [value for value in (kinds, *part.values()) if isinstance(value, list) and len(value) == depth > 0]
    few = min(FEW_LAYERS, depth)
    for values in lists:
        names = [str(value) for value in values]
        if len(set(names)) <= depth // 2:  # otherwise the list says something else of each layer
            few = max(few, 1 + max(names.index(name) for name in set(names)))
    return few
