"""Read rows from lists, data sets and data frames, and add columns to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rlaif_framework.data.row_files import Row
from rlaif_framework.data.splits import read_part
from rlaif_framework.errors import DataError


@dataclass(frozen=True)
class Column:
    """A new column. Its type is stated, since it may have no value."""

    type: Literal["float64", "string"]
    values: Sequence[Any]


Columns = Mapping[str, Column]


class Table(Protocol):
    """Rows of some type."""

    @property
    def name(self) -> str:
        """Name of the data, for messages."""
        ...

    def rows(self) -> Iterator[Row]:
        """Yield the rows, in order."""
        ...

    def columns(self) -> Sequence[str]:
        """Return the names of the columns."""
        ...

    def select(self, indices: Sequence[int], columns: Columns) -> Any:
        """Return rows by their index, in data of the same type, with new columns."""
        ...


def open_table(data: Any) -> Table:
    """Open rows of any supported type.

    Raises:
        DataError: The type is not supported.
    """
    if isinstance(data, str | Path):
        return _List([*read_part(str(data))], str(data))
    # By the modules that are loaded: data of their types can only exist if they are.
    pandas, datasets = sys.modules.get("pandas"), sys.modules.get("datasets")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _Frame(data)
    if datasets is not None and isinstance(data, datasets.Dataset):
        return _DataSet(data)
    if datasets is not None and isinstance(data, datasets.DatasetDict):
        raise DataError(
            f"the data set has the splits {', '.join(data)}; choose one, such as data['{next(iter(data))}']"
        )
    if isinstance(data, Sequence):
        for number, row in enumerate(data, 1):
            if not isinstance(row, Mapping):
                raise DataError(f"row {number} is a {type(row).__name__}, not a mapping of columns to values")
        return _List([*_number(data, "the list")], "the list")
    raise DataError(
        f"pairs are a list of mappings, a datasets.Dataset, a pandas DataFrame or the path of a file, not a "
        f"{type(data).__name__}"
    )


def _number(rows: Any, name: str) -> Iterator[Row]:
    return (Row(name, number, "row", dict(values)) for number, values in enumerate(rows, 1))


@dataclass(frozen=True)
class _List:
    items: Sequence[Row]
    name: str

    def rows(self) -> Iterator[Row]:
        return iter(self.items)

    def columns(self) -> Sequence[str]:
        return [*dict.fromkeys(str(column) for row in self.items for column in row.values)]

    def select(self, indices: Sequence[int], columns: Columns) -> list[dict[str, Any]]:
        return [
            {**self.items[index].values, **{name: column.values[place] for name, column in columns.items()}}
            for place, index in enumerate(indices)
        ]


@dataclass(frozen=True)
class _DataSet:
    data: Any
    name: str = "the data set"

    def rows(self) -> Iterator[Row]:
        return _number(self.data.with_format(None), self.name)

    def columns(self) -> Sequence[str]:
        return list(self.data.column_names)

    def select(self, indices: Sequence[int], columns: Columns) -> Any:
        from datasets import Value

        selected = self.data.select(indices)
        for name, column in columns.items():
            selected = selected.add_column(name, list(column.values), feature=Value(column.type))
        return selected


@dataclass(frozen=True)
class _Frame:
    data: Any
    name: str = "the data frame"

    def rows(self) -> Iterator[Row]:
        import pyarrow as pa

        try:  # converts arrays to lists, and missing values to None
            return _number(pa.Table.from_pandas(self.data, preserve_index=False).to_pylist(), self.name)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(f"cannot read {self.name}: {error}") from error

    def columns(self) -> Sequence[str]:
        return [str(name) for name in self.data.columns]

    def select(self, indices: Sequence[int], columns: Columns) -> Any:
        import pandas as pd

        selected = self.data.iloc[list(indices)].copy()
        for name, column in columns.items():
            # pandas chooses the type of texts, which depends on its version.
            dtype = "float64" if column.type == "float64" else None
            selected[name] = pd.Series(list(column.values), index=selected.index, dtype=dtype)
        return selected
