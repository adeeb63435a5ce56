"""Count the work of the template that is being compiled or rendered."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

STEP = 10
"""Units of an iteration, a call, or an item."""

BITS = 4096
"""Maximum size of an integer that a template computes."""

DEPTH = 100
"""Maximum depth of nested lists and mappings."""

SIZES = frozenset(("batch", "center", "indent", "ljust", "rjust", "round", "slice", "truncate", "zfill"))
"""Filters and methods whose numbers are sizes of the result."""


class TooMuchWork(SecurityError):
    """A template takes more work than it may."""


class Meter:
    """The units of work that are left."""

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        """Spend units.

        Raises:
            TooMuchWork: Not as many are left.
        """
        self.left -= units
        if self.left < 0:
            raise TooMuchWork

    def weigh(self, value: Any) -> int:
        """Spend the units of a value with all that it contains, as often as it does, and return their number."""
        before = self.left
        rest = [(value, 0)]
        while rest:
            item, depth = rest.pop()
            self.spend(len(item) + 1 if isinstance(item, str) else STEP)
            if isinstance(item, Collection) and not isinstance(item, str):
                self.spend(STEP * len(item))
                if isinstance(item, range):  # of numbers
                    continue
                if depth == DEPTH:
                    raise RecursionError
                rest.extend((inner, depth + 1) for inner in item)
                if isinstance(item, Mapping):
                    rest.extend((inner, depth + 1) for inner in item.values())
        return before - self.left

    def measure(self, value: Any) -> None:
        """Spend the units of the characters or items of a value, whatever the items contain."""
        if isinstance(value, Sized):
            self.spend(len(value) if isinstance(value, str) else STEP * len(value))

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items, and spend the units of an iteration for each."""
        for item in items:
            self.spend(STEP)
            yield item

    def hold(self, value: Any) -> Any:
        """Return a value, or the list of what it yields if it is an iterator, so that its size is known."""
        return list(self.count(value)) if isinstance(value, Iterator) else value

    def foresee(self, name: str, text: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Spend the units of a filter or method whose result may be much larger than what it is given."""
        values = [*given, *named.values()]
        texts = [value for value in values if isinstance(value, str)]
        if name in SIZES:
            size = sum(abs(value) for value in values if isinstance(value, int))
            lines = 1 + str(text).count("\n") if name == "indent" else 1
            self.spend(lines * (size + sum(map(len, texts))))
        elif name == "replace":
            old, new = (str(named.get(key, given[i] if i < len(given) else "")) for i, key in enumerate(("old", "new")))
            self.spend(str(text).count(old) * len(new))
        elif name in ("strip", "lstrip", "rstrip", "trim"):  # each character is searched in the given ones
            self.spend(len(str(text)) * sum(map(len, texts)) // 64)
        elif name == "groupby" and isinstance(text, Sized):  # each item may have the default
            self.spend(len(text) * sum(map(len, texts)))
        elif name in ("format", "format_map"):
            self.foresee_format(str(text), values)

    def foresee_format(self, text: str, values: Any) -> None:
        """Spend the units of formatting values, of which each field may hold the largest one."""
        fields = text.count("%") + text.count("{")
        numbers = [int(digits[:9]) for digits in re.findall(r"\d+", text)]
        # A width may be given as a value: `%*d` or `{:{}}`.
        if "*" in text or re.search(r"\{[^{}]*\{", text):
            items: Any = list(values.values()) if isinstance(values, Mapping) else values
            items = items if isinstance(items, tuple | list) else [items]
            numbers += [abs(item) for item in items if isinstance(item, int)]
        self.spend(fields * (self.weigh(values) + max(numbers, default=0)))


METER: ContextVar[Meter] = ContextVar("meter")
"""The meter of the template that is being compiled or rendered."""
