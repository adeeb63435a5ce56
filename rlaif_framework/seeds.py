"""One seed in the spec, and independent named streams derived from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of a named stream.

    The same seed and names give the same number on every machine, and streams of different names are independent,
    so that adding a draw to one stage changes nothing in another.

    Args:
        seed: The spec's seed.
        names: The stream, from the general to the particular, e.g. `("improve", "rlaif", "step", 12)`.

    Returns:
        An integer in [0, 2**63).
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


T = TypeVar("T")


def sample_subset(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """At most `limit` items chosen at random, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[i] for i in chosen]
