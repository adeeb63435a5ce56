"""Sample responses from a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.models.adapters import merged_adapters
from rlaif_framework.models.chat import encode_prompt, find_stop_ids
from rlaif_framework.models.decoder import Sampling
from rlaif_framework.models.decoding import can_share_prefixes, generate_padded, generate_shared
from rlaif_framework.models.packing import Group
from rlaif_framework.models.positions import check_length
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.seeds import derive_seed


@torch.no_grad()
def sample_responses(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt | str | list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | Sequence[int],
    top_k: int = 0,
    budget: int = 16384,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[Sample]:
    """Sample one response to each prompt, batched by length, without top-p truncation of the distribution.

    A response ends at any of `find_stop_ids`. While sampling, adapters are merged into copies of the
    weights that they adapt.

    Args:
        model: A causal LM of transformers, with or without adapters.
        tokenizer: Tokenizer of the model.
        prompts: Prompts, texts (see `encode_prompt`) or token ids. Repeat one to sample several responses to it; it is
            computed once.
        max_new_tokens: Maximum length of a response.
        temperature: Divisor of the logits; 0 is greedy.
        seed: One seed, from which each prompt's is derived by its index, or one seed for each prompt.
        top_k: Sample among the k most likely tokens only; 0 is all.
        budget: Maximum tokens in a batch, padding and new tokens included.
        track: Wrapper of the list of batches, for a progress bar.
    """
    # Each distinct prompt once: rendering a chat template takes longer than tokenising its text.
    encoded = {p: encode_prompt(tokenizer, p) for p in dict.fromkeys(p for p in prompts if not isinstance(p, list))}
    ids = [p if isinstance(p, list) else encoded[p] for p in prompts]
    seeds = [derive_seed(seed, i) for i in range(len(ids))] if isinstance(seed, int) else list(seed)
    sampling = Sampling(max_new_tokens, temperature, top_k)
    with merged_adapters(model) as plain:
        longest = max(map(len, ids), default=0) + max_new_tokens
        check_length(plain.config, longest, "a prompt with its new tokens", "lower max_prompt_tokens or max_new_tokens")
        generate = generate_shared if can_share_prefixes(plain) else generate_padded
        stop = find_stop_ids(tokenizer, plain)
        new = generate(plain, ids, sampling, seeds, stop, tokenizer.pad_token_id, budget, track)
    return [_decode_sample(x, tokenizer, stop) for x in new]


def _decode_sample(ids: list[int], tokenizer: PreTrainedTokenizerBase, stop: Sequence[int]) -> Sample:
    """Decode generated ids, which end at a stop token or at the length limit."""
    finished = bool(ids) and ids[-1] in stop
    # Stop tokens are removed by their ids: not all of them are special tokens.
    text = str(tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True))
    return Sample(ids, text.strip(), finished)


def group_samples(prompt_ids: Sequence[list[int]], samples: Sequence[Sample], per_prompt: int) -> list[Group]:
    """Group each prompt with its `per_prompt` consecutive samples."""
    return [
        Group(ids, [s.ids for s in samples[i * per_prompt : (i + 1) * per_prompt]]) for i, ids in enumerate(prompt_ids)
    ]
