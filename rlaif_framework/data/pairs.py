"""Convert rows with two responses to comparisons, in every supported form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

from rlaif_framework.data.transcripts import ASSISTANT_CUE
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison, Prompt

FORMS = (  # for error messages
    "prompt + responses, prompt + chosen + rejected, prompt + response_a + response_b (+ label), "
    "or chosen + rejected as whole transcripts"
)

LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""Probability that the first response is the better one, by the row's `label`."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsePair:
    """The two responses of a row, and the preference between them if the row states one."""

    responses: tuple[str, str]
    """Without surrounding white space."""
    raw_responses: tuple[str, str]
    """As they are in the row."""
    preference: float | None
    """Probability that the first response is the better one."""


def read_pair(row: Row) -> Comparison:
    """Convert a row in any of the supported forms to a comparison.

    Raises:
        DataError: The row is invalid.
    """
    if "prompt" not in row and ("chosen" in row or "rejected" in row):
        row = {**row, **_split_transcripts(row)}
    # Ordered by a hash, so that neither the position nor the content of a response reveals the preference.
    pair = read_responses(
        row, chosen_first=lambda chosen, rejected: hash_texts(_prompt(row), chosen) < hash_texts(_prompt(row), rejected)
    )
    if pair is None:
        raise DataError(f"expected {FORMS}; found {', '.join(list(row)[:8]) or 'no keys'}")
    text = _prompt(row)
    source = text.removesuffix(ASSISTANT_CUE).strip()
    if not source:
        raise DataError("'prompt' is empty")
    identity = read_id(row) or hash_texts(text, *pair.responses)
    reference = None if row.get("reference") is None else _text(row, "reference").strip()
    return Comparison(
        id=identity,
        prompt=Prompt(identity, text, source, reference),
        responses=pair.responses,
        preference=pair.preference,
        preference_source=None if pair.preference is None else "human",
        confidence=read_fraction(row, "confidence"),
        slice=None if row.get("slice") is None else _text(row, "slice"),
        raw_responses=None if pair.raw_responses == pair.responses else pair.raw_responses,
    )


def read_responses(
    row: Row, chosen_first: Callable[[str, str], bool], read_text: Callable[[Row, str], str] | None = None
) -> ResponsePair | None:
    """Read the responses of a row and their preference, from its form or its key `human`.

    Args:
        row: A row in one of three forms: `responses`; `response_a` and `response_b`, with or without `label`; `chosen`
            and `rejected`.
        chosen_first: Given the chosen and the rejected response, returns True to put the chosen one first.
        read_text: Reads the text of `chosen` and `rejected`. Default: they must be strings.

    Returns:
        None if the row is in none of these forms.

    Raises:
        DataError: The row is invalid.
    """
    stated = None
    if "responses" in row:
        raw = _read_list(row["responses"])
        responses = check_responses(*raw)
    elif "response_a" in row or "response_b" in row:
        stated = _read_label(row.get("label"))
        raw = _text(row, "response_a"), _text(row, "response_b")
        responses = check_responses(*raw)
    elif "chosen" in row or "rejected" in row:
        read_text = read_text or _text
        raw = read_text(row, "chosen"), read_text(row, "rejected")
        responses = check_responses(*raw)
        stated = 1.0
        if not chosen_first(*responses):
            raw, responses, stated = raw[::-1], responses[::-1], 0.0
    else:
        return None
    human = read_fraction(row, "human")
    if human is not None and stated is not None:
        raise DataError("the row states its preference twice, by 'human' and by its form; remove one of them")
    return ResponsePair(responses, raw, human if stated is None else stated)


def check_responses(first: str, second: str) -> tuple[str, str]:
    """Strip two responses and check that neither is empty and that they differ.

    Raises:
        DataError: A response is empty, or they are identical.
    """
    first, second = first.strip(), second.strip()
    if not first or not second:
        raise DataError("a response is empty")
    if first == second:
        raise DataError("the two responses are identical")
    return first, second


def read_fraction(row: Row, name: str) -> float | None:
    """Read a number in [0, 1]; None if it is missing.

    Raises:
        DataError: The value is not such a number.
    """
    value = row.get(name)
    if value is None:
        return None
    # bool is a subclass of int; the comparison fails for NaN as well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"'{name}' is {short(value)}, not a number between 0 and 1")
    return float(value)


def read_id(row: Row, name: str = "id") -> str | None:
    """Read the id of a row as text; None if it is missing.

    Raises:
        DataError: The value is neither a non-empty string nor an integer.
    """
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"'{name}' is {short(value)}, not a string or an integer")
    return str(value)


def hash_texts(*texts: str) -> str:
    """Return a short hash, for ids of rows without one and for choices that must not depend on the order of a file."""
    # With a separator that texts do not contain: ("ab", "c") and ("a", "bc") must differ.
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _split_transcripts(row: Row) -> dict[str, str]:
    """Split two transcripts at their last assistant turn."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    before, cue, better = chosen.rpartition(ASSISTANT_CUE)
    other, _, worse = rejected.rpartition(ASSISTANT_CUE)
    if not cue:
        raise DataError("'prompt' is missing, and 'chosen' is not a transcript: it has no '\\n\\nAssistant:'")
    if before != other:
        raise DataError("'chosen' and 'rejected' differ before their last '\\n\\nAssistant:'")
    return {"prompt": before + cue, "chosen": better, "rejected": worse}


def _read_list(responses: object) -> tuple[str, str]:
    if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str) for r in responses)):
        raise DataError("'responses' is not a list of two strings")
    return responses[0], responses[1]


def _read_label(label: object) -> float | None:
    if label is None:
        return None
    if not (isinstance(label, str) and label in LABELS):
        raise DataError(f"'label' is {short(label)}, not 'a', 'b' or 'tie'")
    return LABELS[label]


def _prompt(row: Row) -> str:
    return _text(row, "prompt")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"'{name}' is missing")
    if not isinstance(value, str):
        raise DataError(f"'{name}' must be a string, not {type(value).__name__}")
    return value
