"""Convert labelled comparisons to rows of `labels.jsonl` and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Labelled, Preference, Prompt
from rlaif_framework.records.rows import dump_evidence, read_preference


class LabelRow(TypedDict):
    """A row of `labels.jsonl`."""

    id: str
    prompt: str
    responses: tuple[str, str]
    probabilities: tuple[float, float] | None
    """Probability of each response to be the better one; null if there is no label."""
    human: float | None
    """Probability that the first response is the better one, by people."""
    confidence: float | None
    slice: str | None
    evidence: Evidence


def to_row(comparison: Comparison, preference: Preference) -> dict[str, Any]:
    """Convert a comparison and its label to a row."""
    return {
        "id": comparison.id,
        "prompt": comparison.prompt.text,
        "responses": list(comparison.raw_responses or comparison.responses),
        "probabilities": preference.probabilities,
        "human": comparison.preference,
        "confidence": comparison.confidence,
        "slice": comparison.slice,
        "evidence": dump_evidence(preference.evidence),
    }


def from_row(row: Mapping[str, Any]) -> Labelled:
    """Convert a row to the comparison and its label. The prompt's source and reference are not in the row."""
    raw_responses = first, second = row["responses"]
    responses = first.strip(), second.strip()  # labelers receive responses without surrounding white space
    comparison = Comparison(
        id=row["id"],
        prompt=Prompt(row["id"], row["prompt"], row["prompt"]),
        responses=responses,
        preference=row["human"],
        preference_source=None if row["human"] is None else "human",
        confidence=row["confidence"],
        slice=row["slice"],
        raw_responses=None if raw_responses == list(responses) else (first, second),
    )
    return comparison, read_preference({**row, "comparison": row["id"]})


def read_labels(path: Path) -> Iterator[Labelled]:
    """Yield the rows of a `labels.jsonl`, one at a time."""
    return (from_row(row) for _, row in read_rows(path))
