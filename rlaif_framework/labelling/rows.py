"""A labelled comparison as a row of the output, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison, Preference, Prompt
from rlaif_framework.records.rows import read_preference

Labelled = tuple[Comparison, Preference]


def to_row(comparison: Comparison, preference: Preference) -> dict[str, Any]:
    """What `labels.jsonl` says of one comparison."""
    return {
        "id": comparison.id,
        "prompt": comparison.prompt.text,
        "responses": list(comparison.given or comparison.responses),
        "probabilities": preference.probabilities,
        "human": comparison.preference,
        "confidence": comparison.confidence,
        "slice": comparison.slice,
        "evidence": asdict(preference.evidence),
    }


def from_row(row: Mapping[str, Any]) -> Labelled:
    """The comparison and its preference; the prompt's source and reference are not kept in a row."""
    given = first, second = row["responses"]
    known = row["human"]
    source: Any = None if known is None else "human"
    prompt = Prompt(row["id"], row["prompt"], row["prompt"])
    responses = first.strip(), second.strip()
    comparison = Comparison(
        row["id"],
        prompt,
        responses,
        known,
        source,
        row["confidence"],
        row["slice"],
        None if given == list(responses) else (first, second),
    )
    return comparison, read_preference({**row, "comparison": row["id"]})


def read_labels(path: Path) -> Iterator[Labelled]:
    """Yield the rows of a `labels.jsonl`, one at a time."""
    return (from_row(row) for _, row in read_rows(path))
