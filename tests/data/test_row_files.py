"""Files of rows that are refused: those that expand to much more than their size, and those that are no rows."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif_framework import DataError
from rlaif_framework.data import row_files
from rlaif_framework.data.row_files import read_row_file


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_LINE", 1000)
    monkeypatch.setattr(row_files, "MAX_ARRAY", 10_000)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.csv.gz", "a,b\n1," + "x" * 10_000_000 + "\n", "line 2 is longer than 1,000 characters"),
        ("x.csv.gz", 'a,b\n1,"' + "x\n" * 1_000_000, "field larger than field limit"),
        ("x.csv.gz", "a" * 10_000_000, "line 1 is longer than 1,000 characters"),
        ("x.json.gz", "[" + " \n" * 1_000_000, "a JSON array is read as a whole, up to 10,000 bytes"),
        ("x.json.gz", "[" + "{},\n" * 1_000_000, "a JSON array is read as a whole, up to 10,000 bytes"),
        ("x.csv.gz", "a,b\n" + "," * 10_000, "line 2 is longer than 1,000 characters"),
    ],
)
def test_a_small_file_that_expands_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()))
    assert path.stat().st_size < 50_000
    with pytest.raises(DataError, match=reason):
        list(read_row_file(path))


def test_a_json_array_is_not_held_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty objects take more than 20 times the memory of their text."""
    monkeypatch.setattr(row_files, "MAX_ARRAY", 10_000_000)
    path = tmp_path / "x.json"
    path.write_text("[" + "{},\n" * 200_000 + "{}]")
    rows, peak = read_traced(path)
    assert rows == 200_001
    assert peak < 10_000_000


def test_columns_are_bounded_and_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_LINE", 10_000_000)
    path = tmp_path / "x.csv"
    path.write_text("a" + ",a" * row_files.MAX_COLUMNS + "\n1\n")
    with pytest.raises(DataError, match="the first line names more than 10,000 columns"):
        list(read_row_file(path))
    names = [f"a{i}" for i in range(row_files.MAX_COLUMNS)]
    path.write_text(",".join(names) + "\n" + ",".join(names) + "\n")
    assert [dict(row.values) for row in read_row_file(path)] == [{name: name for name in names}]
    path.write_text("a,b,c,b\n1,2,3,4\n")
    with pytest.raises(DataError, match="the column 'b' is there twice"):
        list(read_row_file(path))


@pytest.mark.parametrize("form", ["text", "list", "struct"])
def test_a_repeated_text_of_a_parquet_file_is_not_copied_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(row_files, "MAX_LINE", 200_000)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), ["x" * 100_000])
    column = {
        "text": text,
        "list": pa.ListArray.from_arrays(list(range(257)), text),
        "struct": pa.StructArray.from_arrays([text], ["inner"]),
    }[form]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": column}), path, dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 100_000
    rows, peak = read_traced(path)
    assert rows == 256
    assert peak < 10_000_000


def test_a_row_of_a_parquet_file_is_as_long_as_a_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": ["x" * 600] * 4, "b": ["y", "y", "y" * 600, "y"]}), path)
    rows = read_row_file(path)
    assert [len(next(rows).values["a"]) for _ in range(2)] == [600, 600]
    with pytest.raises(DataError, match="row 3 has more than 1,000 bytes"):
        next(rows)


def read_traced(path: Path) -> tuple[int, int]:
    """Return the number of rows of a file, and how many bytes Python had allocated at most while it read them."""
    tracemalloc.start()
    try:
        return sum(1 for _ in read_row_file(path)), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ordinary_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b'a,b\n1,"two\nlines"\n'))
    assert [dict(row.values) for row in read_row_file(path)] == [{"a": "1", "b": "two\nlines"}]


def test_a_missing_file_suggests_the_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "emails.csv").write_text("email\nhello\n", encoding="utf-8")
    (tmp_path / "email.txt").write_text("not rows", encoding="utf-8")
    with pytest.raises(DataError, match=r"no data file at .*email\.csv; did you mean 'emails\.csv'\?$"):
        read_row_file(tmp_path / "email.csv")
    with pytest.raises(DataError, match=r"no data file at .*gone.x\.csv$"):
        read_row_file(tmp_path / "gone" / "x.csv")
    with pytest.raises(DataError, match=r"no file or folder at .*gone$"):
        read_row_file(tmp_path / "gone")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("https://example.org/a.jsonl", "https://example.org/a.jsonl is a URL, from which nothing is read"),
        ("hf://datasets/some/pairs", "hf://datasets/some/pairs is a URL"),
        ("folder/*.jsonl", "no data file at folder/*.jsonl: patterns are not expanded; use the path of a folder"),
    ],
)
def test_a_place_that_is_no_path_is_refused_as_what_it_is(place: str, reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)):
        read_row_file(Path(place))


@pytest.mark.parametrize("text", ['{"data": [{"prompt": "p"}]}', '{"prompt": {"0": "p"}, "label": {"0": "a"}}'])
def test_a_table_in_one_json_object_is_refused(tmp_path: Path, text: str) -> None:
    """The second one is what `to_json` of pandas writes by default."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"holds all rows in one JSON object; expected one object per line"):
        list(read_row_file(path))


def test_one_row_alone_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for values in ({"prompt": "p"}, {"messages": [{"role": "user", "content": "Hi"}]}, {"a": {"text": "x"}}):
        path.write_text(json.dumps(values))
        assert [row.values for row in read_row_file(path)] == [values]


WRONG_TEXT = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"\xff\xfeab"))


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (WRONG_TEXT, "'utf-8' codec can't decode byte 0xff"),
        (pa.ListArray.from_arrays([0, 1, 2], WRONG_TEXT), "'utf-8' codec can't decode byte 0xff"),
        (pa.array([2**62, 1], pa.timestamp("us")), "out of range"),
        (pa.array([2**30, 1], pa.int32()).cast(pa.date32()), "days=1073741824"),
        (pa.array([2**62, 1], pa.duration("s")), "too large"),
    ],
    ids=["text", "texts", "timestamp", "date", "duration"],
)
def test_a_value_of_a_parquet_file_that_python_does_not_have_is_a_fault_of_its_row(
    tmp_path: Path, column: pa.Array, reason: str
) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": column, "b": [1, 2]}), path)
    first, second = read_row_file(path)
    assert re.match(f"a value cannot be read: .*{reason}", str(first.fault))
    assert (second.number, second.fault, second.values["b"]) == (2, None, 2)


def test_columns_of_a_parquet_file_have_names_of_their_own_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match="the column 'a' is there twice"):
        list(read_row_file(path))
    pq.write_table(pa.table({"marked": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"marked", b"m\xffrked"))
    with pytest.raises(DataError, match=r"cannot read .*x.parquet as Parquet: 'utf-8' codec"):
        list(read_row_file(path))


def test_a_map_of_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    column = pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"prompt": ["p", "q"], "extra": column}), path)
    assert [row.values for row in read_row_file(path)] == [
        {"prompt": "p", "extra": [("k", "v")]},
        {"prompt": "q", "extra": []},
    ]


def test_a_key_that_a_row_has_twice_is_a_fault(tmp_path: Path) -> None:
    path, row = tmp_path / "x.jsonl", '{"label": "a", "label": "b"}'
    path.write_text(f'{row}\n{{"label": "a"}}\n')
    first, second = read_row_file(path)
    assert (str(first.fault), second.values) == ("duplicate key 'label'", {"label": "a"})
    path = tmp_path / "x.json"
    path.write_text(f'[{{"label": "a"}}, {row}]')
    with pytest.raises(DataError, match=r"x.json, row 2: duplicate key 'label'"):
        list(read_row_file(path))
