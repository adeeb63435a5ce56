"""Comparisons gathered by prompt, so that a prompt and each of its responses is computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlaif_framework.models.packing import Group
from rlaif_framework.models.sampling import encode_prompt, encode_response
from rlaif_framework.records.preferences import LabelledComparison


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison of two responses of one prompt."""

    first: int
    second: int
    """Places of the two among the prompt's responses."""
    label: float
    """Probability that the first is better."""
    weight: float


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """A prompt, its different responses, and the comparisons between them."""

    group: Group
    pairs: list[Pair]


@dataclass(frozen=True, slots=True)
class PairIndex:
    """The comparisons of a batch of prompts, (pairs,) each."""

    first: Tensor
    second: Tensor
    """Indices of the two responses, counting over the batch."""
    labels: Tensor
    """Probability that the first is better."""
    weights: Tensor


def gather_by_prompt(
    labels: Sequence[LabelledComparison], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None = None
) -> list[PromptUnit]:
    """Put comparisons of one prompt together, in the order in which prompts appear.

    Args:
        labels: The comparisons.
        tokenizer: Of the model to be trained.
        max_tokens: Longer responses are cut.
    """
    units: dict[str, PromptUnit] = {}
    places: dict[str, dict[str, int]] = {}
    for label in labels:
        text = label.comparison.prompt.text
        if text not in units:
            units[text] = PromptUnit(Group(encode_prompt(tokenizer, text), []), [])
            places[text] = {}
        unit, known = units[text], places[text]
        for response in label.comparison.responses:
            if response not in known:
                known[response] = len(known)
                unit.group.responses.append(encode_response(tokenizer, response, max_tokens))
        first, second = (known[response] for response in label.comparison.responses)
        unit.pairs.append(Pair(first, second, label.probabilities[0], label.weight))
    return list(units.values())


def index_pairs(units: Sequence[PromptUnit], device: torch.device) -> PairIndex:
    """Find the comparisons of packed prompts among their responses."""
    starts = accumulate((len(unit.group.responses) for unit in units), initial=0)
    rows = [
        (start + pair.first, start + pair.second, pair.label, pair.weight)
        for unit, start in zip(units, starts, strict=False)
        for pair in unit.pairs
    ]
    first, second, labels, weights = zip(*rows, strict=True)
    return PairIndex(*(torch.tensor(column, device=device) for column in (first, second, labels, weights)))
