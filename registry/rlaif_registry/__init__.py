"""The catalogue of known plugins: a TOML file for each distribution. `entry` has the model of an entry."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_registry.entry import Entry

NOTICE = "Entries are added by the authors of the plugins. They are not reviewed and not endorsed."


def read_files() -> Iterator[dict[str, Any]]:
    """Yield the contents of the files, sorted by file name, without validating them."""
    folder = files(__name__) / "catalogue"  # also works if the package is installed as a zip file
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            yield tomllib.loads(entry.read_text(encoding="utf-8"))


def read_catalogue() -> list[Entry]:
    """Return the entries of the catalogue, the built-ins first, then by name. A listing is neither a review nor an
    endorsement.

    Raises:
        ValueError: An entry is not valid.
    """
    from rlaif_registry.entry import Entry

    return sorted(
        map(Entry.model_validate, read_files()), key=lambda entry: (entry.namespace != "", entry.distribution)
    )


@cache
def read_owners() -> dict[str, str]:
    """Return the distribution of each namespace in the catalogue."""
    # Without the model, which would have to be built in every command that loads a plugin.
    return {content["namespace"]: content["distribution"] for content in read_files() if content["namespace"]}
