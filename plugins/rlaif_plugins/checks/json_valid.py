"""The check `json-valid`."""

from __future__ import annotations

import json
import re

from pydantic import Field

from rlaif_framework import Prompt
from rlaif_plugins.checks.roles import Check

FENCE = re.compile(r"\A```(?:json)?\n(.*)\n```\Z", re.DOTALL | re.IGNORECASE)


class JsonValid(Check):
    """that is valid JSON and nothing else."""

    keys: list[str] = Field([])
    """Keys that it must have; it must then be an object."""
    fence: bool = False
    """Also accept JSON inside a Markdown code fence."""

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Parse the response."""
        text = response.strip()
        fenced = FENCE.match(text) if self.fence else None
        try:
            value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return not self.keys or (isinstance(value, dict) and all(key in value for key in self.keys))


def _refuse(constant: str) -> float:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{constant} is not JSON")
