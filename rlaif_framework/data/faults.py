"""Collect the rows of a data set that cannot be read, and describe them once per kind of fault."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlaif_framework.errors import DataError

MAX_KINDS = 20
"""Maximum number of kinds of faults that an error lists."""

MAX_PLACES = 5
"""Maximum number of further rows that are listed for a kind of fault."""


class RowFault(DataError):
    """A row that cannot be read. Rows with the same `kind` have the same fault, with other values."""

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass(slots=True)
class _Kind:
    message: str
    first: tuple[str, str]
    """File and place of the first row."""
    more: list[str] = field(default_factory=list)
    """Places of further rows, at most `MAX_PLACES`."""
    count: int = 1


class Faults:
    """The faults found in rows so far."""

    def __init__(self) -> None:
        self.count = 0
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, file: str, place: str, error: DataError) -> None:
        """Note a row that cannot be read; `place` is its location in the file, such as `line 3`."""
        self.count += 1
        kind = error.kind if isinstance(error, RowFault) else str(error)
        known = self._kinds.get((file, kind))
        if known is None:
            self._kinds[file, kind] = _Kind(str(error), (file, place))
            return
        known.count += 1
        if len(known.more) < MAX_PLACES:
            known.more.append(place)

    def describe(self, with_file: bool) -> list[str]:
        """Return the first row of each kind with its fault, then the places of the other rows with the same fault."""
        lines = []
        for kind in list(self._kinds.values())[:MAX_KINDS]:
            file, place = kind.first
            lines.append(f"{f'{file}, ' if with_file else ''}{place}: {kind.message}")
            if kind.more:
                left = kind.count - 1 - len(kind.more)
                lines.append(f"  likewise {', '.join(kind.more)}{f' and {left} more' if left else ''}")
        if len(self._kinds) > MAX_KINDS:
            lines.append(f"and {len(self._kinds) - MAX_KINDS} more kinds of faults")
        return lines
