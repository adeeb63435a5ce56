"""Files of rows that are refused: those that expand to much more than their size, and those that are no rows."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

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
    ],
)
def test_a_small_file_that_expands_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()))
    assert path.stat().st_size < 50_000
    with pytest.raises(DataError, match=reason):
        list(read_row_file(path))


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
