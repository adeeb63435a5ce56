"""The check `contains`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlaif_framework import Prompt
from rlaif_plugins.checks.roles import NO_REFERENCE, Check


class Contains(Check):
    """that contains given texts, or the prompt's reference."""

    texts: list[str] = Field([])
    """The texts; by default the prompt's reference."""
    need: Literal["all", "any"] = "all"
    """The texts that a response must contain: all, or one of them."""
    ignore_case: bool = True
    """Compare without regard to case."""

    def lacks(self, prompt: Prompt) -> str | None:
        """Require a reference, unless there are texts."""
        return None if self.texts or prompt.reference else NO_REFERENCE

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Look for the texts."""
        text = self._fold(response)
        found = [self._fold(wanted) in text for wanted in self.texts or [prompt.reference or ""]]
        return all(found) if self.need == "all" else any(found)

    def _fold(self, text: str) -> str:
        """Return a text with single spaces, so that line breaks do not matter."""
        text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text
