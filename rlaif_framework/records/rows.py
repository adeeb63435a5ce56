"""Comparisons, preferences and responses as rows of JSON Lines, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt, Vote


def save_comparisons(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons, prompts included."""
    write_rows(path, map(asdict, comparisons))


def load_comparisons(path: Path) -> list[Comparison]:
    """Read what `save_comparisons` wrote; an empty file is an empty list."""
    if path.stat().st_size == 0:
        return []
    return [read_comparison(row) for _, row in read_rows(path)]


def read_comparison(row: Mapping[str, Any]) -> Comparison:
    """A comparison from its row."""
    first, second = row["responses"]
    given = row.get("given")
    return Comparison(
        **{
            **row,
            "prompt": Prompt(**row["prompt"]),
            "responses": (first, second),
            "given": None if given is None else (given[0], given[1]),
        }
    )


def load_preferences(path: Path) -> list[Preference]:
    """Read preferences; an empty file is an empty list."""
    if path.stat().st_size == 0:
        return []
    return [read_preference(row) for _, row in read_rows(path)]


def read_preference(row: Mapping[str, Any]) -> Preference:
    """A preference from its row."""
    evidence = dict(row["evidence"])
    orders = tuple(
        Ballot(**{**b, "probabilities": _pair(b["probabilities"]), "rationales": tuple(b.get("rationales", ()))})
        for b in evidence.pop("orders")
    )
    scores = _pair(evidence.pop("scores"))
    members = tuple(Vote(v["labeler"], _pair(v["probabilities"])) for v in evidence.pop("members", ()))
    dropped = tuple(evidence.pop("dropped", ()))
    return Preference(
        row["comparison"],
        _pair(row["probabilities"]),
        Evidence(orders=orders, scores=scores, members=members, dropped=dropped, **evidence),
    )


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
