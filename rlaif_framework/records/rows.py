"""Convert comparisons and preferences to rows of JSON Lines and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt, Turn, Vote


def save_comparisons(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons with their prompts."""
    write_rows(path, map(asdict, comparisons))


def load_comparisons(path: Path) -> list[Comparison]:
    """Read the comparisons that `save_comparisons` wrote. The file may be empty."""
    # An artefact may have no comparisons; `read_rows` regards an empty file as an error of the user.
    if path.stat().st_size == 0:
        return []
    return [read_comparison(row) for _, row in read_rows(path)]


def read_comparison(row: Mapping[str, Any]) -> Comparison:
    """Convert a row to a comparison."""
    # JSON has lists where the records have tuples, which can be compared and hashed.
    first, second = row["responses"]
    raw = row["raw_responses"]
    return Comparison(
        **{
            **row,
            "prompt": _read_prompt(row["prompt"]),
            "responses": (first, second),
            "raw_responses": None if raw is None else (raw[0], raw[1]),
        }
    )


def _read_prompt(row: Mapping[str, Any]) -> Prompt:
    turns = tuple(Turn(*turn) for turn in row["turns"])
    return Prompt(**{**row, "turns": turns, "truncatable": row["truncatable"] and tuple(row["truncatable"])})


def dump_evidence(evidence: Evidence) -> dict[str, Any]:
    """Convert evidence to JSON content, without what depends on interruptions of the run."""
    return {name: value for name, value in asdict(evidence).items() if name != "unanswered"}


def load_preferences(path: Path) -> list[Preference]:
    """Read preferences. The file may be empty."""
    if path.stat().st_size == 0:
        return []
    return [read_preference(row) for _, row in read_rows(path)]


def read_preference(row: Mapping[str, Any]) -> Preference:
    """Convert a row to a preference."""
    evidence = dict(row["evidence"])
    orders = tuple(
        Ballot(**{**b, "probabilities": _pair(b["probabilities"]), "rationales": tuple(b.get("rationales", ()))})
        for b in evidence.pop("orders")
    )
    scores = _pair(evidence.pop("scores"))
    members = tuple(Vote(**{**v, "probabilities": _pair(v["probabilities"])}) for v in evidence.pop("members", ()))
    for name in ("dropped", "read_from"):
        evidence[name] = tuple(evidence.pop(name, ()))
    return Preference(
        row["comparison"],
        _pair(row["probabilities"]),
        Evidence(orders=orders, scores=scores, members=members, **evidence),
    )


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
