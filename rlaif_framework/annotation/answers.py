"""The file of answers: an SQLite database in which every answer is on the disk before the page hears of it.

Rows are only added: an answer that is taken back stays, followed by an event that says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from rlaif_framework.errors import DataError

Kind = Literal["item", "repeat", "gold"]
"""An item, an item that the same person has compared before, or an item whose answer is known."""

Drawn = Literal["random", "uncertain"]
"""How items are chosen: at random, or those first of which a labeler is least sure."""

Choice = Literal["first", "second", "tie", "bad", "skip"]
"""The better response, by its position on the page; a tie; both are bad; the person cannot judge."""

CHOICES: tuple[Choice, ...] = get_args(Choice)

STRENGTHS = (1, 2, 3)
"""Slightly, clearly, much better."""

APPLICATION = 0x524C4146
"""Marks the file as one of this program."""

VERSION = 2

SCHEMA = """
CREATE TABLE assignments (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  annotator TEXT NOT NULL,
  item TEXT NOT NULL,
  kind TEXT NOT NULL,
  first INTEGER NOT NULL,
  drawn TEXT NOT NULL,
  time REAL NOT NULL,
  UNIQUE (annotator, item, kind)
);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  assignment INTEGER NOT NULL REFERENCES assignments (id),
  choice TEXT,
  strength INTEGER,
  seconds REAL,
  time REAL NOT NULL,
  request TEXT NOT NULL UNIQUE
);
CREATE TABLE exports (path TEXT PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An item that a person was given."""

    id: int
    annotator: str
    item: str
    """The item's key."""
    kind: Kind
    first: int
    """Index of the response that is shown first: 0 or 1."""
    drawn: Drawn
    time: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer that was not taken back."""

    assignment: Assignment
    choice: Choice
    strength: int | None
    """One of `STRENGTHS` if it was asked for."""
    seconds: float
    """Time for which the item was on the page."""
    time: float

    @property
    def preference(self) -> float | None:
        """The probability that the item's first response is the better one; None if the person could not judge.

        Slightly better is 2/3, clearly better 5/6, and much better 1, as without a strength.
        """
        if self.choice == "skip":
            return None
        if self.choice in ("tie", "bad"):
            return 0.5
        shown_first = 0.5 + (self.strength or STRENGTHS[-1]) / 6
        wins_first = self.choice == "first"
        return shown_first if wins_first == (self.assignment.first == 0) else 1 - shown_first


class AnswerFile:
    """An open file of answers. Only one thread at a time may use it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open a file, and create it if it is not there.

        Raises:
            DataError: It is something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls._open(path, create=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open a file that is there, even while another process writes answers.

        Raises:
            DataError: It is missing, or something else.
        """
        if not path.is_file():
            raise DataError(f"there is no file of answers at {path}; run the command without --export first")
        return cls._open(path, create=False)

    @classmethod
    def _open(cls, path: Path, create: bool) -> Self:
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        except sqlite3.Error as error:
            raise DataError(f"cannot open {path}: {error}") from error
        try:
            _prepare(path, connection, create)
        except sqlite3.Error as error:
            connection.close()
            raise DataError(f"{path} is not a file of answers: {error}; choose another --out") from error
        except DataError:
            connection.close()
            raise
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def read_assignments(self) -> list[Assignment]:
        """Return all assignments in order."""
        rows = self._connection.execute(
            "SELECT id, annotator, item, kind, first, drawn, time FROM assignments ORDER BY id"
        )
        return [Assignment(*row) for row in rows]

    def read_answers(self) -> list[Answer]:
        """Return the answers that were not taken back, in the order in which they were given."""
        assignments = {x.id: x for x in self.read_assignments()}
        rows = self._connection.execute(
            "SELECT assignment, choice, strength, seconds, time FROM events "
            "WHERE id IN (SELECT max(id) FROM events GROUP BY assignment) AND choice IS NOT NULL ORDER BY id"
        )
        return [Answer(assignments[number], *rest) for number, *rest in rows]

    def assign(self, annotator: str, item: str, kind: Kind, first: int, drawn: Drawn, time: float) -> Assignment:
        """Give an item to a person."""
        values = (annotator, item, kind, first, drawn, time)
        with self._writing():
            found = self._connection.execute(
                "INSERT INTO assignments (annotator, item, kind, first, drawn, time) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        return Assignment(found.lastrowid or 0, *values)

    def record(self, answer: Answer, request: str) -> None:
        """Write an answer to the disk.

        Args:
            answer: The answer.
            request: A text that identifies it if the page sends it again.
        """
        self._add_event((answer.assignment.id, answer.choice, answer.strength, answer.seconds, answer.time, request))

    def take_back(self, assignment: int, time: float, request: str) -> None:
        """Note that the last answer to an assignment was taken back."""
        self._add_event((assignment, None, None, None, time, request))

    def has_request(self, request: str) -> bool:
        """Return True if an event of this request has been written."""
        found = self._connection.execute("SELECT 1 FROM events WHERE request = ?", (request,))
        return found.fetchone() is not None

    def note_export(self, path: str) -> None:
        """Remember that a file was written by an export, so that the next one may replace it."""
        with self._writing():
            self._connection.execute("INSERT OR IGNORE INTO exports (path) VALUES (?)", (path,))

    def has_exported(self, path: str) -> bool:
        """Return True if an earlier export wrote a file."""
        return self._connection.execute("SELECT 1 FROM exports WHERE path = ?", (path,)).fetchone() is not None

    def describe_durability(self) -> tuple[str, int]:
        """Return SQLite's `journal_mode` and `synchronous`."""
        (mode,) = self._connection.execute("PRAGMA journal_mode").fetchone()
        (level,) = self._connection.execute("PRAGMA synchronous").fetchone()
        return mode, level

    def _add_event(self, values: tuple[object, ...]) -> None:
        with self._writing():
            self._connection.execute(
                "INSERT INTO events (assignment, choice, strength, seconds, time, request) VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit at the end of the block; nothing is written if it fails."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself, e.g. on a full disk
                self._connection.execute("ROLLBACK")
            raise


def _prepare(path: Path, connection: sqlite3.Connection, create: bool) -> None:
    """Check or create the tables, and set how the file is written."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    with closing(connection.execute("SELECT count(*) FROM sqlite_master")) as found:
        empty = found.fetchone()[0] == 0
    if empty and not create:
        raise DataError(f"{path} holds no answers yet; run the command without --export first")
    if not empty and application != APPLICATION:
        raise DataError(f"{path} is an SQLite database of another program; choose another --out")
    if empty:
        connection.executescript(
            f"BEGIN EXCLUSIVE;{SCHEMA}PRAGMA application_id = {APPLICATION};PRAGMA user_version = {VERSION};COMMIT;"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise DataError(f"{path} was written by another version of rlaif-framework; choose another --out")
    if create:
        # With a write-ahead log, a commit is one write and one fsync, and others can read while answers are written.
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit returns once it is on the disk
