"""Find what sequences of tokens begin with in common, so that a model computes it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.models.packing import Group

WORTH_SHARING = 16
"""Tokens in common from which on sharing pays for the wider rows."""


@dataclass(frozen=True, slots=True)
class Branches:
    """Sequences laid out as one prefix for all, then groups of a shared part and its branches."""

    prefix: list[int]
    """What all sequences begin with."""
    groups: list[Group]
    """`prompt` is what the sequences of a group share after the prefix, `responses` their remainders, never empty."""
    members: list[list[list[int]]]
    """[group][branch] indices of the sequences it stands for: several if they are equal."""

    @property
    def tokens(self) -> int:
        """Tokens to compute."""
        return len(self.prefix) + sum(group.length for group in self.groups)


def share_prefixes(sequences: Sequence[Sequence[int]], known: Sequence[int] = ()) -> Branches:
    """Lay sequences out so that shared beginnings are computed once.

    Args:
        sequences: Token ids; none may be empty.
        known: A text whose computation was kept; if it makes up nearly all of the prefix, the prefix ends with it.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    first, last = sequences[order[0]], sequences[order[-1]]
    start = count_common(first, last)  # of sorted sequences, the ends share least
    start = min(start, min(map(len, sequences)) - 1)  # every sequence keeps a token to read from
    kept = count_common(first[:start], known)
    start = kept if kept >= 0.9 * start else start
    if start < WORTH_SHARING:
        start = 0
    groups: list[Group] = []
    members: list[list[list[int]]] = []
    at = 0
    while at < len(order):
        end, shared = _extend_group(sequences, order, at, start)
        bundle = order[at:end]
        shortest = min(len(sequences[i]) for i in bundle)
        shared = min(shared, shortest - 1)
        branches: list[list[int]] = []
        owners: list[list[int]] = []
        for i in bundle:
            rest = list(sequences[i][shared:])
            if branches and branches[-1] == rest:
                owners[-1].append(i)
            else:
                branches.append(rest)
                owners.append([i])
        groups.append(Group(list(sequences[bundle[0]][start:shared]), branches))
        members.append(owners)
        at = end
    return Branches(list(first[:start]), groups, members)


def _extend_group(sequences: Sequence[Sequence[int]], order: list[int], at: int, start: int) -> tuple[int, int]:
    """How many of the sorted sequences from `at` on belong together, and the length of what they share.

    A sequence joins while that computes fewer tokens than it costs to carry its branch: it must share more than it
    adds.
    """
    shared = len(sequences[order[at]])
    end = at + 1
    while end < len(order):
        common = count_common(sequences[order[end - 1]], sequences[order[end]], start)
        both = min(shared, common)
        if both - start < WORTH_SHARING and sequences[order[end - 1]] != sequences[order[end]]:
            break
        # What the group gains by this sequence, against what its members lose by sharing less.
        if (both - start) < (shared - both) * (end - at) * (end - at > 1):
            break
        shared = both
        end += 1
    return end, shared


def count_common(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """Length of what both begin with; they are known to agree before `start`."""
    end = min(len(a), len(b))
    return next((i for i in range(start, end) if a[i] != b[i]), end)
