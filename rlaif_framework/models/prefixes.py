"""Find the shared prefixes of token sequences, and compute each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlaif_framework.models.layouts import layout_of
from rlaif_framework.models.packing import Group, Packed, pack_groups, select_head_positions

MIN_SHARED = 16
"""Minimum length of a shared prefix, in tokens; with shorter ones, the wider rows cost more than sharing saves."""


@dataclass(frozen=True, slots=True)
class Branches:
    """Sequences as a tree of two levels: a prefix of all, and groups with a shared part and its continuations."""

    prefix: list[int]
    """Prefix of all sequences."""
    groups: list[Group]
    """`prompt`: what the sequences of a group share after the prefix; `responses`: their rests, never empty."""
    members: list[list[list[int]]]
    """[group][branch] indices of the sequences that end with a branch: several if they are equal."""

    @property
    def tokens(self) -> int:
        """Tokens to compute."""
        return len(self.prefix) + sum(group.length for group in self.groups)


def share_prefixes(sequences: Sequence[Sequence[int]], known: Sequence[int] = ()) -> Branches:
    """Arrange sequences so that shared prefixes are computed once.

    Args:
        sequences: Token ids; none may be empty.
        known: Token ids of a prefix whose keys and values are cached already. If it covers at least 90 % of the shared
            prefix, the prefix is shortened to it, so that the cached values can be used.
    """
    # Sequences with a common prefix are neighbours in sorted order.
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    start = _find_prefix(sequences, order, known)
    groups: list[Group] = []
    members: list[list[list[int]]] = []
    first = 0
    while first < len(order):
        end, shared = _extend_group(sequences, order, first, start)
        chosen = order[first:end]
        shared = min(shared, min(len(sequences[i]) for i in chosen) - 1)  # no branch may be empty
        branches: list[list[int]] = []
        indices: list[list[int]] = []
        for i in chosen:
            rest = list(sequences[i][shared:])
            if branches and branches[-1] == rest:  # equal sequences are neighbours
                indices[-1].append(i)
            else:
                branches.append(rest)
                indices.append([i])
        groups.append(Group(list(sequences[chosen[0]][start:shared]), branches))
        members.append(indices)
        first = end
    return Branches(list(sequences[order[0]][:start]), groups, members)


def _find_prefix(sequences: Sequence[Sequence[int]], order: Sequence[int], known: Sequence[int]) -> int:
    """Return the length of the prefix of all sorted sequences; 0 if it is too short to share."""
    first = sequences[order[0]]
    length = count_common(first, sequences[order[-1]])  # the first and last of sorted ones share least
    length = min(length, min(map(len, sequences)) - 1)  # every sequence keeps a token to predict from
    cached = count_common(first[:length], known)
    length = cached if cached >= 0.9 * length else length
    return 0 if length < MIN_SHARED else length


def _extend_group(sequences: Sequence[Sequence[int]], order: list[int], first: int, start: int) -> tuple[int, int]:
    """Find the group of sorted sequences that begins at `first`.

    Sequences are added as long as that does not increase the number of tokens to compute.

    Args:
        sequences: Token ids.
        order: Indices of the sequences, sorted.
        first: Position in `order` of the group's first sequence.
        start: Length of the prefix of all sequences.

    Returns:
        The position in `order` after the group's last sequence, and the length of the part that the group shares, the
        prefix of all included.
    """
    shared = len(sequences[order[first]])
    end = first + 1
    while end < len(order):
        common = count_common(sequences[order[end - 1]], sequences[order[end]], start)
        both = min(shared, common)
        if both - start < MIN_SHARED and sequences[order[end - 1]] != sequences[order[end]]:
            break
        # Tokens that sharing saves for the sequence, against those that its predecessors would share no longer.
        if (both - start) < (shared - both) * (end - first) * (end - first > 1):
            break
        shared = both
        end += 1
    return end, shared


def arrange_sequences(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], known: Sequence[int] = ()
) -> Branches:
    """Arrange sequences as `share_prefixes` does if the model can share prefixes, else in a row for each sequence."""
    layout = layout_of(model)
    if layout.packed and layout.prefixes:
        return share_prefixes(sequences, known)
    places: dict[tuple[int, ...], list[int]] = {}
    for i, ids in enumerate(sequences):
        places.setdefault(tuple(ids), []).append(i)
    groups = [Group(list(ids[:-1]), [list(ids[-1:])]) for ids in places]
    return Branches([], groups, [[equal] for equal in places.values()])


def count_common(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """Return the length of the longest common prefix; the sequences must agree before `start`."""
    end = min(len(a), len(b))
    return next((i for i in range(start, end) if a[i] != b[i]), end)


def compute_prefix(model: PreTrainedModel, ids: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Compute the keys and values of a text in each layer, (1, key heads, length, width); an empty list for no text."""
    if not ids:
        return []
    cache = DynamicCache()  # without the config, whose windows would drop keys that later tokens of a row may need
    inputs = torch.tensor([list(ids)], device=model.device)
    nowhere = torch.zeros(0, dtype=torch.long, device=model.device)
    with select_head_positions(model.get_output_embeddings(), nowhere, nowhere):  # no logits are needed
        model(input_ids=inputs, past_key_values=cache, use_cache=True)
    return read_cache(cache)


def forward_groups(
    model: PreTrainedModel,
    groups: Sequence[Group],
    prefix: Sequence[tuple[Tensor, Tensor]],
    pad_id: int,
    cache: DynamicCache | None = None,
) -> tuple[Tensor, Packed]:
    """Compute the logits after the last token of every branch.

    Args:
        model: A causal LM of transformers.
        groups: Shared parts, each with its branches.
        prefix: Result of `compute_prefix` for the text before all groups.
        pad_id: Any token, to fill rows.
        cache: Filled with the keys and values of prefix and rows, (groups, key heads, length, width).

    Returns:
        (branches, vocabulary) logits, and the packed rows.
    """
    packed = pack_groups(groups, pad_id, model.device)
    inputs = packed.model_inputs(model, prefix[0][0].shape[2] if prefix else 0)
    if prefix:
        cache = DynamicCache() if cache is None else cache
        for layer, (keys, values) in enumerate(prefix):
            cache.update(keys.expand(len(groups), -1, -1, -1), values.expand(len(groups), -1, -1, -1), layer)
    with select_head_positions(model.get_output_embeddings(), packed.ends[:, 0], packed.ends[:, 1]):
        logits = model(**inputs, past_key_values=cache, use_cache=cache is not None).logits[0]
    return logits, packed


def read_cache(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Return the keys and values of every layer."""
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]
