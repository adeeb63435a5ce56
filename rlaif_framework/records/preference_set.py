"""Write labels as a preference data set, in the form that TRL and `datasets` read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import TypedDict

from rlaif_framework.files import atomic_path
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Labelled

PREFERENCE_SET = "preferences.parquet"
"""Name of the file in a folder, beside its dataset card."""

MIN_PROBABILITY = 1e-6
"""Lower bound of a probability when a margin is computed, so that margins are finite."""


class PreferenceRow(TypedDict):
    """A row of a preference data set."""

    prompt: str
    chosen: str
    rejected: str
    margin: float
    """Log-odds of the chosen response."""
    probability: float
    """Probability that the chosen response is the better one, by the labeler."""
    gold: float | None
    """The same by the gold preference; null if there is none."""
    confidence: float | None
    slice: str | None
    id: str


JSON_COLUMNS = ("prompt", "chosen", "rejected", "margin")
"""Columns of JSON Lines. The others may be null in many rows, so that readers could not infer their types."""


def write_preference_set(path: Path, labels: Iterable[Labelled]) -> tuple[int, int]:
    """Write the rows of labels that prefer a response as Parquet, or with fewer columns as JSON Lines.

    Args:
        path: The file, whose suffix decides the format.
        labels: The labels.

    Returns:
        The number of rows written, and the number of labels left out: missing ones and exact ties.
    """
    written = left_out = 0

    def rows() -> Iterator[PreferenceRow]:
        nonlocal written, left_out
        for labelled in labels:
            row = to_preference_row(labelled)
            if row is None:
                left_out += 1
            else:
                written += 1
                yield row

    if path.suffix == ".parquet":
        from rlaif_framework.records.parquet import write_parquet  # imports pyarrow

        write_parquet(path, rows(), PreferenceRow)
    else:
        with atomic_path(path) as temporary:
            write_rows(temporary, ({k: v for k, v in row.items() if k in JSON_COLUMNS} for row in rows()))
    return written, left_out


def to_preference_row(labelled: Labelled) -> PreferenceRow | None:
    """Convert a label to a row of a preference data set; None if neither response is preferred."""
    comparison, preference = labelled
    if preference.probabilities is None or preference.probabilities[0] == preference.probabilities[1]:
        return None
    # With the white space of the user's rows, which tokenizers do not ignore.
    texts, gold = comparison.raw_responses or comparison.responses, comparison.preference
    first_is_chosen = preference.probabilities[0] > 0.5
    probability = max(preference.probabilities)
    capped = min(probability, 1 - MIN_PROBABILITY)
    return PreferenceRow(
        prompt=comparison.prompt.text,
        chosen=texts[0 if first_is_chosen else 1],
        rejected=texts[1 if first_is_chosen else 0],
        margin=math.log(capped) - math.log1p(-capped),
        probability=probability,
        gold=gold if gold is None or first_is_chosen else 1 - gold,
        confidence=comparison.confidence,
        slice=comparison.slice,
        id=comparison.id,
    )
