"""Validate and convert what tasks return: prompts, comparisons, responses and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from reprlib import repr as short
from typing import Any, Literal, TypeVar, get_args

from rlaif_framework.contracts.values import read_items, read_number
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison, PreferenceSource, Prompt, Role, Split, Turn

Rows = Literal["prompts", "comparisons"]

AnyRow = TypeVar("AnyRow", Prompt, Comparison)


class TaskRows:
    """The data of one task: each split is validated when it is first read, and then kept.

    Args:
        owner: Title of the task, for error messages.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._prompts: dict[Split, list[Prompt]] = {}
        self._comparisons: dict[Split, list[Comparison]] = {}
        # By the hash of the text, which takes less memory than the text.
        self._texts: dict[int, tuple[Split, str]] = {}

    def prompts(self, split: Split, read: Callable[[Split], object]) -> list[Prompt]:
        """Return the prompts of a split, which `read` reads from the task.

        Raises:
            DataError: A prompt is not valid, two have the same id, or the text of one is in another split.
        """
        if split not in self._prompts:
            self._prompts[split] = self._check_rows(read(split), "prompts", split, self._check_prompt)
        return self._prompts[split]

    def comparisons(self, split: Split, read: Callable[[Split], object]) -> list[Comparison]:
        """Return the comparisons of a split, which `read` reads from the task.

        Raises:
            DataError: A comparison is not valid, two have the same id, or the prompt of one is in another split.
        """
        if split not in self._comparisons:
            self._comparisons[split] = self._check_rows(read(split), "comparisons", split, self._check_comparison)
        return self._comparisons[split]

    def _check_rows(
        self, value: object, name: Rows, split: Split, check: Callable[[Any, Split], AnyRow]
    ) -> list[AnyRow]:
        place = f"{self.owner}: {name}('{split}')"
        rows = read_items(value)
        if rows is None:
            raise DataError(f"{place} returned {short(value)} instead of a list")
        found: list[AnyRow] = []
        numbers: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            try:
                checked = check(row, split)
                first = numbers.setdefault(checked.id, number)
                if first != number:
                    raise DataError(f"row {first} has the same id; ids must be unique")
            except DataError as error:
                identity = getattr(row, "id", None)
                raise DataError(f"{place}, row {number} (id {identity!r}): {error}") from error
            found.append(checked)
        return found

    def _check_prompt(self, value: object, split: Split) -> Prompt:
        prompt = check_prompt(value)
        text = hash(" ".join(prompt.text.split()))
        other, identity = self._texts.setdefault(text, (split, prompt.id))
        if other != split:
            raise DataError(
                f"the text of the prompt is also in split '{other}' (id {identity!r}); a split must not "
                "share texts with another one, or the evaluation measures what was trained on"
            )
        return prompt

    def _check_comparison(self, value: object, split: Split) -> Comparison:
        comparison = check_comparison(value)
        self._check_prompt(comparison.prompt, split)
        return comparison


def check_prompt(value: object) -> Prompt:
    """Return a prompt after validating it.

    Raises:
        DataError: It is not valid. The message has no location, which the caller adds.
    """
    if not isinstance(value, Prompt):
        raise DataError(f"{short(value)} is not a Prompt")
    for name in ("id", "text", "source"):
        _check_text(name, getattr(value, name))
    if value.reference is not None:
        _check_text("reference", value.reference, may_be_empty=True)
    if not isinstance(value.turns, tuple | list):
        raise DataError(f"the turns are {short(value.turns)}, not a tuple")
    _check_span(value)
    return replace(value, turns=tuple(map(_check_turn, value.turns))) if value.turns else value


def _check_span(prompt: Prompt) -> None:
    span = prompt.truncatable
    if span is None:
        return
    is_pair = isinstance(span, tuple) and len(span) == 2 and all(type(number) is int for number in span)
    if not is_pair or not 0 <= span[0] <= span[1] <= len(prompt.source):
        raise DataError(f"truncatable is {short(span)}, not the start and end of a part of the source")


def _check_turn(value: object) -> Turn:
    if not (isinstance(value, tuple | list) and len(value) == 2 and value[0] in get_args(Role)):
        raise DataError(f"{short(value)} is not a Turn")
    role, content = value
    _check_text("content of a turn", content, may_be_empty=True)
    return Turn(role, content)


def check_comparison(value: object) -> Comparison:
    """Return a comparison after validating it, with its numbers as floats.

    Raises:
        DataError: It is not valid. The message has no location, which the caller adds.
    """
    if not isinstance(value, Comparison):
        raise DataError(f"{short(value)} is not a Comparison")
    _check_text("id", value.id)
    prompt = check_prompt(value.prompt)
    responses = value.responses
    if not isinstance(responses, tuple | list) or len(responses) != 2:
        raise DataError(f"the responses are {short(responses)}, not two texts")
    first, second = responses
    _check_text("first response", first)
    _check_text("second response", second)
    if first.strip() == second.strip():
        raise DataError("the two responses are identical")
    if value.preference_source not in (None, *get_args(PreferenceSource)):
        raise DataError(f"the preference_source is {short(value.preference_source)}, not 'human' or 'synthetic'")
    preference = _check_fraction("preference", value.preference)
    confidence = _check_fraction("confidence", value.confidence)
    return replace(value, prompt=prompt, responses=(first, second), preference=preference, confidence=confidence)


def _check_text(name: str, text: object, may_be_empty: bool = False) -> None:
    if not isinstance(text, str):
        raise DataError(f"the {name} is {short(text)}, not a text")
    if not may_be_empty and not text.strip():
        raise DataError(f"the {name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # lone surrogates, which cannot be written to a file
        raise DataError(f"the {name} is not valid Unicode: {error.reason} at position {error.start}") from error


def _check_fraction(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = read_number(value)
    if number is None or not 0 <= number <= 1:  # the comparison fails for NaN as well
        raise DataError(f"the {name} is {short(value)}, not a number between 0 and 1")
    return number


def check_metrics(value: object, prompt: Prompt, owner: str) -> dict[str, float]:
    """Return the metrics of a response as floats.

    Raises:
        DataError: They are not finite numbers by name.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{owner}: measure() returned {short(value)} instead of numbers by name")
    found = {}
    for name, item in value.items():
        number = read_number(item)
        if not isinstance(name, str) or number is None or not math.isfinite(number):
            raise DataError(
                f"{owner}: measure() of a response to prompt '{prompt.id}': {name!r} is {short(item)}, not a finite "
                "number"
            )
        found[name] = number
    return found


def check_truncated(value: object, prompt: Prompt, owner: str) -> Prompt:
    """Return a truncated prompt after validating it.

    Raises:
        DataError: It is not a valid prompt with the id of the original.
    """
    try:
        shorter = check_prompt(value)
        if shorter.id != prompt.id:
            raise DataError(f"it has the id '{shorter.id}'")
    except DataError as error:
        raise DataError(f"{owner}: truncate() of prompt '{prompt.id}': {error}") from error
    return shorter
