"""Keep the results of slow computations in the cache folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rlaif_framework.files import cache_folder, read_json, remove_leftovers, write_atomic
from rlaif_framework.store import hash_content


def remember(name: str, key: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a computation, from the cache if it holds one for the same key.

    Args:
        name: Subfolder of the cache folder.
        key: Everything that the result depends on, as a JSON value.
        compute: Computes the result, which must be a JSON value.
    """
    file = cache_folder() / name / f"{hash_content(key)[:32]}.json"
    found = read_json(file)
    # With a hash, since a damaged file may be JSON.
    if isinstance(found, dict) and "result" in found and hash_content(found["result"]) == found.get("hash"):
        return dict(found["result"])
    result = compute()
    with suppress(OSError):  # the cache cannot be written, e.g. because the disk is full
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent)
        write_atomic(file, json.dumps({"result": result, "hash": hash_content(result)}))
    return result
