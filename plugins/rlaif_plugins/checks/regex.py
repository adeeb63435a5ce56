"""The check `regex`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rlaif_framework import Prompt
from rlaif_plugins.checks.patterns import check_pattern, compile_pattern
from rlaif_plugins.checks.roles import Check


class Regex(Check):
    """that matches a regular expression."""

    pattern: Annotated[str, AfterValidator(check_pattern)] = Field(examples=["[0-9]+"])
    """The expression, in the syntax of RE2, which takes linear time. It may match anywhere: `\\A` and `\\z` are the
    start and the end of a response."""
    ignore_case: bool = False
    """Match without regard to case."""

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Search for the pattern."""
        return compile_pattern(self.pattern, self.ignore_case).search(response) is not None
