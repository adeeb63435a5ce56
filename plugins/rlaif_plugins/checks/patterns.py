"""Regular expressions of specs, matched in linear time by RE2."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache
def compile_pattern(pattern: str, ignore_case: bool = False) -> Any:
    """Compile a regular expression in the syntax of RE2.

    The `re` module of Python may take exponential time for a pattern of a stranger's spec.

    Raises:
        ValueError: It is not valid, or needs more memory than RE2 allows.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(
            f"not a regular expression of RE2: {reason} (RE2 has no lookarounds and no backreferences; the end of a "
            "text is \\z)"
        ) from error


def check_pattern(pattern: str) -> str:
    """Return a pattern after validating it.

    Raises:
        ValueError: It is not valid.
    """
    compile_pattern(pattern)
    return pattern


def find_last(pattern: str, text: str) -> str | None:
    """Return the first group of the last match of a pattern, or the match if it has no group; None without a match."""
    found = None
    for match in compile_pattern(pattern).finditer(text):
        found = match
    if found is None:
        return None
    return str(found.group(1) or "") if found.re.groups else str(found.group())
