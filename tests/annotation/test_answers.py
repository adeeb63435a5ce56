"""Answers are on the disk before anybody hears of them, and none is ever removed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rlaif_framework.annotation.answers import AnswerFile, Choice
from rlaif_framework.annotation.assignment import AssignmentError
from rlaif_framework.annotation.items import read_items
from rlaif_framework.errors import DataError
from support.annotation import answer_next, make_answer, open_desk, read_small
from support.fake_plugins import write_rows


@pytest.mark.parametrize(
    ("choice", "first", "strength", "expected"),
    [
        ("first", 0, None, 1.0),
        ("first", 1, None, 0.0),
        ("second", 0, None, 0.0),
        ("second", 1, None, 1.0),
        ("tie", 1, None, 0.5),
        ("bad", 0, None, 0.5),
        ("skip", 0, None, None),
        ("first", 0, 1, 2 / 3),
        ("second", 0, 2, 1 / 6),
        ("second", 1, 3, 1.0),
    ],
)
def test_answers_about_positions_become_preferences_for_the_first_response(
    choice: Choice, first: int, strength: int | None, expected: float | None
) -> None:
    found = make_answer("x", choice, first=first, strength=strength).preference
    assert found == (None if expected is None else pytest.approx(expected))


def test_an_answer_that_is_taken_back_stays_in_the_file(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 3)
    with AnswerFile.create(tmp_path / "answers.sqlite") as file:
        desk = open_desk(file, pairs)
        shown = desk.open_items("Ann")[0]
        desk.answer("Ann", shown.id, "first", None, 1.0, "request-a")
        desk.take_back("Ann", shown.id, "request-b")
        assert desk.answers == file.read_answers() == []
        assert desk.open_items("Ann")[0] == shown  # in the same order of responses
        desk.answer("Ann", shown.id, "second", None, 1.0, "request-c")
        (kept,) = file.read_answers()
        assert kept.choice == "second"
    rows = sqlite3.connect(tmp_path / "answers.sqlite").execute("SELECT choice FROM events ORDER BY id").fetchall()
    assert rows == [("first",), (None,), ("second",)]


def test_a_request_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 3)
    with AnswerFile.create(tmp_path / "answers.sqlite") as file:
        desk = open_desk(file, pairs)
        first, second = desk.open_items("Ann")
        desk.answer("Ann", first.id, "first", None, 1.0, "request-a")
        desk.answer("Ann", second.id, "first", None, 1.0, "request-b")
        desk.answer("Ann", first.id, "first", None, 1.0, "request-a")
        desk.take_back("Ann", second.id, "request-c")
        desk.take_back("Ann", second.id, "request-c")
        assert [answer.assignment.id for answer in file.read_answers()] == [first.id]


def test_answers_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 3)
    with AnswerFile.create(tmp_path / "answers.sqlite") as file:
        desk = open_desk(file, pairs)
        shown = desk.open_items("Ann")[0]
        with pytest.raises(AssignmentError, match="Bob was not given this pair"):
            desk.answer("Bob", shown.id, "first", None, 1.0, "request-a")
        with pytest.raises(AssignmentError, match="no answer to take back"):
            desk.take_back("Ann", shown.id, "request-b")
        desk.answer("Ann", shown.id, "first", None, 1.0, "request-c")
        with pytest.raises(AssignmentError, match="answered already, perhaps in another window"):
            desk.answer("Ann", shown.id, "second", None, 1.0, "request-d")
        assert [answer.choice for answer in file.read_answers()] == ["first"]


def test_a_failed_write_leaves_file_and_memory_as_they_were(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 3)
    path = tmp_path / "answers.sqlite"
    with AnswerFile.create(path) as file:
        desk = open_desk(file, pairs)
        shown = desk.open_items("Ann")[0]
        blocker = sqlite3.connect(path)
        blocker.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        blocker.commit()
        with pytest.raises(sqlite3.Error, match="disk is full"):
            desk.answer("Ann", shown.id, "first", None, 1.0, "request-a")
        assert desk.answers == []
        blocker.execute("DROP TRIGGER full")
        blocker.commit()
        blocker.close()
        desk.answer("Ann", shown.id, "first", None, 1.0, "request-a")
        assert len(file.read_answers()) == 1


def test_commits_are_synchronised_with_the_disk(tmp_path: Path) -> None:
    with AnswerFile.create(tmp_path / "answers.sqlite") as file:
        assert file.describe_durability() == ("wal", 2)  # 2 is FULL


def test_files_that_hold_no_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of answers at .*missing.sqlite"):
        AnswerFile.read(tmp_path / "missing.sqlite")
    (tmp_path / "text.sqlite").write_text("this is no database" * 100)
    with pytest.raises(DataError, match=r"text.sqlite is not a file of answers"):
        AnswerFile.create(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE something (id INTEGER)")
    other.close()
    with pytest.raises(DataError, match="an SQLite database of another program"):
        AnswerFile.create(tmp_path / "other.sqlite")
    with AnswerFile.create(tmp_path / "later.sqlite"):
        pass
    with sqlite3.connect(tmp_path / "later.sqlite") as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(DataError, match="written by another version"):
        AnswerFile.create(tmp_path / "later.sqlite")


def test_answers_are_about_the_texts_also_if_the_file_has_them_in_another_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i}", "response_a": "good", "response_b": "bad"} for i in range(4)]
    pairs = read_items(write_rows(tmp_path / "pairs.jsonl", rows))
    with AnswerFile.create(tmp_path / "answers.sqlite") as file:
        desk = open_desk(file, pairs)
        while opened := desk.open_items("Ann"):
            responses = pairs.items[opened[0].item].comparison.responses
            answer_next(desk, "Ann", "first" if responses[opened[0].first] == "good" else "second")
        answers = file.read_answers()
    swapped = [{"prompt": row["prompt"], "response_a": "bad", "response_b": "good"} for row in rows]
    for found in (pairs, read_items(write_rows(tmp_path / "pairs.jsonl", swapped[::-1]))):
        assert {found.items[x.assignment.item].comparison.responses for x in answers} == {("bad", "good")}
    assert [answer.preference for answer in answers] == [0.0] * 4
