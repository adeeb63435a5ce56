"""The catalogue of known plugins."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any


def read_catalogue() -> Iterator[dict[str, Any]]:
    """Yield the entries of the catalogue, sorted by file name. A listing is neither a review nor an endorsement."""
    folder = files(__name__) / "catalogue"  # also works if the package is installed as a zip file
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            yield tomllib.loads(entry.read_text(encoding="utf-8"))
