"""Comparisons grouped by prompt, so that each prompt and response is computed once for all its comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlaif_framework.errors import TrainingError
from rlaif_framework.models.chat import encode_prompt, encode_response
from rlaif_framework.models.packing import Group
from rlaif_framework.records.preferences import LabelledComparison, Turn


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison of two responses to one prompt."""

    first: int
    """Index of the first response among the prompt's responses."""
    second: int
    """Index of the second response."""
    label: float
    """Probability that the first is better."""
    weight: float
    """Weight in the loss."""


@dataclass(frozen=True, slots=True)
class PromptPairs:
    """A prompt, its distinct responses, and the comparisons between them."""

    group: Group
    """Token ids of the prompt and its responses."""
    pairs: list[Pair]
    """Comparisons of the responses."""


@dataclass(frozen=True, slots=True)
class PairIndex:
    """The comparisons in a batch of prompts, as indices into its responses; (pairs,) each."""

    first: Tensor
    """Index of the first response among all responses of the batch."""
    second: Tensor
    """Index of the second response."""
    labels: Tensor
    """Probability that the first is better."""
    weights: Tensor
    """Weight in the loss."""


def group_by_prompt(
    labels: Sequence[LabelledComparison], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None = None
) -> list[PromptPairs]:
    """Group comparisons by prompt, in the order in which prompts first appear, and encode them.

    Args:
        labels: The comparisons.
        tokenizer: Tokenizer of the model that is trained.
        max_tokens: Longer responses are truncated.
    """
    grouped: dict[tuple[Turn, ...], PromptPairs] = {}  # by the contents of the prompt, which may have several ids
    indices: dict[tuple[Turn, ...], dict[str, int]] = {}  # index of each response, by prompt and text
    for label in labels:
        key = label.comparison.prompt.conversation
        if key not in grouped:
            grouped[key] = PromptPairs(Group(encode_prompt(tokenizer, label.comparison.prompt), []), [])
            indices[key] = {}
        prompt, seen = grouped[key], indices[key]
        for response in label.comparison.responses:
            if response not in seen:
                seen[response] = len(seen)
                prompt.group.responses.append(encode_response(tokenizer, response, max_tokens))
        first, second = (seen[response] for response in label.comparison.responses)
        prompt.pairs.append(Pair(first, second, label.probabilities[0], label.weight))
    return list(grouped.values())


def count_batch_prompts(batch_size: int, prompts: int, labels: int, processes: int) -> int:
    """Return the number of prompts in a batch, since comparisons of a prompt stay together.

    Args:
        batch_size: Mean number of comparisons in a batch.
        prompts: Number of all prompts.
        labels: Number of all comparisons.
        processes: Number of processes that share a batch.

    Raises:
        TrainingError: There are more processes than prompts in a batch.
    """
    size = max(1, round(batch_size * prompts / labels))
    if size < processes:
        raise TrainingError(
            f"batch_size: {batch_size} comparisons are about {size} prompts with {labels / prompts:.3g} comparisons "
            f"each, which {processes} processes cannot share; set batch_size: {math.ceil(processes * labels / prompts)}"
        )
    return size


def index_pairs(batch: Sequence[PromptPairs], device: torch.device) -> PairIndex:
    """Return the comparisons of a batch of prompts as indices into all its responses."""
    starts = accumulate((len(prompt.group.responses) for prompt in batch), initial=0)
    rows = [
        (start + pair.first, start + pair.second, pair.label, pair.weight)
        for prompt, start in zip(batch, starts, strict=False)  # the last start is the total
        for pair in prompt.pairs
    ]
    first, second, labels, weights = zip(*rows, strict=True)  # rows to columns
    return PairIndex(*(torch.tensor(column, device=device) for column in (first, second, labels, weights)))
