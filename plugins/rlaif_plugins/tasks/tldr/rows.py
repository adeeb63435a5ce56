"""Read the rows of TL;DR data sets: texts by field, and comparisons in every supported form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

from rlaif_framework import DataError
from rlaif_framework.data import check_responses, hash_texts, read_fraction, read_responses

FORMS = (
    "info + summaries + choice, prompt + responses, prompt + chosen + rejected, or prompt + response_a + response_b "
    "(+ label)"
)
RENDERED = re.compile(
    r"(?:SUBREDDIT: r/(?P<subreddit>[^\n]*)\n+)?(?:TITLE: (?P<title>[^\n]*)\n+)?POST: (?P<post>.*?)\n+TL;DR:\s*$",
    re.DOTALL,
)
"""A prompt of OpenAI's TL;DR data."""

Values = Mapping[str, Any]


class Post(NamedTuple):
    """A post to be summarised. The subreddit and the title may be empty."""

    subreddit: str
    title: str
    post: str


class RatedSummaries(NamedTuple):
    """Two summaries of a post and the preference between them."""

    prompt: Values
    """The fields of the post."""
    responses: tuple[str, str]
    preference: float | None
    confidence: float | None


def read_text(values: Values, name: str) -> str:
    """Return a field's text: a string, or a list of sentences joined by spaces. Empty if the field is missing."""
    value = values.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.strip() for part in value).strip()
    return _plain(value, name)


def read_first(values: Values, name: str) -> str:
    """Return a field's text: a string, the first of several, or the last message of a chat. Empty if it is missing."""
    value = values.get(name)
    if not isinstance(value, list):
        return _plain(value, name)
    if value and isinstance(value[-1], dict):
        return _plain(value[-1].get("content"), f"{name}.content")
    return _plain(value[0], name) if value else ""


def find_post(whole: str) -> Post | None:
    """Return the post in a prompt that is already rendered; None if there is none."""
    found = RENDERED.search(whole)
    return Post(*((part or "").strip() for part in found.groups())) if found and found["post"].strip() else None


def find_subject(values: Values, post: str) -> str:
    """Return the post that a row is about, in whatever form; empty if there is none.

    It determines the row's split: a post and its comparisons may be in different files, under different ids.
    """
    info = values.get("info")
    given = info if isinstance(info, dict) else values
    if given.get(post) is None and isinstance(whole := given.get("prompt"), str):
        found = find_post(whole)
        return found.post if found else whole
    try:
        return read_text(given, post)
    except DataError:
        return ""  # reported with its line when the row is read


def read_comparison(values: Values) -> RatedSummaries | None:
    """Read a comparison from a row in any supported form; None for rows of another data set.

    Raises:
        DataError: The row is invalid.
    """
    if "summaries" in values and "info" in values:
        return _read_openai(values)
    pair = read_responses(values, _chosen_first, _read_required)
    if pair is None:
        raise DataError(f"not a comparison; expected {FORMS}; found {', '.join(values) or 'no keys'}")
    return RatedSummaries(values, pair.responses, pair.preference, read_fraction(values, "confidence"))


def read_flaws(values: Values) -> list[tuple[str, tuple[str, str]]]:
    """Return each flaw of a row of `tldr-mini`, with the good candidate and the one that has the flaw.

    A post that serves as a prompt only has neither.
    """
    if "candidate" not in values and "flawed" not in values:
        return []
    if "flawed" not in values:
        raise DataError("'flawed' is missing")
    good, flawed = _required(values, "candidate"), values["flawed"]
    if not (isinstance(flawed, list) and all(isinstance(item, dict) for item in flawed)):
        raise DataError("'flawed' is not a list of texts with their flaws")
    return [(_required(item, "flaw"), check_responses(good, _required(item, "text"))) for item in flawed]


def _read_openai(values: Values) -> RatedSummaries | None:
    """Read a row of OpenAI's comparisons; None for news articles (CNN/DM), which are another task."""
    info, summaries, choice = values["info"], values["summaries"], values.get("choice")
    if not isinstance(info, dict):
        raise DataError(f"'info' is {short(info)}, not the fields of a post")
    if not info.get("post"):
        return None
    if not (isinstance(summaries, list) and len(summaries) == 2 and all(isinstance(s, dict) for s in summaries)):
        raise DataError("'summaries' is not a list of two summaries with a 'text' each")
    if "choice" not in values:
        raise DataError("'choice' is missing")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise DataError(f"'choice' is {short(choice)}, not 0 or 1")
    extra = values.get("extra") or {}
    rated = extra.get("confidence") if isinstance(extra, dict) else extra
    if rated is not None and (isinstance(rated, bool) or not isinstance(rated, int | float) or not 1 <= rated <= 9):
        raise DataError(f"'extra.confidence' is {short(rated)}, not a number between 1 and 9")
    # 1 means certainly the first, 9 certainly the second, 5 undecided: the confidence is the distance from 5.
    confidence = None if rated is None else abs(rated - 5) / 4
    first, second = (_required(summary, "text") for summary in summaries)
    return RatedSummaries(info, check_responses(first, second), 1.0 if choice == 0 else 0.0, confidence)


def _chosen_first(chosen: str, rejected: str) -> bool:
    # Decided by the content, so that the order of a file does not matter and position does not reveal the preference.
    return int(hash_texts(chosen + rejected), 16) % 2 == 0


def _read_required(values: Values, name: str) -> str:
    if values.get(name) is None:
        raise DataError(f"'{name}' is missing")
    return read_first(values, name)


def _required(values: Values, name: str) -> str:
    if values.get(name) is None:
        raise DataError(f"'{name}' is missing")
    return _plain(values[name], name)


def _plain(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"'{name}' is {short(value)}, not a string")
    return value.strip()
