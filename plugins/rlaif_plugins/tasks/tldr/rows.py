"""What rows of data hold: texts by field, and comparisons in every known form."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

from rlaif_framework import DataError

FORMS = (
    "info + summaries + choice, prompt + responses, prompt + chosen + rejected, or prompt + response_a + response_b + "
    "label"
)
LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}
POST_IN_PROMPT = re.compile(r"POST: (.*?)\n+TL;DR:\s*$", re.DOTALL)

Values = Mapping[str, Any]


class Compared(NamedTuple):
    """What a row says of two responses."""

    prompt: Values
    """The fields of the post."""
    responses: tuple[str, str]
    preference: float | None
    confidence: float | None


def read_text(values: Values, name: str) -> str:
    """A field's text: a string, or a list of strings (a post's sentences) joined by spaces; empty if it is absent."""
    value = values.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.strip() for part in value).strip()
    return _plain(value, name)


def read_first(values: Values, name: str) -> str:
    """A field's text, or the first of several; of a chat, the last message; empty if it is absent."""
    value = values.get(name)
    if not isinstance(value, list):
        return _plain(value, name)
    if value and isinstance(value[-1], dict):
        return _plain(value[-1].get("content"), f"{name}.content")
    return _plain(value[0], name) if value else ""


def read_identity(values: Values, name: str) -> str | None:
    """A row's id as text; None if it has none."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"'{name}' is {short(value)}, not a text or a whole number")
    return str(value)


def find_post(whole: str) -> str | None:
    """The post in a prompt that is already rendered."""
    found = POST_IN_PROMPT.search(whole)
    return found[1].strip() if found else None


def find_subject(values: Values, post: str) -> str:
    """The text of the post a row is about, in whatever form it holds it; empty if it holds none.

    It decides the row's split: a post and its comparisons may stand in different files, under different ids.
    """
    info = values.get("info")
    given = info if isinstance(info, dict) else values
    if given.get(post) is None and isinstance(whole := given.get("prompt"), str):
        return find_post(whole) or whole
    try:
        return read_text(given, post)
    except DataError:
        return ""  # reading the row says so, and where


def read_comparison(values: Values) -> Compared | None:
    """A comparison from a row in any known form; None for rows of another data set.

    Raises:
        DataError: What is wrong with the row.
    """
    if "summaries" in values and "info" in values:
        return _read_openai(values)
    if "responses" in values:
        responses = values["responses"]
        if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str) for r in responses)):
            raise DataError("'responses' is not a list of two texts")
        pair = check_responses(responses[0], responses[1])
        return Compared(values, pair, _read_share(values, "human"), _read_share(values, "confidence"))
    if "response_a" in values or "response_b" in values:
        label = values.get("label")
        if not isinstance(label, str) or label not in LABELS:
            raise DataError(f"'label' is {short(label)}, not 'a', 'b' or 'tie'")
        pair = check_responses(_required(values, "response_a"), _required(values, "response_b"))
        return Compared(values, pair, LABELS[label], None)
    if "chosen" in values or "rejected" in values:
        for name in ("chosen", "rejected"):
            if values.get(name) is None:
                raise DataError(f"'{name}' is missing")
        better, worse = check_responses(read_first(values, "chosen"), read_first(values, "rejected"))
        swap = int(hash_text(better + worse), 16) % 2 == 1
        return Compared(values, (worse, better) if swap else (better, worse), 0.0 if swap else 1.0, None)
    raise DataError(f"not a comparison; expected {FORMS}. It has {', '.join(values) or 'nothing'}")


def read_flaws(values: Values) -> list[tuple[str, tuple[str, str]]]:
    """Of a row as in `tldr-mini`: each flaw, with the good candidate and the one that has it."""
    good, flawed = _required(values, "candidate"), values["flawed"]
    if not (isinstance(flawed, list) and all(isinstance(item, dict) for item in flawed)):
        raise DataError("'flawed' is not a list of texts with their flaws")
    return [(_required(item, "flaw"), check_responses(good, _required(item, "text"))) for item in flawed]


def _read_openai(values: Values) -> Compared | None:
    """OpenAI's comparisons; rows about news articles (CNN/DM) are not of this task."""
    info, summaries, choice = values["info"], values["summaries"], values.get("choice")
    if not isinstance(info, dict):
        raise DataError(f"'info' is {short(info)}, not the fields of a post")
    if not info.get("post"):
        return None
    if not (isinstance(summaries, list) and len(summaries) == 2 and all(isinstance(s, dict) for s in summaries)):
        raise DataError("'summaries' is not a list of two summaries with their 'text'")
    if "choice" not in values:
        raise DataError("'choice' is missing")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise DataError(f"'choice' is {short(choice)}, not 0 or 1")
    extra = values.get("extra") or {}
    rated = extra.get("confidence") if isinstance(extra, dict) else extra
    if rated is not None and (isinstance(rated, bool) or not isinstance(rated, int | float) or not 1 <= rated <= 9):
        raise DataError(f"'extra.confidence' is {short(rated)}, not a number between 1 and 9")
    # 1 is surely the first, 9 surely the second, 5 undecided: how far from the middle.
    confidence = None if rated is None else abs(rated - 5) / 4
    first, second = (_required(summary, "text") for summary in summaries)
    return Compared(info, check_responses(first, second), 1.0 if choice == 0 else 0.0, confidence)


def check_responses(first: str, second: str) -> tuple[str, str]:
    """Two responses without the space around them; none is empty, and they differ."""
    first, second = first.strip(), second.strip()
    if not first or not second:
        raise DataError("a response is empty")
    if first == second:
        raise DataError("the two responses are identical")
    return first, second


def _plain(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"'{name}' is {short(value)}, not a text")
    return value.strip()


def _required(values: Values, name: str) -> str:
    if values.get(name) is None:
        raise DataError(f"'{name}' is missing")
    return _plain(values[name], name)


def _read_share(values: Values, name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"'{name}' is {short(value)}, not a number between 0 and 1")
    return float(value)


def hash_text(text: str) -> str:
    """A short hash, for rows without an id and for choices that must not depend on the order of a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
