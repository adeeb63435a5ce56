"""Explain what is wrong with settings: where, the value, and what is expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlaif_framework.errors import SpecError, shorten_name
from rlaif_framework.spec.layers import Layers

EXPLAINED = frozenset({"missing", "value_error", "assertion_error", "extra_forbidden", "model_type"})
"""Types of problems whose message says all that helps: the value is missing, or the message has what may be shown."""

MAX_PROBLEMS = 10
"""Number of problems that an error lists. A mistake in a part that several arms share is found once for each."""


def explain(error: ValidationError, data: Mapping[str, Any], what: str, layers: Layers | None = None) -> SpecError:
    """Return an error that lists all problems of settings.

    Args:
        error: The problems.
        data: The settings.
        what: The first line.
        layers: The files that they were read from.
    """
    problems: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for item in error.errors(include_url=False):
        place = _find_place(item["loc"], data, missing=item["type"] == "missing")
        where = ".".join(map(str, place))
        message = item["msg"].removeprefix("Value error, ")
        stated = layers.locate(place or _guess_place(message)) if layers is not None else ""
        head = (stated and f"{stated}: ") + (where and f"{where}: ")
        problems.setdefault(head, []).append(message)
        if item["type"] not in EXPLAINED:
            values[head] = _describe_value(item) + _advise(item)
    # Several problems at one path come from a union: each describes one valid form.
    lines = [f"  {head}{'; or: '.join(messages)}{values.get(head, '')}" for head, messages in problems.items()]
    more = [f"  and {len(lines) - MAX_PROBLEMS} more problems"] if len(lines) > MAX_PROBLEMS else []
    return SpecError("\n".join([f"{what}:", *lines[:MAX_PROBLEMS], *more]))


def _describe_value(item: ErrorDetails) -> str:
    """Return the offending value; only its type if it is a mapping or list, whose problem is its form."""
    value: Any = item["input"]
    if isinstance(value, Mapping):
        return ", got a mapping"
    if isinstance(value, list | tuple):
        return ", got a list"
    if value is None or isinstance(value, bool):
        return f", got {json.dumps(value)}"  # as in a file
    short = Repr()
    short.maxstring = short.maxlong = short.maxother = 80
    return f", got {short.repr(str(value) if isinstance(value, str) else value)}"


def _advise(item: ErrorDetails) -> str:
    """Return how to write a value in the form that is expected, if that is clear."""
    value: Any = item["input"]
    if item["type"] == "list_type" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return f"; write [{shorten_name(str(value))}]"
    return ""


def _find_place(location: Sequence[str | int], data: object, missing: bool) -> tuple[str | int, ...]:
    """Return a problem's path in the file: pydantic's location without the names of types it tried."""
    path: list[str | int] = []
    for i, part in enumerate(location):
        inside: Any = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        # The last part of a missing key's location is the key, which the data does not have.
        if part in inside or (missing and i == len(location) - 1):
            path.append(part)
        data = inside.get(part, data)
    return tuple(path)


def _guess_place(message: str) -> tuple[str, ...]:
    """Return the path that a message about the whole spec begins with."""
    return tuple(message.partition(": ")[0].split(".")) if ": " in message else ()
