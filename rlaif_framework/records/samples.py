"""Responses sampled from a policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: list[int]
    """Token ids, including the EOS token if it was generated."""
    text: str
    finished: bool
    """True if the EOS token was generated."""


@dataclass(frozen=True, slots=True)
class MeasuredSample:
    """A sampled response with its metrics."""

    prompt: str
    """Id of the prompt."""
    ids: list[int]
    """Token ids, without the EOS token."""
    metrics: dict[str, float]
    """The metrics that apply to it; `reward` if it has one."""
