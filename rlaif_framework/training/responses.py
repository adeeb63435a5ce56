"""Truncate prompts and sample responses with the run's settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.models.chat import encode_prompt
from rlaif_framework.models.loading import load_model
from rlaif_framework.models.sampling import sample_responses
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample


def truncate_prompts(
    context: Context, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Prompt], int]:
    """Truncate the sources of prompts that are longer than `policy.max_prompt_tokens`.

    Returns:
        All prompts, in order, and the number of truncated ones.
    """
    limit = context.policy.max_prompt_tokens

    def fits(prompt: Prompt) -> bool:
        return len(encode_prompt(tokenizer, prompt)) <= limit

    # A prompt that fits stays the same object, so that identity tells which ones were truncated.
    short = [prompt if fits(prompt) else context.task.truncate(prompt, fits) for prompt in prompts]
    return short, sum(a is not b for a, b in zip(prompts, short, strict=True))


def sample_texts(
    context: Context,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    seed: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[Sample]:
    """Sample one response to each prompt with the policy's length limit and batch size.

    Args:
        context: Settings of the policy.
        model: A loaded causal LM, with or without adapters.
        tokenizer: Tokenizer of the model.
        prompts: Prompts within the length limit; repeat one to sample several responses to it.
        temperature: Sampling temperature; 0 is greedy.
        seed: Seed from which each prompt's seed is derived by its index.
        track: Wrapper of the list of batches, for a progress bar.
    """
    return sample_responses(
        model,
        tokenizer,
        prompts,
        max_new_tokens=context.policy.max_new_tokens,
        temperature=temperature,
        seed=seed,
        budget=context.batch_tokens,
        track=track,
    )


def sample_from(
    context: Context,
    stage: Stage,
    folder: Path,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    seed: int,
    responses: int = 1,
) -> list[Sample]:
    """Load a saved policy and sample responses to prompts, with a progress bar.

    Args:
        context: Settings of the policy, precision and device.
        stage: Stage whose progress bar is shown.
        folder: Folder of the model and its tokenizer.
        prompts: Prompts within the length limit; see `truncate_prompts`.
        temperature: Sampling temperature; 0 is greedy.
        seed: Seed from which each response's seed is derived by its index.
        responses: Responses to each prompt.

    Returns:
        (prompts * responses) samples; those of one prompt are consecutive.
    """
    return sample_texts(
        context,
        load_model(context.find_trained(folder), "causal", context.dtype, context.device),
        context.load_policy_tokenizer(folder),
        [prompt for prompt in prompts for _ in range(responses)],
        temperature=temperature,
        seed=seed,
        track=lambda batches: stage.track(batches, len(batches), "sampling, batches"),
    )


def draw_prompts(stage: Stage, prompts: Sequence[Prompt], limit: int | None) -> Sequence[Prompt]:
    """Return all prompts, or `limit` of them drawn at random with the stage's seed, in the order drawn."""
    if limit is None or limit >= len(prompts):
        return prompts
    # Unlike `sample_subset`, in the order drawn: the seeds of responses are derived by their index.
    return random.Random(stage.seed("prompts")).sample(list(prompts), limit)
