"""Read the texts of posts and summaries in rows of TL;DR data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

from rlaif_framework.data import RowFault, check_responses

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


def read_flaws(values: Values) -> list[tuple[str, tuple[str, str]]]:
    """Return each flaw of a row of `tldr-mini`, with the good candidate and the one that has the flaw.

    A post that serves as a prompt only has neither.
    """
    if "candidate" not in values and "flawed" not in values:
        return []
    if "flawed" not in values:
        raise RowFault("'flawed' is missing")
    good, flawed = _required(values, "candidate"), values["flawed"]
    if not (isinstance(flawed, list) and all(isinstance(item, dict) for item in flawed)):
        raise RowFault("'flawed' is not a list of texts with their flaws")
    return [(_required(item, "flaw"), check_responses(good, _required(item, "text"))) for item in flawed]


def _required(values: Values, name: str) -> str:
    if values.get(name) is None:
        raise RowFault(f"'{name}' is missing")
    return _plain(values[name], name)


def _plain(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowFault(f"'{name}' is {short(value)}, not a string", kind=f"'{name}' is not a string")
    return value.strip()
