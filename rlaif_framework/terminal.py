"""Make texts of strangers safe to print on a terminal, and format times."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, and C1: sequences that move, colour or type
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of the text around them
    "\u2028\u2029"  # end a line
    "\ud800-\udfff"  # halves of surrogate pairs, which cannot be encoded
    "]"
)


def escape_controls(text: str) -> str:
    """Return a text with its control characters as escapes such as `\\x1b`; tabs and line feeds stay."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def escape_json(text: str) -> str:
    """Return JSON with its control characters as escapes of JSON."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def format_seconds(seconds: float) -> str:
    """Format a time in the largest fitting units: `3.2 s`, `12 min`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
