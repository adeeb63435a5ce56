"""A causal language model as a policy: it samples responses and gives their log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.generation import Sampling, can_branch, generate_branches, generate_rows
from rlaif_framework.losses import selective_logprobs
from rlaif_framework.models import merged_adapters
from rlaif_framework.packing import Group, Packed, head_reads
from rlaif_framework.protocols import Task
from rlaif_framework.seeds import derive_seed
from rlaif_framework.types import Prompt


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: list[int]
    """Token ids, the end token included if it was reached."""
    text: str
    finished: bool
    """Whether the end token was reached."""


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


def shorten_prompts(
    prompts: Sequence[Prompt], task: Task, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Prompt], int]:
    """Cut the sources of prompts that are too long; gives the prompts and how many were cut."""

    def fits(text: str) -> bool:
        return len(encode_prompt(tokenizer, text)) <= max_tokens

    short = [prompt if fits(prompt.text) else task.shorten(prompt, fits) for prompt in prompts]
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


def response_logits(model: nn.Module, packed: Packed) -> Tensor:
    """Logits that predict every response token of a packed batch, (response tokens, vocabulary).

    The head runs at response positions only, and each prompt is computed once for all its responses.
    """
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    head = inner.get_output_embeddings()  # type: ignore[operator]
    with head_reads(head, packed.rows, packed.columns):
        logits: Tensor = model(**packed.model_inputs(inner), use_cache=False).logits
    return logits.squeeze(0)  # not [0], whose gradient is copied into zeros of the same size


def response_logprobs(model: nn.Module, packed: Packed, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of every response token of a packed batch, (response tokens,) in fp32."""
    return selective_logprobs(response_logits(model, packed), packed.targets, temperature)


def group_samples(prompt_ids: Sequence[list[int]], samples: Sequence[Sample], per_prompt: int) -> list[Group]:
    """Put `per_prompt` consecutive samples of each prompt into one group."""
    return [
        Group(ids, [s.ids for s in samples[i * per_prompt : (i + 1) * per_prompt]]) for i, ids in enumerate(prompt_ids)
    ]
