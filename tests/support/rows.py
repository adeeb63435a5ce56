"""Helpers for rows of JSON Lines and for records of artefacts."""

from __future__ import annotations

from typing import Any

from rlaif_framework.store import hash_content

KEY = hash_content({"a": 1})


def make_manifest(stage: str, key: str) -> dict[str, Any]:
    """The manifest of an artefact that took no time."""
    return {
        "stage": stage,
        "key": key,
        "seed": 0,
        "policy": {},
        "recipe": {},
        "seconds": 1.5,
        "peak_memory_bytes": 0,
        "facts": {"note": "é"},
        "environment": {},
    }
