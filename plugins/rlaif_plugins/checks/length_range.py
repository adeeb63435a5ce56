"""The check `length-range`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Prompt
from rlaif_plugins.checks.roles import Check


class LengthRange(Check):
    """whose length is within bounds."""

    unit: Literal["words", "characters"] = "words"
    """Unit of the length."""
    least: int = Field(1, ge=0)
    """The smallest length that passes."""
    most: int | None = Field(None, ge=0)
    """The largest length that passes; null for no limit."""

    @model_validator(mode="after")
    def _check_bounds(self) -> LengthRange:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most: {self.most} is below 'least', which is {self.least}")
        return self

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Compare the length with the bounds."""
        length = len(response.split()) if self.unit == "words" else len(response)
        return self.least <= length and (self.most is None or length <= self.most)
