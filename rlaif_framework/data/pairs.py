"""Convert rows with pairs of responses to comparisons. Tasks and `rlaif label` read preference data with this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from reprlib import repr as short
from typing import Any

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.fields import check_fields, map_fields, suggest_column, suggest_fields
from rlaif_framework.data.pair_forms import LABELS, PairRow, combine_rated, hash_texts, is_rated, read_forms
from rlaif_framework.data.row_files import Row
from rlaif_framework.data.transcripts import strip_cue
from rlaif_framework.errors import DataError, suggest
from rlaif_framework.records.preferences import Comparison, Prompt


@dataclass(frozen=True, slots=True)
class UnknownColumn:
    """An ignored column whose name is probably a misspelling of a known one."""

    name: str
    suggestion: str
    """The known column that it resembles."""
    place: str
    """Place of the first row that has it."""
    count: int = 1
    """Number of rows that have it."""


class PairReader:
    """Reads the rows of a data set in order.

    Args:
        fields: The data set's column for each field whose column has another name; see `map_fields`.
        option: How a user writes such a mapping: `--fields` for a command, or the name of a setting.
        prepare: Returns the columns of a row, once renamed, as they are read; a `DataError` is the row's fault.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        option: str,
        prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.fields = fields
        self.option = option
        self.prepare = prepare
        self.unknown_columns: dict[str, UnknownColumn] = {}

    def read(self, rows: Iterable[Row]) -> Iterator[tuple[Row, list[PairRow] | DataError]]:
        """Yield each row, its columns renamed, with its pairs or the reason why it has none.

        Raises:
            DataError: After the last row, if no row has a column that a field is mapped to.
        """
        rows = check_fields(rows, self.fields, self.option)
        mapped = (self._map(row) if self.fields or self.prepare else row for row in rows)
        # Consecutive rows with one rated response each to the same prompt are read together.
        for prompt, group in groupby(mapped, _rated_prompt):
            if prompt is None:
                for row in group:
                    yield row, self._read(row, [row.values])
            else:
                rated = list(group)
                yield rated[0], self._read(rated[0], [row.values for row in rated])

    def _map(self, row: Row) -> Row:
        values = map_fields(row.values, self.fields)
        if self.prepare is None or row.fault is not None:
            return replace(row, values=values)
        try:
            return replace(row, values=self.prepare(values))
        except DataError as error:
            return replace(row, values=values, fault=error)

    def _read(self, row: Row, rated: list[Mapping[str, Any]]) -> list[PairRow] | DataError:
        if row.fault is not None:
            return row.fault
        self._note_unknown_columns(row)
        try:
            return read_forms(combine_rated(rated) if is_rated(row.values) else row.values)
        except RowFault as error:
            return self._suggest_mapping(row, error)
        except DataError as error:
            return error

    def _suggest_mapping(self, row: Row, error: RowFault) -> RowFault:
        """Add a mapping of the row's columns to an error about missing ones."""
        text = str(error)
        if "expected " not in text and "is missing" not in text:
            return error
        if self.fields:
            return self._describe_mapping(row, error)
        mapping = suggest_fields(map(str, row.values))
        if not mapping:
            return error
        vote = row.values.get(mapping.get("label", ""))
        if "label" in mapping and not (isinstance(vote, str) and vote in LABELS):  # in another notation
            del mapping["label"]
        if self.option.startswith("--"):
            advice = f"{self.option} {','.join(f'{name}={column}' for name, column in mapping.items())}"
        else:
            advice = f"{self.option}: {{{', '.join(f'{name}: {column}' for name, column in mapping.items())}}}"
        return RowFault(f"{text}; did you mean {advice}?", error.kind)

    def _describe_mapping(self, row: Row, error: RowFault) -> RowFault:
        """Name the column that a missing field is mapped to in an error."""
        others = [name for name in map(str, row.values) if name not in self.fields]
        for name, column in self.fields.items():
            if row.values.get(name) is None and f"'{name}' is missing" in str(error):
                known = suggest(column, others) if others else "it has no others"
                told = f"{self.option} names the column '{column}', for which the row has no value; {known}"
                return RowFault(f"{error}: {told}", error.kind)
        return error

    def _note_unknown_columns(self, row: Row) -> None:
        for name in sorted(map(str, row.values)):  # sorted, so that warnings have the same order in each run
            noted = self.unknown_columns.get(name)
            suggestion = noted.suggestion if noted else suggest_column(name)
            if suggestion is not None and suggestion not in row.values:
                new = UnknownColumn(name, suggestion, row.place)
                self.unknown_columns[name] = replace(noted, count=noted.count + 1) if noted else new


class IdRegistry:
    """Gives each comparison an id of its own."""

    def __init__(self) -> None:
        # By the hash of the id, which takes less memory than the id.
        self._places: dict[int, tuple[str, str]] = {}
        self._first: dict[int, tuple[int, float | None]] = {}
        self._counts: dict[int, int] = {}
        self.repeated = 0
        """Number of rows whose prompt and responses are those of an earlier row with the same id, or without ids."""
        self.contradicted = 0
        """Number of these whose preference is another one."""
        self.first_repeated = ("", "")
        """Place of the first of these rows, in its file and with it."""

    def register(self, comparison: Comparison, row: Row) -> Comparison:
        """Return a comparison whose row states its id.

        Raises:
            RowFault: An earlier row has the same id.
        """
        first = self._places.setdefault(hash(comparison.id), (row.file, row.place))
        if first != (row.file, row.place):
            where = first[1] if first[0] == row.file else ", ".join(first)
            raise RowFault(f"the id '{comparison.id}' is already used in {where}", kind="the id is already used")
        return comparison

    def make_unique(self, comparison: Comparison, row: Row) -> Comparison:
        """Return a comparison with an id that no earlier one has: the same texts may be there twice."""
        key = hash(comparison.id)
        texts = hash((comparison.prompt.text, comparison.responses))
        if key not in self._first:
            self._first[key] = texts, comparison.preference
            return comparison
        if self._first[key][0] == texts:
            self.repeated += 1
            self.contradicted += self._first[key][1] != comparison.preference
            if self.repeated == 1:
                self.first_repeated = row.place, row.where
        while True:
            self._counts[key] = self._counts.get(key, 1) + 1
            name = f"{comparison.id}-{self._counts[key]}"
            if hash(name) not in self._first:
                break
        self._first[hash(name)] = texts, comparison.preference
        return replace(comparison, id=name)


def make_comparison(pair: PairRow, values: Mapping[str, Any]) -> Comparison:
    """Create the comparison of a pair.

    Args:
        pair: The pair.
        values: The columns of its row, which may have `id`, `reference` and `slice`.

    Raises:
        RowFault: There is no prompt, or one of these columns is invalid.
    """
    text = pair.prompt
    if text is None:
        text = _read_text(pair.post or values, "post" if "post" in (pair.post or values) else "prompt") or ""
    source = strip_cue(text).strip()
    if not source:
        raise RowFault("'prompt' is empty")
    stated = read_id(values)
    row_id = stated or hash_texts(text, *pair.responses)
    reference = _read_text(values, "reference")
    return Comparison(
        id=f"{row_id}/{pair.part}" if stated and pair.part else row_id,
        prompt=Prompt(row_id, text, source, None if reference is None else reference.strip()),
        responses=pair.responses,
        preference=pair.preference,
        preference_source=None if pair.preference is None else "human",
        confidence=pair.confidence,
        slice=_read_text(values, "slice"),
        raw_responses=None if pair.raw_responses == pair.responses else pair.raw_responses,
    )


def read_id(row: Mapping[str, Any], name: str = "id") -> str | None:
    """Read the id of a row as text; None if it is missing.

    Raises:
        RowFault: The value is neither a non-empty string nor an integer.
    """
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowFault(f"'{name}' is {short(value)}, not a string or an integer", kind=f"'{name}' is not an id")
    return str(value)


def _rated_prompt(row: Row) -> str | None:
    """Return the prompt of a row with one rated response; None for other rows."""
    return str(row.values.get("prompt")) if row.fault is None and is_rated(row.values) else None


def _read_text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise RowFault(f"'{name}' must be a string, not {type(value).__name__}")
    return value
