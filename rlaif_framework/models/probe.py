"""Find out how an architecture's sequences can be laid out in rows, by trying a tiny copy of it.

Packed rows and shared prefixes need attention that follows the masks and positions it is given. Many architectures
have layers that do not: recurrent and convolutional ones, ALiBi and learned windows computed from columns. Instead of a
list of them, each layout is compared with a forward pass for each sequence alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from rlaif_framework.errors import ModelError
from rlaif_framework.models.decoding import pad_left
from rlaif_framework.models.layouts import Generation, Layout, set_layout
from rlaif_framework.models.logprobs import response_logits
from rlaif_framework.models.packed_attention import prepare_attention
from rlaif_framework.models.packing import Group, pack_groups, separate_responses
from rlaif_framework.models.prefixes import compute_prefix, forward_groups
from rlaif_framework.models.remember import remember
from rlaif_framework.models.tiny_copy import build_tiny, shrink_config
from rlaif_framework.models.trust import has_own_code
from rlaif_framework.plugins.code import hash_code

Head = Literal["causal", "score"]

RANDOM_IN_TRAINING = ("phimoe",)
"""Architectures whose forward pass is random in training mode, apart from dropout and jitter."""
TOLERANCE = 1e-4
"""Largest difference, as a share of the deviation of the values; rounding in fp32 gives a hundredth of it."""

COARSE = 0.1
"""The same for other precisions, in which a model is tried only if no tiny copy of it can be built."""

GROUPS = [
    Group([11, 42, 73, 24, 55, 86, 37, 68, 19, 50, 81], [[12, 93, 44, 75, 26, 57, 88], [31, 62], [97, 48, 79, 30, 61]]),
    Group([11, 42, 73, 24, 55, 86, 90], [[41, 72, 23, 54, 85, 36, 67, 98, 49, 80], [25]]),
]
"""Prompts with a common prefix, and responses, that reach beyond the window of a tiny copy."""

PLAINEST: dict[str, Any] = {"packed": False, "prefixes": False, "generation": "equal", "tried": False}
"""What no architecture needs more than; used if no copy can be built."""

PREFIX = 4
NEW_TOKENS = 5


def probe_model(model: PreTrainedModel, head: Head, name: str) -> None:
    """Set the layout of a loaded model.

    Args:
        model: The model.
        head: `causal` for logits, `score` for hidden states that a scalar head reads.
        name: The model's name, for messages.

    Raises:
        ModelError: No layout gives the tokens of a sequence what a forward pass of its own gives them.
    """
    result = _probe_config(model.config, head, name)
    set_layout(model, _make_layout(result))
    if not result["tried"]:
        try:
            _check_model(model, head)
        except ModelError as error:
            raise ModelError(f"'{name}': {error}") from error


def find_layout(config: PreTrainedConfig, head: Head, name: str) -> Layout:
    """Find the layout of an architecture before a model is loaded; see `probe_model`."""
    return _make_layout(_probe_config(config, head, name))


def check_trainable(config: PreTrainedConfig, name: str) -> None:
    """Check that a model gives in training what it gives otherwise.

    Raises:
        ModelError: It does not.
    """
    if config.get_text_config().model_type in RANDOM_IN_TRAINING:
        raise ModelError(
            f"'{name}': models of type '{config.model_type}' choose their experts at random in training, so the "
            "log-probabilities of training are not those of sampling; use another model"
        )


def check_head(config: PreTrainedConfig, name: str) -> None:
    """Check that transformers has a scoring model of an architecture.

    Raises:
        ModelError: It has none.
    """
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"'{name}': transformers has no sequence classification model of type '{config.model_type}', which reward "
            "and value models need; use another model"
        )


def _make_layout(result: dict[str, Any]) -> Layout:
    return Layout(result["packed"], result["prefixes"], result["generation"])


def _probe_config(config: PreTrainedConfig, head: Head, name: str) -> dict[str, Any]:
    """Return the fields of a layout, and whether a copy could be tried; cached in this process and on disk.

    Raises:
        ModelError: No layout is exact. This is not cached.
    """
    if has_own_code(config):  # a copy could have the code of another model of this type
        return dict(PLAINEST)
    settings = config.to_dict()
    for irrelevant in ("_name_or_path", "architectures", "dtype", "transformers_version", "id2label", "label2id"):
        settings.pop(irrelevant, None)
    eager = config.get_text_config()._attn_implementation == "eager"
    try:
        return _probe(cast(Any, type(config)), json.dumps(settings, sort_keys=True, default=str), head, eager)
    except ModelError as error:
        raise ModelError(f"'{name}': {error}") from error


@cache
def _probe(kind: type[PreTrainedConfig], text: str, head: Head, eager: bool) -> dict[str, Any]:
    versions = {name: version(name) for name in ("torch", "transformers")}
    key = {"config": text, "head": head, "eager": eager, "code": hash_code(__name__), **versions}
    with torch.device("cpu"):  # whatever device the caller builds on
        return remember("layouts", key, lambda: _measure(kind.from_dict(json.loads(text)), head, eager))


def _measure(config: PreTrainedConfig, head: Head, eager: bool) -> dict[str, Any]:
    """Return the fields of a layout, and whether a copy could be tried."""
    kind = AutoModelForCausalLM if head == "causal" else AutoModelForSequenceClassification
    build: Callable[..., Any] = partial(cast(Any, kind).from_config, trust_remote_code=False)
    for few_layers in (True, False):
        try:
            tiny = shrink_config(config, few_layers)
            model = build_tiny(tiny, build, "eager" if eager else None)
            prepare_attention(model)
            return PLAINEST | _try_layouts(model, head) | {"tried": True}
        except ModelError:
            raise
        except Exception:  # whatever a library raises for sizes that do not fit together
            continue
    return dict(PLAINEST)


def _check_model(model: PreTrainedModel, head: Head) -> None:
    """Check the plainest layout on a model itself.

    Raises:
        ModelError: It gives other values than a forward pass for each sequence alone.
    """
    alone = _read_responses(model, head)
    if not _agrees(lambda: _read_rows(model, head, Layout(packed=False, prefixes=False, generation="equal")), alone):
        raise ModelError(_padding_matters(model))


def _try_layouts(model: PreTrainedModel, head: Head) -> dict[str, Any]:
    """Compare the layouts of a tiny model with a forward pass for each sequence alone."""
    expected = _read_responses(model, head)
    if not _agrees(lambda: _read_rows(model, head, Layout(packed=False)), expected):
        raise ModelError(_padding_matters(model))
    packed = all(_agrees(partial(_read_rows, model, head, Layout(), blocks), expected) for blocks in (False, True))
    if head == "score":
        return {"packed": packed, "prefixes": packed}
    prefixes = packed and _agrees(lambda: _read_prefixed(model), _read_ends(model))
    return {"packed": packed, "prefixes": prefixes, "generation": _try_generation(model)}


def _padding_matters(model: PreTrainedModel) -> str:
    kind = model.config.model_type
    return f"models of type '{kind}' cannot be used: padding after a sequence changes its values; use another model"


@torch.no_grad()
def _read_alone(model: PreTrainedModel, head: Head, ids: Sequence[int]) -> Tensor:
    """Return the values of each token of a sequence, (length, width), from the plainest forward pass there is."""
    inputs = torch.tensor([list(ids)], device=model.device)
    if head == "causal":
        logits: Tensor = model(input_ids=inputs, use_cache=False).logits[0]
        return logits
    hidden: Tensor = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[0]
    return hidden


def _read_responses(model: PreTrainedModel, head: Head) -> Tensor:
    """Return the values that predict each response token, (response tokens, width), from a pass for each sequence.

    Raises:
        ModelError: A token's values depend on later tokens.
    """
    parts: list[Tensor] = []
    for group in GROUPS:
        for ids in group.responses:
            values = _read_alone(model, head, group.prompt + ids)
            if not parts:
                _check_causal(model, head, values)
            parts.append(values[len(group.prompt) - 1 : -1])
    return torch.cat(parts)


def _read_ends(model: PreTrainedModel) -> Tensor:
    """Return the logits after each sequence, (sequences, vocabulary), from a pass for each."""
    ends = [_read_alone(model, "causal", g.prompt + ids)[-1] for g in GROUPS for ids in g.responses]
    return torch.stack(ends)


def _check_causal(model: PreTrainedModel, head: Head, values: Tensor) -> None:
    """Raise a `ModelError` if a token's values depend on later tokens."""
    ids = GROUPS[0].prompt + GROUPS[0].responses[0]
    changed = _read_alone(model, head, [*ids[:-1], ids[-1] + 1])
    if not _close(changed[:-1], values[:-1]):
        raise ModelError(
            f"models of type '{model.config.model_type}' are not causal language models: tokens depend on later ones; "
            "use another model"
        )


@torch.no_grad()
def _read_rows(model: PreTrainedModel, head: Head, layout: Layout, blocks: bool = False) -> Tensor:
    """Return the values that predict each response token, (response tokens, width), in a layout."""
    set_layout(model, layout)
    groups = GROUPS if layout.packed else separate_responses(GROUPS)
    packed = pack_groups(groups, 5, model.device, blocks)
    if head == "causal":
        return response_logits(model, packed)
    hidden = model.base_model(**packed.model_inputs(model), use_cache=False).last_hidden_state
    return cast(Tensor, hidden[packed.rows, packed.columns])


@torch.no_grad()
def _read_prefixed(model: PreTrainedModel) -> Tensor:
    """Return the logits after each sequence, (sequences, vocabulary), over a cached prefix."""
    set_layout(model, Layout())
    prefix = compute_prefix(model, GROUPS[0].prompt[:PREFIX])
    rests = [Group(group.prompt[PREFIX:], group.responses) for group in GROUPS]
    return forward_groups(model, rests, prefix, 5)[0]


def _try_generation(model: PreTrainedModel) -> Generation:
    """Return the field `generation` of a layout."""
    long, short = (group.prompt for group in GROUPS)
    if _generates(model, [long, short]):
        return "padded"
    if _generates(model, [long, long[::-1]]):
        return "equal"
    return "single" if _generates(model, [long]) else "none"


def _generates(model: PreTrainedModel, prompts: Sequence[list[int]]) -> bool:
    """Return True if the logits of `generate` are those of a forward pass over what it generated."""
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=5,
        eos_token_id=[],
        output_logits=True,
        return_dict_in_generate=True,
    )
    inputs, mask = pad_left(prompts, 5)
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig()
        output = model.generate(inputs, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
    except Exception:  # whatever a library raises
        return False
    finally:
        model.generation_config = own
    for row, prompt in enumerate(prompts):
        found = torch.stack([step[row] for step in output.logits])  # (new tokens, vocabulary)
        ids = prompt + output.sequences[row, inputs.shape[1] :].tolist()
        alone = _read_alone(model, "causal", ids)[len(prompt) - 1 : -1]
        if not _close(found, alone):
            return False
    return True


def _agrees(read: Callable[[], Tensor], expected: Tensor) -> bool:
    """Return True if values can be computed and are the expected ones."""
    try:
        return _close(read(), expected)
    except Exception:  # whatever a library raises for a mask or position that it does not expect
        return False


def _close(found: Tensor, expected: Tensor) -> bool:
    tolerance = TOLERANCE if found.dtype == torch.float32 else COARSE
    difference = (found.float() - expected.float()).abs().max()
    return found.shape == expected.shape and bool(difference <= tolerance * expected.float().std())
