"""Pairs, answers and a running server for the tests of annotation."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from rlaif_framework.annotation.answers import Answer, AnswerFile, Assignment, Choice, Drawn, Kind
from rlaif_framework.annotation.assignment import AssignmentSettings, Desk, order_items
from rlaif_framework.annotation.items import ItemSet, read_items
from support.fake_plugins import write_rows

REQUESTS = itertools.count()


def pair_rows(count: int) -> list[dict[str, Any]]:
    """Pairs by model `A` and model `B`, in either order; the response of A says so."""
    rows = []
    for number in range(count):
        texts = [f"from A {number}", f"from B {number}"]
        models = ["A", "B"]
        if number % 2:
            texts, models = texts[::-1], models[::-1]
        rows.append({"prompt": f"question {number}", "responses": texts, "model_a": models[0], "model_b": models[1]})
    return rows


def write_pairs(folder: Path, count: int) -> Path:
    return write_rows(folder / "pairs.jsonl", pair_rows(count))


def open_desk(file: AnswerFile, pairs: ItemSet, gold: Sequence[str] = (), **settings: Any) -> Desk:
    assigned = AssignmentSettings(**settings)
    return Desk(file, order_items(pairs.items, assigned), gold, assigned)


def answer_next(desk: Desk, annotator: str, choice: Choice = "first") -> Assignment | None:
    """Answer the item that a person sees, and return it; None if there is none."""
    opened = desk.open_items(annotator)
    if not opened:
        return None
    desk.answer(annotator, opened[0].id, choice, None, 1.0, f"request-{next(REQUESTS)}")
    return opened[0]


def read_small(folder: Path, count: int) -> ItemSet:
    return read_items(write_pairs(folder, count))


def make_answer(
    item: str,
    choice: Choice,
    annotator: str = "Ann",
    kind: Kind = "item",
    first: int = 0,
    drawn: Drawn = "random",
    strength: int | None = None,
) -> Answer:
    number = next(REQUESTS)
    return Answer(Assignment(number, annotator, item, kind, first, drawn, 0.0), choice, strength, 2.0, float(number))


class Client:
    """Speaks to a server as the script of the page does."""

    def __init__(self, base: str, token: str) -> None:
        self.http = httpx2.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=600)

    def open(self, annotator: str) -> dict[str, Any]:
        return self._read(self.http.post("api/items", json={"annotator": annotator}))

    def answer(self, annotator: str, assignment: int, choice: str, request: str) -> dict[str, Any]:
        body = {
            "annotator": annotator,
            "assignment": assignment,
            "choice": choice,
            "seconds": 1.5,
            "request": request,
        }
        return self._read(self.http.post("api/answers", json=body))

    def _read(self, response: httpx2.Response) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


class Served:
    """A running `rlaif annotate`."""

    def __init__(
        self, process: subprocess.Popen[str], client: Client, url: str, progress_url: str, notes: list[str]
    ) -> None:
        self.process = process
        self.client = client
        self.url = url
        self.progress_url = progress_url
        self.notes = notes
        """What was printed before it listened."""

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def interrupt(self) -> tuple[int, str, str]:
        """Press Ctrl-C, and return the exit code, the output and the messages."""
        self.process.send_signal(signal.SIGINT)
        out, messages = self.process.communicate()
        return self.process.returncode, out, messages


@contextmanager
def serve(*arguments: object) -> Iterator[Served]:
    """Run `rlaif annotate` in a process of its own, and wait until it listens."""
    command = [sys.executable, "-m", "rlaif_framework", "annotate", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RLAIF_PLUGINS": ""},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        # Without a terminal, JSON goes to stdout, and the URL to stderr.
        stream = process.stderr if "--json" in arguments else process.stdout
        notes: list[str] = []
        while not (found := re.search(r"(http://\S+/)#token=(\S+)", line := stream.readline())):
            assert line, "".join(notes) + process.stderr.read()
            notes.append(line)
        progress = re.search(r"http://\S+/progress#token=\S+", stream.readline())
        assert progress
        # To the end of the message: `communicate` does not see what has been buffered here.
        assert stream.readline() == "Ctrl-C ends\n"
        yield Served(process, Client(found[1], found[2]), found[0], progress[0], notes)
    finally:
        process.kill()
        process.communicate()
