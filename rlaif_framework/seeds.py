"""Derive the seeds of independent random streams from the seed of a spec."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of a named random stream.

    The result depends on the arguments only, not on the machine. Streams with different names are independent, so that
    an additional draw in one stage changes nothing in the others.

    Args:
        seed: The spec's seed.
        names: The name of the stream, from general to specific, e.g. `("improve", "rlaif", "step", 12)`.

    Returns:
        An integer in [0, 2**63).
    """
    text = "/".join(str(part) for part in (seed, *names))
    # Not Python's hash(), which differs between processes. 63 bits fit into a signed 64-bit integer.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


T = TypeVar("T")


def sample_subset(items: Sequence[T], limit: int | None, seed: int, draw: int = 0) -> list[T]:
    """Sample at most `limit` items, and keep their order. A larger sample contains the smaller ones of the same seed.

    Args:
        items: The items.
        limit: Size of the sample; None for all items.
        seed: Seed of the sample.
        draw: Number of the sample. Samples with consecutive numbers have no item in common until all were drawn.
    """
    if limit is None or limit >= len(items):
        return list(items)
    epoch, place = divmod(draw, len(items) // limit)
    order = random.Random(derive_seed(seed, "epoch", epoch)).sample(range(len(items)), len(items))
    return [items[i] for i in sorted(order[place * limit : (place + 1) * limit])]
