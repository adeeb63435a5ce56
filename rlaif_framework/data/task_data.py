"""Read the data sets of a task: collect the faults in all of them, and divide them into splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from rlaif_framework.data.faults import Faults
from rlaif_framework.data.fields import check_fields, map_fields
from rlaif_framework.data.pair_forms import PairRow, has_responses
from rlaif_framework.data.pairs import IdRegistry, PairReader
from rlaif_framework.data.row_files import Row
from rlaif_framework.data.splits import Placed, read_data_set, read_split
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison, Split

T = TypeVar("T")

Place = str | Mapping[Split, str]
"""A file, a folder, a hub id, or one of these for each split, as `read_data_set` takes it."""


class TaskData:
    """Reads the data sets of one task.

    Args:
        fields: The data's column for each field whose column has another name.
        skip_invalid: If True, `check` accepts invalid rows, as long as there are valid ones.
    """

    def __init__(self, fields: Mapping[Any, str], skip_invalid: bool = False) -> None:
        self.fields = fields
        self.skip_invalid = skip_invalid
        self.faults = Faults()
        self.rows = 0
        """Number of rows read so far."""
        self._ids = IdRegistry()
        self._invalid: set[tuple[str, int]] = set()

    def read(self, place: Place, parse: Callable[[Row], Iterable[tuple[str, T]]]) -> list[Placed[T]]:
        """Read a data set.

        Args:
            place: A file, a folder, a hub id, or one of these for each split.
            parse: Returns the items of a row, each with the text that it is about.

        Raises:
            DataError: There is no such data set, or it cannot be read, or no row has a column of the fields. Invalid
                rows are collected for `check`.
        """
        found: list[Placed[T]] = []
        for row in check_fields(read_data_set(place), self.fields, "task.fields"):
            mapped = replace(row, values=map_fields(row.values, self.fields))
            found += self._place(mapped, row.fault or partial(parse, mapped))
        return found

    def read_pairs(
        self,
        place: Place,
        make: Callable[[PairRow, Row], Comparison],
        own_forms: Mapping[str, Callable[[Row], Iterable[tuple[str, Comparison]]]] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        option: str = "task.fields",
        prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        again: bool = False,
    ) -> list[Placed[Comparison]]:
        """Read a data set of pairs in any of the supported forms.

        Args:
            place: A file, a folder, a hub id, or one of these for each split.
            make: Creates the comparison of a pair.
            own_forms: For forms of the task's own, how rows with a certain column are read, as by `parse` of `read`.
            fields: The column for each field whose column has another name. By default those of the task.
            option: Name of the setting that has these fields, for errors.
            prepare: Returns the columns of a row, once renamed, as they are read; see `PairReader`.
            again: True if `read` has read the same rows, of which some may have no pair.

        Raises:
            DataError: There is no such data set, or it cannot be read. Invalid rows are collected for `check`.
        """
        found: list[Placed[Comparison]] = []
        reader = PairReader(self.fields if fields is None else fields, option, prepare)
        rows = read_data_set(place)
        for row, pairs in reader.read(self._select_pairs(rows, reader.fields) if again else rows):
            self.rows -= again  # counted before
            own = next((own for column, own in (own_forms or {}).items() if column in row.values), None)
            if own is not None:
                found += self._place(row, partial(own, row))
            elif isinstance(pairs, DataError):
                found += self._place(row, pairs)
            else:
                found += self._place(row, partial(self._compare, row, pairs, make))
        return found

    def check(self, advice: str = "") -> None:
        """Refuse invalid rows.

        Args:
            advice: Added to the error if there are valid rows.

        Raises:
            DataError: The first invalid rows of each kind of fault.
        """
        if not self.faults.count or (self.skip_invalid and self.faults.count < self.rows):
            return
        more = [advice] if advice and self.faults.count < self.rows else []
        raise DataError("\n  ".join([*self.faults.describe(with_file=True), *more]))

    @property
    def notes(self) -> list[str]:
        """Sentences about rows that were skipped or repeated."""
        found = []
        if self.faults.count:
            found.append(f"skipped {self.faults.count} invalid rows of {self.rows}")
        if self._ids.repeated:
            found.append(
                f"{self._ids.repeated} comparisons repeat the prompt and responses of an earlier one, "
                f"{self._ids.contradicted} of them with another preference; each counts"
            )
        return found

    def _select_pairs(self, rows: Iterable[Row], fields: Mapping[str, str]) -> Iterator[Row]:
        """Select the rows with a pair, of those that are not known to be invalid."""
        for row in rows:
            if (row.file, row.number) not in self._invalid and has_responses(map_fields(row.values, fields)):
                yield row

    def _place(self, row: Row, parse: DataError | Callable[[], Iterable[tuple[str, T]]]) -> list[Placed[T]]:
        self.rows += 1
        try:
            if isinstance(parse, DataError):
                raise parse
            split = read_split(row)
            return [Placed(item, text, split) for text, item in parse()]
        except DataError as error:
            self.faults.add(row.file, row.place, error)
            self._invalid.add((row.file, row.number))
            return []

    def _compare(
        self, row: Row, pairs: list[PairRow], make: Callable[[PairRow, Row], Comparison]
    ) -> Iterator[tuple[str, Comparison]]:
        for pair in pairs:
            comparison = self._ids.make_unique(make(pair, row), row)
            yield comparison.prompt.source, comparison
