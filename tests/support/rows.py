"""Helpers for rows of JSON Lines."""

from __future__ import annotations

from rlaif_framework.store import hash_content

KEY = hash_content({"a": 1})
