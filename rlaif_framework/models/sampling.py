"""Encode prompts and sample responses from a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.contracts.protocols import Task
from rlaif_framework.models.adapters import merged_adapters
from rlaif_framework.models.decoding import Sampling, can_branch, generate_branches, generate_rows
from rlaif_framework.models.packing import Group
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.seeds import derive_seed


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt, with the tokenizer's own start token, once."""
    ids: list[int] = tokenizer(text)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text; a prompt must go on
        ids = ids[:-1]
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    return ids


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None = None) -> list[int]:
    """Token ids of a response: a space, the text, the end token (Huang et al. 2024); cut if they are too many."""
    ids = [*tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return ids[:max_tokens]


def truncate_prompts(
    prompts: Sequence[Prompt], task: Task, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Prompt], int]:
    """Cut the sources of prompts that are too long; gives the prompts and how many were cut."""

    def fits(text: str) -> bool:
        return len(encode_prompt(tokenizer, text)) <= max_tokens

    short = [prompt if fits(prompt.text) else task.truncate(prompt, fits) for prompt in prompts]
    return short, sum(a is not b for a, b in zip(prompts, short, strict=True))


@torch.no_grad()
def sample_responses(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | Sequence[int],
    top_k: int = 0,
    budget: int = 16384,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[Sample]:
    """Sample one response to each prompt from the whole distribution (no top-p), batched by length.

    Adapters are merged into a copy of the weights they adapt for as long as it takes.

    Args:
        model: A causal LM of transformers, adapters or not.
        tokenizer: Its tokenizer.
        prompts: Rendered prompts, or their token ids; name one several times for several responses: it is computed
            once.
        max_new_tokens: Length at most.
        temperature: Logits are divided by it; 0 is greedy.
        seed: Of the random numbers: one from which each prompt's is derived by its place, or one for each prompt.
        top_k: Sample among the k likeliest tokens only; 0 is all.
        budget: Tokens at most in a batch, padding and new tokens included.
        track: Wraps the list of batches, for a progress bar.
    """
    ids = [encode_prompt(tokenizer, p) if isinstance(p, str) else p for p in prompts]
    seeds = [derive_seed(seed, i) for i in range(len(ids))] if isinstance(seed, int) else list(seed)
    sampling = Sampling(max_new_tokens, temperature, top_k)
    with merged_adapters(model) as plain:
        generate = generate_branches if can_branch(plain) else generate_rows
        new = generate(plain, ids, sampling, seeds, [tokenizer.eos_token_id], tokenizer.pad_token_id, budget, track)
    return [_read_sample(x, tokenizer) for x in new]


def _read_sample(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Sample:
    finished = tokenizer.eos_token_id in ids
    if finished:
        ids = ids[: ids.index(tokenizer.eos_token_id) + 1]
    return Sample(ids, str(tokenizer.decode(ids, skip_special_tokens=True)).strip(), finished)


def group_samples(prompt_ids: Sequence[list[int]], samples: Sequence[Sample], per_prompt: int) -> list[Group]:
    """Put `per_prompt` consecutive samples of each prompt into one group."""
    return [
        Group(ids, [s.ids for s in samples[i * per_prompt : (i + 1) * per_prompt]]) for i, ids in enumerate(prompt_ids)
    ]
