"""Pack the test prompts of a run, with responses and verdicts, into the page."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A row of `samples.jsonl`: an `EvaluatedPrompt`."""
Kind = tuple[str, str, str]
"""The two policies and the judge of a verdict."""
DIGITS = 4
"""Digits of numbers that are kept; the page shows fewer."""
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
    kinds = list(dict.fromkeys(_name(verdict) for row in rows for verdict in row["verdicts"]))
    matchups = list(dict.fromkeys((first, second) for first, second, _ in kinds))
    judges = list(dict.fromkeys(judge for _, _, judge in kinds))
    content = {
        "policies": list(dict.fromkeys(name for row in rows for name in row["responses"])),
        "matchups": matchups,
        "judges": judges,
        "kinds": [[matchups.index((first, second)), judges.index(judge)] for first, second, judge in kinds],
        "samples": [_shorten(row, kinds) for row in rows],
        # Apart from the texts, because numbers compress better among numbers.
        "verdicts": [_list_verdicts(row, kinds) for row in rows],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Equal samples give equal pages: without the time of compression. Half of a surrogate pair is no UTF-8.
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=9, mtime=0)
    return base64.b85encode(packed).translate(ESCAPED).decode()


def _name(verdict: Mapping[str, Any]) -> Kind:
    return verdict["first"], verdict["second"], verdict["judge"]


def _shorten(row: Row, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Keep what the browser shows of a sample, without the numbers of its verdicts."""
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
        "rationales": {kinds.index(_name(x)): x["rationales"] for x in row["verdicts"] if x["rationales"]},
    }


def _list_verdicts(row: Row, kinds: Sequence[Kind]) -> list[list[float | None] | None]:
    """List the verdict of each kind: its probability and those of the orders, rounded; None if there is none."""
    texts = {name: response["text"] for name, response in row["responses"].items()}
    found: dict[Kind, list[float | None]] = {}
    for verdict in row["verdicts"]:
        # Pairs of two empty responses are no ties: win rates do not count them. A policy without responses is the
        # reference.
        is_read = any(texts.get(verdict[side], "-") for side in ("first", "second"))
        probability = _round_choice(verdict["probability"]) if is_read else None
        found[_name(verdict)] = [probability, *map(_round_choice, verdict["orders"])]
    return [found.get(kind) for kind in kinds]


def _round_choice(probability: float | None) -> float | None:
    """Round a probability, but not to one half, which would be a tie."""
    if probability is None:
        return None
    rounded = round(probability, DIGITS)
    if rounded != 0.5 or probability == 0.5:
        return rounded
    return 0.5 + math.copysign(10**-DIGITS, probability - 0.5)


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _round(nested) for key, nested in value.items()}
    return [_round(nested) for nested in value] if isinstance(value, list) else value
