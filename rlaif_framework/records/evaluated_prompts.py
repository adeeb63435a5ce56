"""Test prompts with each policy's response, its rewards and the judges' verdicts, for people to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Preference

MAX_GROUP = 40
"""Longest text of a column that counts as the name of a group."""


@dataclass(frozen=True, slots=True)
class EvaluatedResponse:
    """A policy's response to a test prompt."""

    text: str
    rewards: dict[str, float] = field(default_factory=dict)
    """Score by the reward of each arm that scored it."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the response, such as `tokens`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's preference between the responses of two policies."""

    first: str
    second: str
    judge: str
    probability: float | None
    """Probability that the first policy's response is better; None if the verdict could not be read."""
    orders: tuple[float | None, ...] = ()
    """The same probability by each order that was shown: the first policy's response first, then second."""
    rationales: tuple[tuple[str, ...], ...] = ()
    """What the judge wrote before its answers, by order like `orders`; empty if nothing was written."""

    @classmethod
    def read(cls, first: str, second: str, judge: str, preference: Preference) -> Verdict:
        """Convert a judge's preference, whose first response is that of the first policy."""
        evidence = preference.evidence
        # The response shown first is the second one in the swapped order.
        swapped = (True,) if evidence.swapped else (False, True)
        orders = tuple(
            None if pair is None else pair[int(swap)] for pair, swap in zip(evidence.shown, swapped, strict=False)
        )
        return cls(
            first,
            second,
            judge,
            None if preference.probabilities is None else preference.probabilities[0],
            (None, *orders) if evidence.swapped else orders,
            tuple(map(tuple, evidence.rationales)),
        )


@dataclass(frozen=True, slots=True)
class EvaluatedPrompt:
    """A test prompt and everything that was measured on the responses to it."""

    id: str
    prompt: str
    reference: str | None
    groups: dict[str, str]
    """Short columns of the prompt's row, by which prompts can be filtered."""
    responses: dict[str, EvaluatedResponse]
    """The response of each policy."""
    verdicts: list[Verdict]


def save_evaluated(path: Path, prompts: Iterable[EvaluatedPrompt]) -> None:
    """Write one row for each prompt."""
    write_rows(path, map(asdict, prompts))


def find_groups(columns: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Return the columns that may name a group of prompts: short texts, and true or false."""
    found = {name: str(value).lower() if isinstance(value, bool) else value for name, value in columns}
    return {name: value for name, value in found.items() if isinstance(value, str) and 0 < len(value) <= MAX_GROUP}
