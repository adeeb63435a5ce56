"""A response sampled from a policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: list[int]
    """Token ids, the end token included if it was reached."""
    text: str
    finished: bool
    """Whether the end token was reached."""
