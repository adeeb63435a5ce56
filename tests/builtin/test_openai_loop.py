"""The remote backend where an event loop runs already, as in a notebook, and where its caller stops early."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rlaif_framework.prompting.answer_cache import AnswerCache
from support.remote import Build, choices, drive, texts
from support.server import Reply, complete, prompt, serve

pytestmark = pytest.mark.usefixtures("alone")


def test_a_caller_may_run_an_event_loop(build: Build) -> None:
    async def call() -> list[str]:
        assert asyncio.get_running_loop().is_running()
        return [answer.text for answer in drive(texts(6), build(server.url))]

    with serve(lambda body, number: complete(body, prompt(body))) as server:
        assert asyncio.run(call()) == [f"question {i}" for i in range(6)]


def test_answers_in_a_running_loop_are_those_without(build: Build) -> None:
    async def call() -> list[Any]:
        return list(build(server.url).answer(choices(4)))

    with serve() as server:
        inside, outside = asyncio.run(call()), list(build(server.url).answer(choices(4)))
    assert sorted(inside) == sorted(outside)


def test_no_request_is_sent_after_the_caller_has_failed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_store(cache: AnswerCache, key: bytes, answer: Any) -> None:
        raise KeyboardInterrupt

    first_only = threading.Event()

    def hold_all_but_the_first(body: dict[str, Any], number: int) -> Reply:
        if number:
            first_only.wait(timeout=600)
        return complete(body, "yes")

    monkeypatch.setattr(AnswerCache, "_write", fail_to_store)
    with serve(hold_all_but_the_first) as server:
        # The traceback is kept, as a notebook does: the frames of the calls stay.
        with pytest.raises(KeyboardInterrupt) as kept:
            drive(texts(40), build(server.url, concurrency=2))
        still_running = [thread.name for thread in threading.enumerate() if "portal" in thread.name]
        first_only.set()
        assert not still_running
        assert len(server.bodies) <= 3
    assert kept.traceback
