"""Pack the test prompts of a run, with responses and verdicts, into the page."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A row of `samples.jsonl`: an `EvaluatedPrompt`."""
METRICS = ("tokens", "eos_rate")
"""Metrics of a response that the browser shows."""
ESCAPED = bytes.maketrans(b"<>&", b",.:")
"""Letters of base 85 that mean something in HTML, and others in their place. Base 64 would be a sixteenth longer."""
MAX_BYTES = 13_000_000
"""Maximum size of the packed samples, so that browsers open the page at once."""


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """Samples as compressed JSON."""

    data: str
    """Base 85 of gzip of JSON."""
    shown: int
    """Number of samples in it."""
    total: int


def pack_samples(rows: Sequence[Row], limit: int = MAX_BYTES) -> PackedSamples | None:
    """Pack as many samples as fit into the page, the first ones; None without samples.

    Args:
        rows: Test prompts, as in `samples.jsonl`.
        limit: Maximum size in bytes.
    """
    if not rows:
        return None
    shown = len(rows)
    data = _compress(rows)
    while len(data) > limit and shown > 1:
        # A little less than in proportion, so that few attempts are needed.
        shown = max(1, int(0.97 * shown * limit / len(data)))
        data = _compress(rows[:shown])
    return PackedSamples(data, shown, len(rows))


def _compress(rows: Sequence[Row]) -> str:
    matchups = _number([verdict["first"], verdict["second"]] for row in rows for verdict in row["verdicts"])
    judges = _number(verdict["judge"] for row in rows for verdict in row["verdicts"])
    content = {
        "policies": list(dict.fromkeys(name for row in rows for name in row["responses"])),
        "matchups": [json.loads(name) for name in matchups],
        "judges": [json.loads(name) for name in judges],
        "samples": [_shorten(row, matchups, judges) for row in rows],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Equal samples give equal pages: without the time of compression. Half of a surrogate pair is no UTF-8.
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)
    return base64.b85encode(packed).translate(ESCAPED).decode()


SIDES = ("first", "second")
"""Keys of the two policies of a verdict; a policy without responses is the reference."""


def _number(values: Iterable[Any]) -> dict[str, int]:
    """Number distinct JSON values in the order of their appearance."""
    names = dict.fromkeys(json.dumps(value) for value in values)
    return {name: number for number, name in enumerate(names)}


def _shorten(row: Row, matchups: Mapping[str, int], judges: Mapping[str, int]) -> dict[str, Any]:
    """Write verdicts as lists and round numbers, since there may be many: not so far that an outcome would change."""
    texts = {name: response["text"] for name, response in row["responses"].items()}
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "reference": row["reference"],
        "groups": row["groups"],
        "responses": {
            name: [
                response["text"],
                _round(response["rewards"]),
                {key: value for key, value in response["metrics"].items() if key in METRICS},
            ]
            for name, response in row["responses"].items()
        },
        "verdicts": [
            [
                matchups[json.dumps([verdict["first"], verdict["second"]])],
                judges[json.dumps(verdict["judge"])],
                # Pairs of two empty responses are no ties: win rates do not count them.
                _round(verdict["probability"]) if any(texts.get(verdict[side], "-") for side in SIDES) else None,
                _round(list(verdict["orders"])),
                list(verdict["rationales"]),
            ]
            for verdict in row["verdicts"]
        ],
    }


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _round(nested) for key, nested in value.items()}
    return [_round(nested) for nested in value] if isinstance(value, list) else value
