"""Read the pages of reports as a browser without scripts does."""

from __future__ import annotations

import base64
import hashlib
import html
import re


def find_scripts(page: str) -> list[str]:
    """The scripts that a browser runs; elements of another type hold data."""
    return re.findall(r"<script>(.*?)</script>", page, re.S)


def strip_assets(page: str) -> str:
    """The page without the scripts and styles that its policy allows; everything else must be inert."""
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    allowed = set(re.findall(r"'sha256-([^']+)'", html.unescape(policy)))

    def drop(match: re.Match[str]) -> str:
        digest = base64.b64encode(hashlib.sha256(match[2].encode()).digest()).decode()
        return "" if digest in allowed else match[0]

    return re.sub(r"<(script|style)>(.*?)</\1>", drop, page, flags=re.S)


def read_text(page: str) -> str:
    """The texts of the page, with single spaces."""
    without = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", without)).split())
