"""Remove the API key, in whole or in part, from texts that servers and libraries return, in every escaped form."""

from __future__ import annotations

import base64
import html
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

MASK = "***"
"""Replaces the key."""
MIN_LENGTH = 16
"""Keys of at least this length are also removed from answers, and in part. A shorter one (`EMPTY`) may be a word."""
PART = 8
"""Number of characters at the start of a part that is searched for; any part of `PART + STRIDE - 1` has one."""
STRIDE = 4
"""Distance between the parts that are searched for."""
MAX_LAYERS = 4
"""Maximum number of escapes around each other, as in JSON inside a URL."""
ESCAPE = re.compile(
    r"(?:\\+(?-i:U)0000|[\\%]+u)(?P<u>[0-9a-f]{4})|\\+u\{0*(?P<braces>[0-9a-f]{1,6})\}|(?:\\+x|%|=)(?P<byte>[0-9a-f]{2})"
    r"|\\+(?P<octal>[0-7]{3})|(?P<entity>&(?:#0*[0-9]{1,7}|#x0*[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});)"
    r"|\\+(?P<plain>[^a-z0-9\s])",
    re.IGNORECASE,
)
"""Escapes of JSON, programming languages, URLs, HTML, e-mails, and shells."""


class Redactor:
    """Removes one key from texts."""

    def __init__(self, key: str) -> None:
        self.is_long = len(key) >= MIN_LENGTH
        # Encoded forms of a very short key are ordinary words, too.
        self.forms = tuple(dict.fromkeys(_encode(key))) if len(key) >= PART else (key,) if key else ()

    def redact(self, text: str) -> str:
        """Remove the key from a message. It must not have been cut to a length."""
        spans = self._find(text)
        return _mask(text, sorted(spans)) if spans else text

    def is_in(self, text: str) -> bool:
        """Return True if `redact` would change a text."""
        return bool(self._find(text))

    def _find(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        view: _View | None = _View(text) if self.forms else None
        for _ in range(MAX_LAYERS):
            if view is None:
                break
            parts = (_find_parts(view.text, form, PART if self.is_long else len(form)) for form in self.forms)
            spans += [view.locate(*span) for found in parts for span in found]
            view = view.unescape()
        return spans

    def redact_data(self, data: Any) -> Any:
        """Remove the key from all texts in parsed JSON, unless the key is so short that answers may contain it."""
        if not self.is_long:
            return data
        if isinstance(data, str):
            return self.redact(data)
        if isinstance(data, list):
            return [self.redact_data(item) for item in data]
        if isinstance(data, dict):
            return {self.redact(name): self.redact_data(value) for name, value in data.items()}
        return data


def _encode(key: str) -> Iterator[str]:
    """Yield the key as text, in hexadecimal, and in base64 at each of the three places where it may begin."""
    content = key.encode()
    yield key
    yield content.hex()
    yield content.hex().upper()
    for before in range(3):
        # Characters of base64 that depend on what is before or after the key are left out.
        start, end = -(-8 * before // 6), 8 * (before + len(content)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + content).decode()[start:end]


def _find_parts(text: str, form: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield where parts of a form of the key are. A cut of the server may have left only a part."""
    for start in range(0, len(form) - size + 1, STRIDE):
        at = text.find(form[start : start + size])
        while at >= 0:
            begin, end, first, last = at, at + size, start, start + size
            while begin > 0 and first > 0 and text[begin - 1] == form[first - 1]:
                begin, first = begin - 1, first - 1
            while end < len(text) and last < len(form) and text[end] == form[last]:
                end, last = end + 1, last + 1
            yield begin, end
            at = text.find(form[start : start + size], end)


def _mask(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace spans, which are in order and may overlap."""
    parts, position = [], 0
    for begin, end in spans:
        if begin >= position:
            parts += [text[position:begin], MASK]
        position = max(position, end)
    return "".join([*parts, text[position:]])


class _View:
    """A text, perhaps another one without its escapes, and where its characters are in the original."""

    def __init__(
        self, text: str, outer: _View | None = None, starts: Sequence[int] = (0,), origins: Sequence[int] = (0,)
    ) -> None:
        self.text = text
        self.outer = outer
        """The text with one more layer of escapes; None if this is the original."""
        self.starts = starts
        """Positions of the pieces of `text` that are equal in the outer text, or a single character."""
        self.origins = origins
        """Positions of these pieces in the outer text."""

    def locate(self, begin: int, end: int) -> tuple[int, int]:
        """Return where in the original a part of `text` is."""
        if self.outer is None:
            return begin, end
        # The last character may be an escape, which ends where the next character begins.
        return self.outer.locate(self._origin(begin), max(self._origin(end), self._origin(end - 1) + 1))

    def _origin(self, position: int) -> int:
        piece = bisect_right(self.starts, position) - 1
        return self.origins[piece] + position - self.starts[piece]

    def unescape(self) -> _View | None:
        """Return the text without one more layer of escapes; None if there are none."""
        pieces, starts, origins, length, position = [], [], [], 0, 0
        for found in ESCAPE.finditer(self.text):
            character = _read_escape(found)
            if character is not None:
                plain = self.text[position : found.start()]
                pieces += [plain, character]
                starts += [length, length + len(plain)]
                origins += [position, found.start()]
                length, position = length + len(plain) + 1, found.end()
        if not pieces:
            return None
        return _View("".join([*pieces, self.text[position:]]), self, [*starts, length], [*origins, position])


def _read_escape(found: re.Match[str]) -> str | None:
    """Return the character of an escape; None if it is none."""
    if found["plain"]:
        return found["plain"]
    if found["entity"]:
        text = html.unescape(found["entity"])
        return text if len(text) == 1 else None
    if found["octal"]:
        return chr(int(found["octal"], 8))
    code = int(found["u"] or found["braces"] or found["byte"], 16)
    return chr(code) if code <= sys.maxunicode else None
