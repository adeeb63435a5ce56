"""The check `choice`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rlaif_framework import Prompt
from rlaif_plugins.checks.roles import NO_REFERENCE, Check

WORDS = "A", "I"
"""Options that are also words."""


class Choice(Check):
    """that chooses the same option as the prompt's reference."""

    options: list[Annotated[str, Field(min_length=1)]] = Field(["A", "B", "C", "D"], min_length=2)
    """The options: letters, or words such as `yes` and `no`, in which case does not matter."""

    def lacks(self, prompt: Prompt) -> str | None:
        """Require a reference that names an option."""
        if not prompt.reference:
            return NO_REFERENCE
        return None if find_choice(prompt.reference, self.options) else "has a reference that names none of the options"

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Compare the options; a response that names none, or several without an answer, fails."""
        found = find_choice(response, self.options)
        return found is not None and found == find_choice(prompt.reference or "", self.options)


def find_choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option that a text chooses; None if it chooses none.

    In this order: the last `\\boxed{B}`, the last `answer is B`, an option at the start (`B) the blue one`), the last
    one in parentheses, and the only option that the text names.
    """
    # Literal texts, the longest first: matching them takes linear time, whatever the spec says.
    names = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    # The case of single letters matters: "a" is a word.
    option = rf"(?<!\w)({names})(?!\w)" if any(len(o) == 1 for o in options) else rf"(?<!\w)(?i:({names}))(?!\w)"
    for pattern in (
        rf"\\boxed\{{(?:\\text\{{)?\s?{option}",
        rf"(?i:answer|choice|option)(?i: is|:| =|)[^\w\n]{{0,8}}{option}",
    ):
        if found := re.findall(pattern, text):
            return _name(found[-1], options)
    if start := re.match(rf"[^\w\n]{{0,3}}{option}[^\w\n]{{0,2}}(?:[).:,\n]|\Z)", text.strip()):
        return _name(start[1], options)
    if found := re.findall(rf"\({option}\)", text):
        return _name(found[-1], options)
    named = {_name(name, options) for name in re.findall(option, _drop_words(text))}
    return named.pop() if len(named) == 1 else None


def _drop_words(text: str) -> str:
    """Remove "A" and "I" where they are words: before a word."""
    return re.sub(rf"(?<!\w)(?:{'|'.join(WORDS)})(?= \w)", "", text)


def _name(found: str, options: Sequence[str]) -> str:
    """Return an option as the settings write it."""
    return found if found in options else next(o for o in options if o.casefold() == found.casefold())
