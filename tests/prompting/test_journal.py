"""The journal of exchanges: what was sent without a response, and what has arrived."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_framework import RlaifError
from rlaif_framework.prompting import Journal


def test_what_was_noted_outlives_the_process(tmp_path: Path) -> None:
    one, two, three = (Journal.key(["/path", {"n": n}]) for n in range(3))
    journal = Journal(tmp_path / "answers.sqlite")
    for key in (one, two, two, three):
        journal.note_request(key)
    journal.note_response(one, {"text": "\u00e9", "n": [0.1, None]})
    journal.note_response(three)
    later = Journal(tmp_path / "answers.sqlite")  # the first is not closed, as in a process that was killed
    assert later.find_response(one) == {"text": "\u00e9", "n": [0.1, None]}
    assert [later.find_response(key) for key in (two, three, b"other")] == [None] * 3
    assert [later.count_unanswered([key]) for key in (one, two, three, b"other")] == [0, 2, 0, 0]
    assert later.count_unanswered([one, two, three]) == 2
    assert journal.count_unanswered([two]) == 0  # in flight, for the process that sent them
    journal.note_loss(two)
    assert journal.count_unanswered([two]) == 1
    later.forget([one, two])
    later.close()
    assert journal.find_response(one) is None
    assert journal.count_unanswered([two]) == 0


def test_what_another_process_has_in_flight_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = tmp_path / "answers.sqlite", Journal.key("request")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        monkeypatch.setattr(os, "getpid", lambda: other.pid)
        theirs = Journal(path)
        monkeypatch.undo()
        theirs.note_request(key)
        ours = Journal(path)
        ours.note_request(key)
        ours.note_loss(key)
        assert ours.count_unanswered([key]) == 1
        other.kill()
    assert ours.count_unanswered([key]) == 2
    theirs.note_response(key, "yes")
    assert ours.find_response(key) == "yes"
    assert ours.count_unanswered([key]) == 1


def test_many_requests_are_forgotten_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.sqlite")
    keys = [Journal.key(n) for n in range(250)]
    for key in keys:
        journal.note_request(key)
        journal.note_loss(key)
    journal.forget(keys[:240])
    assert journal.count_unanswered(keys) == 10
    journal.forget(keys[240:249])
    journal.close()
    assert Journal(tmp_path / "answers.sqlite").count_unanswered(keys) == 1


def test_a_response_ends_one_of_several_requests(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.sqlite")
    key = Journal.key("lone \ud800 surrogate")
    for _ in range(2):
        journal.note_request(key)
        journal.note_loss(key)
    journal.note_request(key)
    journal.note_response(key, "yes")
    assert (journal.count_unanswered([key]), journal.find_response(key)) == (2, "yes")
    journal.note_request(key)
    journal.note_response(key, "again")
    assert (journal.count_unanswered([key]), journal.find_response(key)) == (2, "again")


def test_a_damaged_or_full_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    journal = Journal(path)
    journal._db.execute("PRAGMA max_page_count = 3")
    journal.note_request(b"key")
    with pytest.raises(RlaifError, match="is full; free some space, or set RLAIF_CACHE"):
        journal.note_response(b"key", "x" * 100_000)
    journal.close()
    path.write_bytes(b"no database, but text" * 400)
    with pytest.raises(RlaifError, match="delete it to start over"):
        Journal(path)
