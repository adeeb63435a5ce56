"""Files that expand to much more than their size are refused."""

from __future__ import annotations

import gzip
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
