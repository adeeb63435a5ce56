"""Names of the columns of preference data, and mappings of other names to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlaif_framework.errors import DataError, SpecError, suggest

if TYPE_CHECKING:
    from rlaif_framework.data.row_files import Row

PairField = Literal[
    "id",
    "prompt",
    "responses",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "label",
    "winner",
    "human",
    "confidence",
    "slice",
    "reference",
    "response",
    "score",
]
"""Columns to which others can be mapped."""

PAIR_FIELDS: tuple[str, ...] = get_args(PairField)

RESPONSE_FIELDS = frozenset({"responses", "chosen", "rejected", "response_a", "response_b", "response"})
"""Columns with responses."""

KNOWN_COLUMNS = frozenset(PAIR_FIELDS) | {
    *("answers", "completions", "ranks", "scores", "ratings"),
    *("conversation_a", "conversation_b", "winner_model_a", "winner_model_b", "winner_tie"),
    *("history", "human_ref_A", "human_ref_B", "labels"),
    *("response_1", "response_2", "preference_strength", "context", "response1", "response2", "overall_preference"),
    *("response_0", "better_response_id", "helpfulness", "info", "summaries", "choice"),
}
"""Columns that are read. Rows may have others, which are ignored."""

_MISSPELLABLE = KNOWN_COLUMNS - {"info", "context", "history", "choice", "labels", "ranks", "scores", "score"}

_RESPONSE_NAMES = ("response", "output", "answer", "completion", "generation", "summary", "text", "candidate")
_RESPONSE_ENDS = (("_a", "_b"), ("a", "b"), ("_1", "_2"), ("1", "2"), ("_0", "_1"), ("0", "1"))


def _add_nouns(*names: str) -> list[str]:
    """Return names such as `chosen_response` and `response_chosen`."""
    return [f"{a}_{b}" for name in names for noun in _RESPONSE_NAMES for a, b in ((name, noun), (noun, name))]


_SYNONYMS: Mapping[str, Sequence[str]] = {
    "prompt": (
        *("instruction", "question", "query", "input", "post", "source", "context", "history", "article", "document"),
        *("text", "problem", "message", "conversations"),
    ),
    "chosen": (
        *("preferred", "accepted", "better", "winning", "positive", "good", "pos", "y_w", "response_j"),
        *_add_nouns("chosen", "preferred", "accepted", "better", "winning", "winner", "positive", "good"),
    ),
    "rejected": (
        *("dispreferred", "worse", "losing", "negative", "bad", "neg", "y_l", "response_k"),
        *_add_nouns("rejected", "dispreferred", "worse", "losing", "loser", "negative", "bad"),
    ),
    "responses": ("candidates", "outputs", "generations", "answers", "completions"),
    "label": ("preference", "vote", "preferred_response", "choice"),
}


_ABSENT = object()
"""What `_look_up` returns for a column that is not there, since a value may be None."""


def parse_fields(texts: Iterable[str]) -> dict[str, str]:
    """Parse mappings such as `prompt=instruction,response_a=output1`.

    Raises:
        SpecError: A part is not of the form NAME=COLUMN, or the name is unknown.
    """
    found: dict[str, str] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise SpecError(f"--fields {part}: expected NAME=COLUMN, such as prompt=instruction")
        if name not in PAIR_FIELDS:
            raise SpecError(f"--fields {part}: no field is named '{name}'; {suggest(name, PAIR_FIELDS)}")
        if name in found:
            raise SpecError(f"--fields {part}: '{name}' is mapped twice")
        found[name] = column
    return found


def map_fields(row: Mapping[str, Any], fields: Mapping[str, str]) -> Mapping[str, Any]:
    """Rename the columns of a row.

    Args:
        row: The row.
        fields: The row's column for each field. `a.b` is the key `b` inside the column `a`.
    """
    if not fields:
        return row
    hidden = set(fields.values())
    if RESPONSE_FIELDS & fields.keys():
        # The user has said where the responses are: other columns that could have them are not responses.
        hidden |= RESPONSE_FIELDS
    mapped = {name: value for name, value in row.items() if name not in hidden}
    return mapped | {name: _look_up(row, column) for name, column in fields.items()}


def check_fields(rows: Iterable[Row], fields: Mapping[str, str], option: str) -> Iterator[Row]:
    """Yield the rows of a data set, and check that each column that a field is mapped to is in one of them.

    Args:
        rows: The rows, whose columns are not yet renamed.
        fields: The data set's column for each field; see `map_fields`.
        option: How a user writes this mapping, for the error.

    Raises:
        DataError: After the last row, if no row has one of the columns.
    """
    missing, last = dict(fields), None
    for row in rows:
        if row.fault is None:
            last = row
            missing = {
                name: column for name, column in missing.items() if _look_up(row.values, column, _ABSENT) is _ABSENT
            }
        yield row
    if missing and last is not None:
        name, column = next(iter(missing.items()))
        known = suggest(column, map(str, last.values))
        raise DataError(f"{option}: no row of {last.file} has the column '{column}', mapped to '{name}'; {known}")


def suggest_fields(columns: Iterable[str]) -> dict[str, str]:
    """Guess which columns hold a prompt and two responses. Empty unless all of them are found."""
    by_name = {column.lower(): column for column in reversed(list(columns)) if isinstance(column, str)}
    found = {name: column for name in _SYNONYMS if (column := _find_column(name, by_name)) is not None}
    for first, second in ((f"{name}{a}", f"{name}{b}") for name in _RESPONSE_NAMES for a, b in _RESPONSE_ENDS):
        if first in by_name and second in by_name and "response_a" not in found:
            found |= {"response_a": by_name[first], "response_b": by_name[second]}
    if "prompt" not in found:
        return {}
    forms: tuple[tuple[str, ...], ...] = (("chosen", "rejected"), ("response_a", "response_b"), ("responses",))
    for form in forms:
        if found.keys() >= set(form) and len({found[name] for name in form}) == len(form):
            names = ["prompt", *form, *(["label"] if form[0] == "response_a" and "label" in found else [])]
            return {name: found[name] for name in names if found[name] != name}
    return {}


@lru_cache(maxsize=1024)  # called for every row, mostly with the same keys
def suggest_column(column: str) -> str | None:
    """Return the known column of which a name is probably a misspelling; None if it is probably intended."""
    if KNOWN_COLUMNS & set(re.split(r"[_\W]", column)):  # `prompt_id`, `chosen_model`
        return None  # contains a known column as a word, and is therefore no misspelling
    near = get_close_matches(column.strip().lower(), _MISSPELLABLE, n=1, cutoff=0.75)
    return near[0] if near else None


def _find_column(name: str, by_name: Mapping[str, str]) -> str | None:
    for candidate in (name, *_SYNONYMS[name]):
        if candidate in by_name:
            return by_name[candidate]
    near = get_close_matches(name, by_name.keys() - RESPONSE_FIELDS, n=1, cutoff=0.8)  # `response` is one of its own
    return by_name[near[0]] if near else None


def _look_up(row: Mapping[str, Any], column: str, default: Any = None) -> Any:
    """Return the value of a column, or of a key inside it; the default if the row does not have it."""
    if column in row:
        return row[column]
    name, dot, key = column.partition(".")
    inner = row.get(name)
    return _look_up(inner, key, default) if dot and isinstance(inner, Mapping) else default
