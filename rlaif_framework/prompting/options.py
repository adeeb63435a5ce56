"""Probabilities of options of one or more tokens each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

TokenPath = tuple[int, ...]
"""The first tokens of an option."""


def option_paths(options: Sequence[Sequence[int]]) -> list[TokenPath]:
    """Return the paths after which the next token must be read, without repetitions.

    The first token identifies an option, unless another option begins with the same token.

    Args:
        options: Token ids of each option.
    """
    shared = {ids[0] for ids in options if sum(other[0] == ids[0] for other in options) > 1}
    paths = [tuple(ids[:n]) for ids in options for n in range(len(ids) if ids[0] in shared else 1)]
    return list(dict.fromkeys(paths))


def option_probabilities(
    options: Sequence[Sequence[int]], logprobs: Mapping[TokenPath, Mapping[int, float]]
) -> list[float]:
    """Return the probabilities of options of one or more tokens each, over all continuations.

    Args:
        options: Token ids of each option.
        logprobs: Log-probabilities of the next token after each path of `option_paths`.

    Returns:
        The probability of each option. That of a longer option is subtracted from that of its prefix (`10` and `1`).
    """

    def chance(ids: Sequence[int]) -> float:
        steps = [logprobs[tuple(ids[:i])][ids[i]] for i in range(len(ids)) if tuple(ids[:i]) in logprobs]
        return math.exp(sum(steps))

    found = [chance(ids) for ids in options]
    longer = [
        sum(
            found[j]
            for j, other in enumerate(options)
            if len(other) > len(ids) and list(other[: len(ids)]) == list(ids)
        )
        for ids in options
    ]
    # Rounding can make a difference slightly negative.
    return [max(0.0, whole - rest) for whole, rest in zip(found, longer, strict=True)]
