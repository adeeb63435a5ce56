"""Pack samples, such as the test prompts of a run with responses and verdicts, into the page."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A row of `samples.jsonl`: an `EvaluatedPrompt`; or a comparison with its labels in the same form, with `human`: the
preference of people for its first response, and their confidence. Its verdicts have notes."""
Kind = tuple[str, str, str]
"""The two policies and the judge of a verdict."""
Columns = dict[str, list[Any]]
"""By name, a value for each sample; None if it has none."""
DIGITS = 4
"""Digits of rewards that are kept; the page shows fewer."""
SCALE = 1000
"""Probabilities are kept in thousandths, which is what the page shows."""
NO_VERDICT = -1
"""Probability of a verdict that a sample does not have; that of one that could not be read is None."""
METRICS = ("tokens", "eos_rate")
"""Metrics of a response that the browser shows."""
MAX_GROUPS = 12
"""A column with more values is not one by which samples are filtered."""
ESCAPED = bytes.maketrans(b"<>&", b",.:")
"""Letters of base 85 that mean something in HTML, and others in their place. Base 64 would be a sixteenth longer."""
MAX_BYTES = 13_800_000
"""Maximum size of the packed samples: with scripts, charts and tables, the page stays below 15 MB."""


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """Samples as compressed JSON."""

    data: str
    """Base 85 of gzip of JSON."""
    shown: int
    """Number of samples in it."""
    total: int


def pack_samples(rows: Sequence[Row], total: int = 0, limit: int = MAX_BYTES) -> PackedSamples | None:
    """Pack as many samples as fit into the page, the first ones; None without samples.

    Args:
        rows: The samples, or the first of them.
        total: Number of all samples, if there are more.
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
    return PackedSamples(data, shown, max(total, len(rows)))


def _compress(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(_name(verdict) for row in rows for verdict in row["verdicts"]))
    matchups = list(dict.fromkeys((first, second) for first, second, _ in kinds))
    judges = list(dict.fromkeys(judge for _, _, judge in kinds))
    policies = list(dict.fromkeys(name for row in rows for name in row["responses"]))
    responses = [[row["responses"].get(policy, {}) for row in rows] for policy in policies]
    verdicts = [{_name(verdict): verdict for verdict in row["verdicts"]} for row in rows]
    groups = _list_columns([row["groups"] for row in rows])
    # Numbers of one kind are in a column of their own, where they compress best. Texts are not: those of a sample share
    # words.
    content = {
        "policies": policies,
        "matchups": matchups,
        "judges": judges,
        "ids": [row["id"] for row in rows],
        "texts": [_list_texts(row, policies, kinds) for row in rows],
        "groups": {name: values for name, values in groups.items() if 2 <= len({*values} - {None}) <= MAX_GROUPS},
        "human": _list_columns([row.get("human", {}) for row in rows], _scale),
        "rewards": [_list_columns([x.get("rewards", {}) for x in found], _round) for found in responses],
        "metrics": [_list_columns([_choose_metrics(x) for x in found], _round) for found in responses],
        "verdicts": [
            {
                "matchup": matchups.index(kind[:2]),
                "judge": judges.index(kind[2]),
                **_list_verdicts(rows, [found.get(kind) for found in verdicts]),
            }
            for kind in kinds
        ],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Equal samples give equal pages: without the time of compression. Half of a surrogate pair is no UTF-8.
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=9, mtime=0)
    return base64.b85encode(packed).translate(ESCAPED).decode()


def _name(verdict: Mapping[str, Any]) -> Kind:
    return verdict["first"], verdict["second"], verdict["judge"]


def _list_columns(rows: Sequence[Mapping[str, Any]], convert: Callable[[Any], Any] = lambda value: value) -> Columns:
    """Turn rows of values into columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [convert(row[name]) if name in row else None for row in rows] for name in names}


def _choose_metrics(response: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in response.get("metrics", {}).items() if name in METRICS}


def _list_texts(row: Row, policies: Sequence[str], kinds: Sequence[Kind]) -> list[Any]:
    """List the prompt, the reference, the response of each policy, and the rationales of each kind of verdict."""
    responses = row["responses"]
    return [
        row["prompt"],
        row["reference"],
        [responses[name]["text"] if name in responses else None for name in policies],
        {kinds.index(_name(x)): x["rationales"] for x in row["verdicts"] if x["rationales"]},
    ]


def _list_verdicts(rows: Sequence[Row], verdicts: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    """List verdicts of one kind: their probabilities, those by each order, and notes."""
    orders = [() if verdict is None else verdict["orders"] for verdict in verdicts]
    return {
        "probabilities": [_read_probability(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)],
        "orders": [
            [_scale(values[number]) if number < len(values) else None for values in orders]
            for number in range(max(map(len, orders)))
        ],
        "notes": [(verdict or {}).get("note", "") for verdict in verdicts],
    }


def _read_probability(row: Row, verdict: Mapping[str, Any] | None) -> int | None:
    if verdict is None:
        return NO_VERDICT
    # Pairs of two empty responses are no ties: win rates do not count them. A policy without responses is the
    # reference.
    texts = [row["responses"].get(verdict[side], {}).get("text", "-") for side in ("first", "second")]
    return _scale(verdict["probability"]) if any(texts) else None


def _scale(probability: float | None) -> int | None:
    """Round a probability to thousandths, but not to one half, which would be a tie."""
    if probability is None:
        return None
    rounded = round(SCALE * probability)
    if 2 * rounded != SCALE or probability == 0.5:
        return rounded
    return rounded + (1 if probability > 0.5 else -1)


def _round(value: float) -> float:
    if isinstance(value, int):
        return value
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
