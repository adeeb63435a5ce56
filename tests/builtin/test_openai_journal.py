"""What the remote backend writes down: after a kill, no answer that has arrived is asked for again."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import ModelError
from support.faulty_server import FAULTS
from support.remote import Build, choices, drive, texts
from support.server import Reply, Server, complete, prompt, serve

pytestmark = pytest.mark.usefixtures("alone")

REQUESTS, SAMPLES, CONCURRENCY = 80, 3, 16
CHILD = f"""
import sys
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.backend import OpenAIBackend
from support.remote import choices, drive
config = OpenAIConfig(model="made", base_urls=[sys.argv[1]], concurrency={CONCURRENCY}, samples={SAMPLES})
drive(choices({REQUESTS}), OpenAIBackend(config, None))
"""


def name(body: dict[str, Any]) -> tuple[str, Any]:
    """What distinguishes a request from all others of a run."""
    return prompt(body), body.get("seed")


class Killer:
    """Answers without log-probabilities, so that choices are sampled, and kills the client at one request."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self, body: dict[str, Any], number: int) -> Reply | None:
        if number == self.at and self.child is not None:
            os.kill(self.child.pid, signal.SIGKILL)
        return complete(body, "1" if body.get("seed", 0) % 3 else "2")


def run_until_killed(server: Server, killer: Killer) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # The server does not answer before it knows whom to kill, since the first request may be the one.
    with server.lock:
        killer.child = subprocess.Popen([sys.executable, "-c", CHILD, server.url], env=environment)
    assert killer.child.wait(timeout=600) == -signal.SIGKILL


def received(server: Server) -> set[tuple[str, Any]]:
    return {name(server.bodies[number]) for number in server.received}


def count(server: Server) -> Counter[tuple[str, Any]]:
    return Counter(map(name, server.bodies))


@pytest.mark.parametrize("seed", range(2))
def test_after_kills_no_answer_that_has_arrived_is_asked_for_again(build: Build, seed: int) -> None:
    stream = random.Random(seed)
    arrived: set[tuple[str, Any]] = set()
    sent: Counter[tuple[str, Any]] = Counter()
    for _ in range(2):
        killer = Killer(stream.randrange(60, 110))
        with serve(killer) as server:  # another one each time: requests of a killed process may still arrive
            run_until_killed(server, killer)
        assert not arrived & set(count(server))
        arrived |= received(server)
        sent += count(server)
    with serve(lambda body, number: complete(body, "1" if body.get("seed", 0) % 3 else "2")) as server:
        answers = drive(choices(REQUESTS), build(server.url, concurrency=CONCURRENCY, samples=SAMPLES))
    assert [answer.probabilities for answer in answers] == [(2 / 3, 1 / 3)] * REQUESTS
    assert not arrived & set(count(server))
    assert len(arrived) > 20
    twice = [request for request, times in (sent + count(server)).items() if times > 1]
    assert len(twice) <= 2 * CONCURRENCY  # in flight at a kill
    # A request may have been written to a connection and not have been read from it.
    assert len(twice) <= sum(answer.unanswered for answer in answers) <= 2 * CONCURRENCY


def test_the_journal_is_empty_when_all_is_cached(build: Build, tmp_path: Path) -> None:
    with serve(lambda body, number: complete(body, "1")) as server:
        drive(choices(5), build(server.url, samples=2))
    with sqlite3.connect(tmp_path / "cache" / "answers.sqlite") as db:
        assert db.execute("SELECT count(*) FROM exchanges").fetchall() == [(0,)]
        assert db.execute("SELECT count(*) FROM answers").fetchall() == [(5,)]


def test_settings_that_were_found_before_a_kill_do_not_hide_what_has_arrived(build: Build) -> None:
    """The resumed process asks with the default settings first."""

    def behave(body: dict[str, Any], number: int) -> Reply | None:
        if body.get("top_logprobs", 0) > 5:
            return 400, {}, b'{"error": "no"}'
        return complete(body, "1", {"1": 0.5, "2": 0.25})

    with serve(behave) as server:
        answers = build(server.url, concurrency=1).answer(choices(2))
        next(answers)
        answers.close()  # before the caller has stored the answer
        before = len(server.bodies)
        [again] = drive(choices(1), build(server.url, concurrency=1))
    assert again.probabilities == pytest.approx((2 / 3, 1 / 3))
    taken = [body for body in server.bodies[before:] if body.get("top_logprobs", 0) <= 5]
    assert not [body for body in taken if prompt(body) == "question 0"]


@pytest.mark.parametrize("drops", [1, 3])
@pytest.mark.parametrize("kind", ["dropped", "half a head", "body cut", "chunks cut"])
def test_requests_whose_connection_died_are_counted(build: Build, drops: int, kind: str) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply | bytes | None:
        return FAULTS[kind].reply(body) if number < drops else complete(body, "yes")

    with serve(behave) as server:
        [answer] = drive(texts(1), build(server.url))
        [cached] = drive(texts(1), build(server.url))
        several = drive(texts(1) * 3, build(server.url))
    assert answer.unanswered == cached.unanswered == drops
    assert [one.unanswered for one in several] == [drops, 0, 0]  # the same answer
    assert len(server.bodies) == drops + 1


@pytest.mark.parametrize("reply", [(503, {}, b"starting"), b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nstart"])
def test_a_request_that_was_not_sent_or_was_refused_is_not_counted(build: Build, reply: Reply | bytes) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply | bytes:
        return reply if number == 0 else complete(body, "yes")

    with serve() as gone:
        pass
    with pytest.raises(ModelError, match="ConnectError"):
        drive(texts(1), build(gone.url, retries=2))
    with serve(behave) as server:
        [answer] = drive(texts(1), build(server.url))
    assert answer.unanswered == 0


def test_equal_samples_of_a_server_without_seeds_are_each_asked_for(build: Build) -> None:
    said: Sequence[str] = ("1", "2", "1", "1")

    def behave(body: dict[str, Any], number: int) -> Reply | None:
        if "seed" in body:
            return 400, {}, b'{"error": "unknown field seed"}'
        return complete(body, said[len([b for b in server.bodies[: number + 1] if "seed" not in b]) - 2])

    with serve(behave) as server:
        [answer] = drive(choices(1), build(server.url, samples=4, concurrency=1))
    assert answer.sampled == 4
    assert answer.probabilities == (0.75, 0.25)
