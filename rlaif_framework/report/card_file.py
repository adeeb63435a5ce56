"""The file of a card, which people complete: it ends with a hash of its text, so that edited ones are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from rlaif_framework.files import write_atomic

CARD = "README.md"


def save_card(path: Path, lines: Iterable[str]) -> None:
    """Write a card, in place of one that may be there."""
    text = "\n".join(lines) + "\n"
    write_atomic(path, text + _sign(text))


def is_edited(path: Path) -> bool:
    """Return True if there is a card that is not as `save_card` wrote it."""
    if not path.is_file():
        return False
    found = path.read_bytes().decode("utf-8", "replace")
    text = found[: found.rfind("\n<!--") + 1] if "\n<!--" in found else ""
    return found != text + _sign(text)


def _sign(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"<!-- Written by rlaif-framework, and kept if edited: {digest} -->\n"
