"""The check `exact-match`."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator

from rlaif_framework import Prompt
from rlaif_plugins.checks.patterns import check_pattern, find_last
from rlaif_plugins.checks.roles import NO_REFERENCE, Check

NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


class ExactMatch(Check):
    """whose answer equals the prompt's reference."""

    compare: Literal["text", "number"] = "text"
    """Compare the texts, or the last number of each: `#### 1,000` and `It is 1000.0.` are equal."""
    extract: Annotated[str, AfterValidator(check_pattern)] | None = None
    """RE2 expression of the answer: its last match is compared, or the first group of that. It is also applied to a
    reference that it matches."""
    ignore_case: bool = False
    """Compare without regard to case."""
    ignore_punctuation: bool = False
    """Compare without punctuation."""

    def lacks(self, prompt: Prompt) -> str | None:
        """Require a reference, with a number if numbers are compared."""
        if not prompt.reference:
            return NO_REFERENCE
        return None if self._read(self._answer_of(prompt)) is not None else "has a reference without a number"

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Compare the answers."""
        answer = response if self.extract is None else find_last(self.extract, response)
        # A response without an answer is never right.
        found = None if answer is None else self._read(answer)
        return found is not None and found == self._read(self._answer_of(prompt))

    def _answer_of(self, prompt: Prompt) -> str:
        reference = prompt.reference or ""
        extracted = find_last(self.extract, reference) if self.extract is not None else None
        return reference if extracted is None else extracted

    def _read(self, text: str) -> str | Decimal | None:
        if self.compare == "number":
            return read_number(text)
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
        return " ".join(text.split())


def read_number(text: str) -> Decimal | None:
    """Return the last number of a text, without the commas between thousands; None if there is none."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
