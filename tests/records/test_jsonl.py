"""Artefacts are complete or absent, found again by what they depend on; rows are read back or refused by line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import DataError, Store
from rlaif_framework.records import read_rows, write_rows
from rlaif_framework.records.jsonl import read_lines
from support.rows import KEY


def test_work_and_checkpoints_outlive_an_interruption(tmp_path: Path) -> None:
    work, checkpoint = Store(tmp_path).begin("sft", KEY)
    (work / "model.bin").write_text("half")
    (checkpoint / "step.json").write_text("3")
    again, saved = Store(tmp_path).begin("sft", KEY)
    assert (again / "model.bin").read_text() == "half"
    assert (saved / "step.json").read_text() == "3"


def test_rows_come_back_as_they_were_with_their_line_numbers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"text": "é\n\u2028 \U0001f600", "b": None}, {"c": [1.5, True]}]
    write_rows(tmp_path / "r.jsonl", rows)
    assert list(read_rows(tmp_path / "r.jsonl")) == [(1, rows[0]), (2, rows[1]), (3, rows[2])]
    assert "é" in (tmp_path / "r.jsonl").read_text(encoding="utf-8"), "text is not readable"


def test_compressed_rows_and_those_of_other_systems_are_read_too(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "r.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"a": "é"}\n{"a": 2}')
    assert [row for _, row in read_rows(tmp_path / "r.jsonl.gz")] == [{"a": "é"}, {"a": 2}]
    (tmp_path / "w.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [row for _, row in read_rows(tmp_path / "w.jsonl")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', ", line 2: not valid JSON: Expecting value at column "),
        (b'{"a": 1}\n\n{"a": 3}\n', ", line 2: the line is empty; remove it"),
        (b'{"a": 1}\n   \n', ", line 2: the line is empty; remove it"),
        (b'{"a": 1}\n[1, 2]\n', ", line 2: expected a JSON object, found list"),
        (b'"text"\n', ", line 1: expected a JSON object, found str"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', ", line 2: not valid UTF-8"),
        (b'{"a": 1}\n{"a": "\\ud83d"}\n', ", line 2: not valid UTF-8"),
        (b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}\n", ", line 2: a number has too many digits"),
        (b'{"a": 1}\n' + b"[" * 200_000 + b"\n", ", line 2: lists and objects are nested too deeply"),
        (b"", " is empty"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(read_rows(path))
    assert f"{path}{expected}" in str(raised.value)


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n')
    assert list(read_rows(tmp_path / "r.jsonl")) == [(1, {"a": "\U0001f600"})]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file at .*gone\.jsonl"):
        list(read_rows(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError, match="cannot read"):
        list(read_rows(tmp_path))
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    for name, content in {"not": b"text", "cut": whole[:-20], "bad": whole[:30] + b"\xff" * 30 + whole[60:]}.items():
        (tmp_path / f"{name}.jsonl.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read|not valid"):
            list(read_rows(tmp_path / f"{name}.jsonl.gz"))


def test_a_line_that_a_small_file_expands_to_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif_framework.records.jsonl.MAX_LINE", 1000)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" + b'{"a": "' + b"x" * 10_000_000))
    with pytest.raises(DataError, match="line 2 is longer than 1,000 bytes"):
        list(read_lines(path))
