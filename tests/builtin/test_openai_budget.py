"""Budgets, kills and Ctrl-C: what has been paid for is kept, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import (
    Answer,
    Generate,
    Question,
    RlaifError,
)
from rlaif_framework.prompting.answer_cache import AnswerCache
from support.remote import Build, choices, drive, texts
from support.server import complete, serve

pytestmark = pytest.mark.usefixtures("alone")


# Budget, kill, Ctrl-C


@pytest.mark.parametrize(
    ("budget", "name"),
    [({"max_tokens_budget": 100}, "max_tokens_budget"), ({"max_cost": 0.0001, "price_in": 1.0}, "max_cost")],
)
def test_a_budget_stops_cleanly_and_the_next_run_goes_on(build: Build, budget: dict[str, Any], name: str) -> None:
    with serve(delay=0.02) as server:
        backend = build(server.url, concurrency=4, **budget)
        with pytest.raises(RlaifError, match=rf"{name}.*of 40 requests are answered.*higher budget"):
            drive(choices(40), backend)
        first = len(server.bodies)
        assert 9 <= first <= 10 + 4  # 11 tokens each; those in flight when it was reached are finished
        with pytest.raises(RlaifError, match=rf"0 of {40 - first} requests"):
            drive(choices(40), backend)  # the same process: nothing more is sent
        assert len(server.bodies) == first
        assert len(drive(choices(40), build(server.url))) == 40
    assert len(server.bodies) == 40  # nothing twice
    assert len(set(server.prompts)) == 40


@pytest.mark.parametrize(
    "request_", [choices(40), [Generate(c.question, 60) for c in choices(40)]], ids=["choice", "text"]
)
def test_a_budget_holds_with_many_requests_in_flight(build: Build, request_: list[Any]) -> None:
    """Servers count 120 tokens where 11 were estimated: only what they count tells."""
    with serve(lambda body, number: complete(body, "1", {"1": 1.0}, tokens=(120, 1)), delay=0.02) as server:
        backend = build(server.url, concurrency=16, max_tokens_budget=1000)
        with pytest.raises(RlaifError, match=r"max_tokens_budget of 1,000 tokens \(\d+ used; the next may take \d+\)"):
            list(backend.answer(request_))
    assert 750 <= backend.service.budget.tokens <= 1000
    assert server.most_in_flight > 1


def test_a_budget_that_is_passed_all_the_same_says_by_how_much(build: Build) -> None:
    with serve(lambda body, number: complete(body, "1", {"1": 1.0}, tokens=(400, 5))) as server:
        backend = build(server.url, max_tokens_budget=300)
        with pytest.warns(UserWarning, match=r"max_tokens_budget of 300 tokens \(405 used, 105 more than that\)"):
            list(backend.answer(choices(1)))
        with pytest.raises(RlaifError, match=r"405 used, 105 more than that.*0 of 1"):
            list(backend.answer(choices(1)))
    assert len(server.bodies) == 1


def test_a_budget_too_small_for_one_request_sends_none(build: Build) -> None:
    with serve() as server, pytest.raises(RlaifError, match=r"0 used; the next may take 2,\d+"):
        list(build(server.url, max_tokens_budget=300).answer([Generate(Question("why?"), 2000)]))
    assert server.bodies == []


def test_a_budget_stops_those_that_wait_for_a_rate_limit(build: Build) -> None:
    with serve() as server, pytest.raises(RlaifError, match="max_tokens_budget"):
        list(build(server.url, requests_per_minute=60, max_tokens_budget=20).answer(choices(30)))
    assert len(server.bodies) <= 3


def test_a_budget_lets_a_begun_choice_finish(build: Build) -> None:
    with serve(lambda body, number: complete(body, "1")) as server:
        arrived = []
        with pytest.raises(RlaifError, match="1 of 3"):
            arrived.extend(build(server.url, samples=5, concurrency=1, max_tokens_budget=20).answer(choices(3)))
    assert [got.sampled for _, got in arrived] == [5]


CHILD = """
import sys
from typing import Any
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.backend import OpenAIBackend
from support.remote import choices, drive
backend = OpenAIBackend(OpenAIConfig(model="made", base_urls=[sys.argv[1]], concurrency=4), None)
print("ready", flush=True)
drive(choices(60), backend)
"""


def start_child(url: str) -> subprocess.Popen[str]:
    paths = sys.path
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background of a shell has them ignore Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    while not condition():
        assert child.poll() is None
        time.sleep(0.005)


def test_after_a_kill_only_what_was_not_answered_is_asked(build: Build, tmp_path: Path) -> None:
    with serve(delay=0.05) as server:
        child = start_child(server.url)
        wait_for(lambda: len(server.bodies) >= 24, child)
        child.kill()
        child.communicate()
        before = server.prompts
        with sqlite3.connect(tmp_path / "cache" / "answers.sqlite") as db:
            # A response is in the journal before its answer is cached, and the kill may come between the two.
            # No row of the journal is removed before a hundred answers are cached.
            [(arrived,)] = db.execute("SELECT count(*) FROM exchanges WHERE response IS NOT NULL").fetchall()
        assert 12 <= arrived < 60
        assert len(before) - arrived <= 8  # in flight at the kill
    with serve() as server:  # another one: requests of the killed process may still arrive at the first
        assert len(drive(choices(60), build(server.url))) == 60
    assert len(server.bodies) == 60 - arrived


def test_a_cache_that_is_full_or_damaged_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    cache = AnswerCache("m", path)
    cache._db.execute("PRAGMA max_page_count = 3")
    with pytest.raises(RlaifError, match="is full; free some space, or set RLAIF_CACHE"):
        cache._write(b"key", Answer(text="x" * 100_000))
    cache.close()
    path.write_bytes(b"no database, but text" * 400)
    with pytest.raises(RlaifError, match="delete it to start over"):
        AnswerCache("m", path)


def test_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with serve(delay=3600) as server:
        child = start_child(server.url)
        wait_for(lambda: len(server.bodies) >= 4, child)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=600)  # its answers would take an hour
    assert child.returncode != 0
    assert "KeyboardInterrupt" in errors


def test_a_caller_that_stops_leaves_nothing_running(build: Build) -> None:
    with serve(delay=0.05) as server:
        backend = build(server.url, concurrency=2)
        answers = backend.answer(choices(50))
        next(answers)
        answers.close()
        assert not [task for task in gc.get_objects() if isinstance(task, asyncio.Task) and not task.done()]
        # Requests that were on their way when it stopped may still arrive: no more than were sent at once.
        list(build(server.url).answer(texts(1)))
        assert len(server.bodies) < 10
