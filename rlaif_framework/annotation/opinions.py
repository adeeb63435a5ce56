"""The opinions of labelers about the items, from the files that `rlaif label` writes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from rlaif_framework.data.human_labels import sort_texts
from rlaif_framework.data.pair_forms import hash_texts
from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison, Prompt

Opinions = dict[str, dict[str, float]]
"""For each labeler, its probability that the first response of an item is better, by the item's key."""


def name_labeler(path: Path) -> str:
    """Return the name of the labeler of a file: that of the file, without `labels.`."""
    return path.name.removesuffix(".jsonl").removeprefix("labels.") or "labels"


def read_opinions(path: Path, keys: Container[str]) -> dict[str, float]:
    """Read a file of labels.

    Args:
        path: A `labels.jsonl` that `rlaif label` wrote.
        keys: The keys of the items, whose responses are in sorted order.

    Returns:
        The labeler's probability that the first response of an item is better, by the item's key.

    Raises:
        DataError: The file is no such file, or has labels of none of the items.
    """
    found: dict[str, float] = {}
    rows = 0
    for number, row in read_rows(path):
        rows += 1
        label, first = _read_label(path, number, row)
        texts, swapped = sort_texts(label)
        key = hash_texts(*texts)
        if first is not None and key in keys:
            found[key] = 1 - first if swapped else first
    if not found:
        raise DataError(f"{path}: none of the {rows} labels is about one of the pairs; name the labels of these pairs")
    return found


def _read_label(path: Path, number: int, row: Mapping[str, Any]) -> tuple[Comparison, float | None]:
    prompt, responses, stated = (row.get(name) for name in ("prompt", "responses", "probabilities"))
    if (
        not isinstance(prompt, str)
        or not isinstance(responses, list)
        or len(responses) != 2
        or not all(isinstance(text, str) for text in responses)
        or "probabilities" not in row
    ):
        raise DataError(f"{path}, line {number}: not a label that `rlaif label` wrote; name its --out file")
    if stated is None:
        return _make_pair(prompt, responses), None
    if not (
        isinstance(stated, list)
        and len(stated) == 2
        and all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in stated)
    ):
        raise DataError(f"{path}, line {number}: 'probabilities' is not a list of two numbers between 0 and 1")
    return _make_pair(prompt, responses), float(stated[0])


def _make_pair(prompt: str, responses: list[str]) -> Comparison:
    return Comparison("", Prompt("", prompt, prompt), (responses[0], responses[1]))
