"""Reasons to doubt the numbers of a report, grouped by kind for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

HEADLINES = {
    "judge is labeler": "The judge is the labeler: its win rates are not evidence of quality",
    "chance labels": "Labels that agree with the gold preferences not measurably better than chance",
    "exploited reward": "The reward may be exploited",
    "human labels": "Human labels do not confirm the judge",
    "not measured": "Not measured",
    "length rule": "Labels that agree with people no better than a rule by length",
    "position": "Labels that follow the position of a response",
    "length": "The difference may be due to length",
    "weak reward": "A reward that is no more accurate than always picking by length",
    "responses": "Responses that are empty, copied, cut off or without an end",
    "unreadable": "Answers that could not be read, or are rarely a label",
    "no label": "Comparisons without a label",
    "truncated": "Texts that were truncated",
    "mixed answers": "Probabilities of the model mixed with counts of sampled answers",
    "shared model": "The judge may share errors with a labeler",
    "no difference": "No significant difference",
    "gold": "The gold preferences are not from human raters",
    "run": "Other",
}
"""Headline of each kind, those that weigh most first. Other kinds come last."""


class Caution(NamedTuple):
    """A reason to doubt a number."""

    kind: str
    """One of `HEADLINES`."""
    about: str
    """The arm, labeler or matchup concerned; may be empty."""
    text: str
    """A sentence."""


class CautionGroup(NamedTuple):
    """The cautions of one kind."""

    headline: str
    about: list[str]
    """What they concern, each once."""
    texts: list[str]


def group_cautions(cautions: Iterable[Caution], warnings: Sequence[str]) -> list[CautionGroup]:
    """Group the warnings of a report, the kinds that weigh most first.

    Args:
        cautions: Those that are known, which may be more than the warnings.
        warnings: The warnings of the report. One that is no known caution is of the kind `run`.
    """
    known = {caution.text: caution for caution in cautions}
    groups: dict[str, list[Caution]] = {kind: [] for kind in HEADLINES}
    for text in warnings:
        caution = known.get(text, Caution("run", "", text))
        groups[caution.kind].append(caution)
    return [
        CautionGroup(
            HEADLINES[kind],
            list(dict.fromkeys(caution.about for caution in found if caution.about)),
            [caution.text for caution in found],
        )
        for kind, found in groups.items()
        if found
    ]
