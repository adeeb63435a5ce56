"""Generate from many prompts at once; shared prefixes are computed and cached once.

The rows of a batch that continue the same text attend to one copy of its keys and values (as in cascade or
shared-prefix attention), and to their own tokens in a cache that is filled in place. transformers' `generate` keeps
its own copy of the keys and values for every row, and copies them for every token. Greedy tokens are the same, but
sampling several responses to a prompt takes a fraction of the time here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface, GenerationConfig, PreTrainedModel

from rlaif_framework.errors import ModelError
from rlaif_framework.models.decoder import ATTENTION, Decoder, Sampling, attend_shared
from rlaif_framework.models.layouts import layout_of
from rlaif_framework.models.packing import split_by_tokens
from rlaif_framework.models.prefixes import compute_prefix, share_prefixes

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gpt_neox")
"""Architectures whose greedy tokens and log-probabilities are tested to equal those of `generate`."""


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Return True if `generate_shared` supports a model: a tested architecture with full attention in all layers."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "attn_logit_softcapping", None)
    # Qwen2 configs have a window that `use_sliding_window` turns off.
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    layout = layout_of(model)
    exact = layout.packed and layout.prefixes
    return bool(model._supports_attention_backend and exact and plain and not window and config.model_type in FAMILIES)


@torch.no_grad()
def generate_shared(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    budget: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[list[int]]:
    """Continue each sequence. A result does not depend on the other sequences in the batch, up to rounding.

    Args:
        model: A causal LM for which `can_share_prefixes` holds.
        sequences: Token ids of the prompts; equal ones are computed once.
        sampling: Length and distribution of the new tokens.
        seeds: Seed of each sequence's random numbers.
        stop_ids: Tokens that end a continuation, included in it.
        pad_id: Any token, to fill rows.
        budget: Maximum tokens in a batch, new ones included.
        track: Wrapper of the list of batches, for a progress bar.

    Returns:
        The new token ids of each sequence.
    """
    branches = share_prefixes(sequences)
    results: list[list[int]] = [[] for _ in sequences]
    AttentionInterface.register(ATTENTION, attend_shared)
    prefix = compute_prefix(model, branches.prefix)
    lengths = [
        group.length + sum(map(len, members)) * sampling.max_new_tokens
        for group, members in zip(branches.groups, branches.members, strict=True)
    ]
    # As few batches as the budget allows, by a high fixed cost: a decoding step takes little longer with more rows.
    batches = split_by_tokens(lengths, budget, overhead=budget)
    for batch in track(batches) if track else batches:
        decoder = Decoder(model, prefix, branches, batch, pad_id, budget)
        for index, ids in decoder.generate(sampling, seeds, stop_ids):
            results[index] = ids
    return results


@torch.no_grad()
def generate_padded(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    budget: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[list[int]]:
    """Continue each sequence with transformers' `generate` on left-padded rows, for any causal LM.

    Arguments and results are those of `generate_shared`, but each batch, rather than each sequence, has a seed.

    Raises:
        ModelError: The model cannot generate.
    """
    distribution = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": 1.0}
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        **(distribution if sampling.temperature else {}),
        pad_token_id=pad_id,
        eos_token_id=list(stop_ids),
    )
    results: list[list[int]] = [[] for _ in sequences]
    batches = _split_prompts(model, sequences, sampling.max_new_tokens, budget)
    for batch in track(batches) if track else batches:
        inputs, mask = pad_left([sequences[i] for i in batch], pad_id)
        # `generate` takes no generator: the global one is seeded, and restored afterwards.
        with torch.random.fork_rng(), _default_generation_config(model):
            torch.manual_seed(seeds[batch[0]])
            output = model.generate(  # type: ignore[operator]
                inputs.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
            )
        for i, new in zip(batch, output[:, inputs.shape[1] :].tolist(), strict=True):
            # `generate` pads rows that end early: cut after the first stop token.
            end = next((step for step, token in enumerate(new) if token in stop_ids), len(new) - 1)
            results[i] = new[: end + 1]
    return results


def _split_prompts(model: PreTrainedModel, sequences: Sequence[list[int]], steps: int, budget: int) -> list[list[int]]:
    """Split prompts into batches that the model can generate from, as lists of indices."""
    generation = layout_of(model).generation
    if generation == "none":
        raise ModelError(
            f"models of type '{model.config.model_type}' cannot generate: transformers' `generate` does not follow "
            "their forward pass; use another model"
        )
    if generation == "single":
        return [[i] for i in range(len(sequences))]
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(sequences):
        by_length.setdefault(len(ids) if generation == "equal" else 0, []).append(i)
    batches = []
    for indices in by_length.values():
        parts = split_by_tokens([len(sequences[i]) + steps for i in indices], budget, overhead=budget)
        batches += [[indices[i] for i in part] for part in parts]
    return batches


def pad_left(sequences: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return left-padded token ids and their attention mask, (rows, longest sequence) each."""
    width = max(map(len, sequences))
    inputs = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros_like(inputs)
    for row, ids in enumerate(sequences):
        inputs[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    return inputs, mask


@contextmanager
def _default_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Replace a model's generation config, from which `generate` takes unset options such as a repetition penalty."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
