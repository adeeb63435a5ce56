"""The remote backend against a real HTTP server that answers, delays, drops, throttles, refuses and garbles."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif_framework import (
    ModelError,
    PluginManager,
    Spec,
    SpecError,
)
from rlaif_framework.prompting import run_coroutines
from rlaif_framework.spec.loading import build_spec
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.lengths import estimate_tokens, read_context, read_overlong
from rlaif_plugins.backends.openai.limits import TokenBucket, backoff, read_retry_after
from support.remote import KEY, Build, Clock, ask, choices, drive, texts
from support.server import Reply, complete, fail, prompt, serve

pytestmark = pytest.mark.usefixtures("alone")


# Lengths


@pytest.mark.parametrize(
    ("message", "share"),
    [
        ("maximum context length is 1000 tokens. However, your request has 2000 input tokens", 0.97 * 900 / 2000),
        (
            "maximum context length is 1000 tokens. However, you requested 2100 tokens (2000 in the messages, "
            "100 in the completion)",
            0.97 * 900 / 2000,
        ),
        (
            "'max_tokens' is too large: 100. This model's maximum context length is 1000 tokens and your request has "
            "950 input tokens",
            0.97 * 900 / 950,
        ),
        ("context length is 50 tokens, your request has 30 input tokens", 0.97 * -50 / 30),
        ("this model's context length is 1000 tokens", 0.97 * 900 / 2000),
        ("context length exceeded", 0.75),
        ("the content policy does not allow this", None),
        (f"context length is {'9' * 5000} tokens", 0.75),
        (f"context length is 1000 tokens, your request has {'9' * 5000} input tokens", 0.97 * 900 / 2000),
    ],
)
def test_how_much_of_a_refused_question_would_fit(message: str, share: float | None) -> None:
    body = {"prompt": "abcd" * 2000, "max_tokens": 100}
    assert read_overlong(message, body, None) == (share if share is None else pytest.approx(share))


def test_a_listed_length_tells_an_overlong_question_from_another_refusal() -> None:
    body = {"prompt": "abcd" * 2000, "max_tokens": 100}
    assert read_overlong("no", body, 1000) == pytest.approx(0.97 * 900 / 2000)
    assert read_overlong("no", body, 4000) is None
    assert read_context({"data": [{"id": "a", "max_model_len": 5}, {"id": "b"}]}, "a") == 5
    assert [read_context(data, "b") for data in ({"data": [{"id": "b"}]}, {}, None, {"data": 3})] == [None] * 4
    odd: list[Any] = [float("inf"), float("nan"), -1, 0, "many", None, []]
    for length in odd:
        assert read_context({"data": [{"id": "a", "max_model_len": length}]}, "a") is None


def test_tokens_of_other_scripts_are_not_underestimated() -> None:
    assert [estimate_tokens(text) for text in ("", "word", "words", "漢字", "😀", "\ud800")] == [0, 1, 2, 3, 2, 1]


# Many at once


def test_requests_are_in_flight_together_and_no_more_than_allowed(build: Build) -> None:
    together = threading.Barrier(8)

    def answer_eight_at_once(body: dict[str, Any], number: int) -> Reply:
        together.wait(timeout=600)
        return complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(answer_eight_at_once) as server:
        got = dict(build(server.url, concurrency=8).answer(choices(40)))
    assert sorted(got) == list(range(40))
    assert server.most_in_flight == 8


def test_answers_come_as_they_arrive_whatever_their_order(build: Build) -> None:
    others_arrived = threading.Event()

    def hold_the_first(body: dict[str, Any], number: int) -> Reply:
        if prompt(body).endswith("question 0"):
            assert others_arrived.wait(timeout=600)
        return complete(body, prompt(body))

    with serve(hold_the_first) as server:
        arrived = []
        for i, got in build(server.url).answer(texts(6)):
            arrived.append((i, got.text))
            if len(arrived) == 5:
                others_arrived.set()
        assert arrived[-1][0] == 0
        assert set(arrived) == {(i, f"question {i}") for i in range(6)}
        assert [a.text for a in drive(texts(6), build(server.url))] == [f"question {i}" for i in range(6)]


def test_several_servers_share_the_load_and_a_dead_one_is_worked_around(build: Build) -> None:
    with serve(delay=0.02) as one, serve(delay=0.02) as two:
        assert len(list(build(one.url, two.url, concurrency=4).answer(choices(40)))) == 40
        assert len(one.bodies) + len(two.bodies) == 40
        assert min(len(one.bodies), len(two.bodies)) >= 12
        with serve() as gone:
            pass
        assert len(list(build(gone.url, two.url, concurrency=4).answer(choices(40)))) == 40


def test_requests_per_minute_are_kept(build: Build, clock: Clock) -> None:
    start = clock.now
    with serve() as server:
        list(build(server.url, requests_per_minute=600, concurrency=1).answer(choices(20)))
    assert clock.now - start == pytest.approx(1.0)  # 10 a second: 10 at once, 10 in the second after


def test_tokens_per_minute_are_kept_and_estimates_put_right(build: Build, clock: Clock) -> None:
    start = clock.now
    with serve(lambda body, number: complete(body, "yes", tokens=(180, 20))) as server:
        list(build(server.url, tokens_per_minute=60_000, concurrency=1).answer(texts(12)))
    # 12 x 200 tokens at 1,000 a second, the first 1,000 at once; of the last request only the estimate is waited for
    assert clock.now - start == pytest.approx(1.2, abs=0.05)


def test_a_bucket_lets_through_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("rlaif_plugins.backends.openai.limits.time.monotonic", lambda: now[0])
    bucket = TokenBucket(120)
    assert [bucket.take(1) for _ in range(4)] == [0, 0, 0.5, 1.0]
    now[0] += 60
    assert [bucket.take(1) for _ in range(3)] == [0, 0, 0.5]  # a minute's rest saves up one second's worth
    bucket.take(-1)
    assert bucket.take(1) == 0.5
    assert TokenBucket(None).take(1e9) == 0


# Failures


@pytest.mark.parametrize(
    "failure",
    [
        lambda body: fail(429, "slow down"),
        lambda body: fail(500, "oops"),
        lambda body: fail(503, "starting"),
        lambda body: None,
        lambda body: (200, {}, b'{"choices": [{"mess'),
        lambda body: (200, {}, b"\xff\xfe"),
        lambda body: (200, {}, b'{"choices": []}'),
        lambda body: (200, {}, b"[1]"),
        lambda body: (200, {}, b'{"choices": [{"message": "1", "text": 5}]}'),
    ],
    ids=["429", "500", "503", "dropped", "cut", "bytes", "empty", "list", "types"],
)
def test_failures_that_may_pass_are_asked_again(build: Build, failure: Callable[[Any], Reply | None]) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply | None:
        return failure(body) if number in (1, 3) else complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(behave) as server:
        got = drive(choices(5), build(server.url))
    assert [a.probabilities for a in got] == [pytest.approx((0.75, 0.25))] * 5
    assert len(server.bodies) == 7


def test_a_late_answer_is_asked_for_again(build: Build) -> None:
    over = threading.Event()

    def late_once(body: dict[str, Any], number: int) -> Reply:
        if number == 0:
            over.wait(timeout=600)
        return complete(body, "yes")

    with serve(late_once) as server:
        [(_, got)] = build(server.url, timeout=0.3).answer(texts(1))
        over.set()
    assert got.text == "yes"
    assert len(server.bodies) >= 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(build: Build, clock: Clock, form: str) -> None:
    asked: list[float] = []

    def throttle(body: dict[str, Any], number: int) -> Reply:
        asked.append(clock.now)
        if number:
            return complete(body, "yes")
        later = format_datetime(datetime.fromtimestamp(clock.now + 3, UTC), usegmt=True)
        return fail(429, "slow down", Retry_After="3" if form == "seconds" else later)

    with serve(throttle) as server:
        assert len(list(build(server.url, concurrency=1).answer(texts(2)))) == 2
    assert 3 <= asked[1] - asked[0] <= 3.3 + 1  # a tenth more, so that not all come back at once, and the backoff


def test_retry_after_is_remembered_from_one_call_to_the_next(build: Build, clock: Clock) -> None:
    asked: list[float] = []

    def throttle(body: dict[str, Any], number: int) -> Reply:
        asked.append(clock.now)
        return complete(body, "yes") if number else fail(429, "slow down", Retry_After="2")

    with serve(throttle) as server:
        backend = build(server.url, retries=0, concurrency=1)
        with pytest.raises(ModelError, match="slow down"):
            list(backend.answer(texts(1)))
        assert len(list(backend.answer(texts(3)))) == 3
        with serve() as other:
            both = build(server.url, other.url, concurrency=1)
            both.service.servers[0].rest(30)
            for _ in range(3):
                list(both.answer(texts(2)))
    assert 2 <= asked[1] - asked[0] <= 2.2
    assert len(other.bodies) == 6


def test_a_server_that_asks_for_hours_ends_the_run(build: Build, clock: Clock) -> None:
    start = clock.now
    with serve(lambda body, number: fail(429, "daily limit", Retry_After="86400")) as server:
        with pytest.raises(ModelError, match=r"requests a pause of 2\d\.\d hours"):
            list(build(server.url).answer(texts(1)))
    assert clock.now - start < 60


def test_retry_after_and_backoff() -> None:
    assert read_retry_after("1.5") == 1.5
    assert [read_retry_after(v) for v in (None, "", "soon", "-3", "nan", "Wed, 21 Oct 2015 07:28:00 GMT")] == [0] * 6
    assert [read_retry_after(v) for v in ("1e300", "Wed, 21 Oct 999999999999 07:28:00 GMT", "inf")] == [1e7, 0, 0]
    assert 25 < read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) <= 30
    assert all(0.5 <= backoff(1) <= 1 for _ in range(50))
    assert len({backoff(3) for _ in range(20)}) > 1
    assert backoff(99) <= 60


@pytest.mark.parametrize(
    ("status", "says"), [(400, "check the model"), (401, "not set"), (403, "not set"), (404, "/v1")]
)
def test_a_refusal_is_not_repeated(build: Build, status: int, says: str) -> None:
    refuse = serve(lambda body, number: fail(status, "no such thing"))
    with refuse as server, pytest.raises(ModelError, match="no such thing") as caught:
        list(build(server.url).answer(texts(1)))
    # A short question shows whether it is about the request; after a 400, it is also asked with the fewest settings.
    assert len(server.bodies) == {400: 4, 401: 1}.get(status, 2)
    assert all(part in str(caught.value) for part in (server.url, str(status), says))


def test_a_refused_request_is_an_answer_with_the_reason_and_is_not_kept(build: Build) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        return fail(400, "filtered") if prompt(body).endswith("question 3") and number < 20 else complete(body, "yes")

    with serve(behave) as server:
        outcomes = run_coroutines([ask(request) for request in texts(9)], build(server.url, concurrency=2))
        assert [o.value.text if o.value else o.refused for o in outcomes] == [
            f"{server.url}/chat/completions answered 400: filtered" if i == 3 else "yes" for i in range(9)
        ]
        assert len(server.bodies) == 9
        server.bodies *= 3
        assert [a.text for a in drive(texts(9), build(server.url))] == ["yes"] * 9  # asked again, and only that one
    assert len(server.bodies) == 28


def test_what_was_paid_for_a_refused_choice_is_counted(build: Build) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        return complete(body, "1") if body.get("logprobs") or body["seed"] == 0 else fail(400, "filtered")

    with serve(behave) as server:
        [(_, got)] = build(server.url, samples=3).answer(choices(1))
    assert (got.refused is not None, got.probabilities) == (True, ())
    assert (got.prompt_tokens, got.generated_tokens) == (20, 2)


def test_exhausted_retries_end_with_the_reason_and_keep_what_has_arrived(build: Build) -> None:
    def broken_for_one(body: dict[str, Any], number: int) -> Reply:
        # The last question, so that all others have been sent when it fails for good.
        return fail(500, "out of memory") if prompt(body).endswith("question 8") else complete(body, "yes")

    arrived = []
    says = r"2 attempts.*500: out of memory.*8 of 9 requests are answered"
    with serve(broken_for_one) as server, pytest.raises(ModelError, match=says):
        arrived.extend(build(server.url, retries=1, concurrency=2).answer(texts(9)))
    assert sorted(index for index, _ in arrived) == list(range(8))
    assert Counter(server.prompts)["question 8"] == 2


def test_nobody_listening_is_an_error_with_the_url(build: Build) -> None:
    with serve() as server:
        pass
    with pytest.raises(ModelError, match=f"{server.url}.*ConnectError"):
        list(build(server.url, retries=1).answer(texts(1)))


# The key


def everything(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield repr(error)
        error = error.__cause__ or error.__context__


def test_the_key_is_sent_and_shown_nowhere(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)

    def echo(body: dict[str, Any], number: int) -> Reply:
        if prompt(body).endswith("question 1"):
            return fail(401, f"Incorrect API key provided: {KEY}")
        return (200, {}, f"garbled {KEY}".encode()) if number == 0 else complete(body, f"the key is {KEY}")

    with serve(echo) as server:
        backend = build(server.url, concurrency=1, retries=1)
        with pytest.raises(ModelError, match="Incorrect API key provided") as refused:
            drive(texts(2), backend)
    garble = serve(lambda body, number: (200, {}, f"garbled {KEY}".encode()))
    with garble as garbler, pytest.raises(ModelError, match="garbled") as garbled:
        drive(texts(3)[2:], build(garbler.url, retries=0))
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    assert KEY not in backend.identity()
    assert not [text for caught in (refused, garbled) for text in everything(caught.value) if KEY in text]
    assert "check the key in $OPENAI_API_KEY" in str(refused.value)
    assert KEY not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"the key is ***" in path.read_bytes() for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_no_key_no_header_and_another_variable(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        list(build(server.url).answer(texts(1)))
        monkeypatch.setenv("MY_KEY", "EMPTY")
        list(build(server.url, api_key_env="MY_KEY").answer(texts(1)))
    assert "Authorization" not in server.headers[0]
    assert server.headers[1]["Authorization"] == "Bearer EMPTY"


@pytest.mark.parametrize("key", ["sk-two\nlines", "sk-schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(
    build: Build, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ModelError, match=r"\$OPENAI_API_KEY") as caught:
        build("http://127.0.0.1:9/v1")
    assert not [text for text in everything(caught.value) if "sk-" in text]


# Identity and configuration


def test_the_identity_is_the_model_and_how_it_is_asked(build: Build) -> None:
    plain = build("http://a/v1")
    assert plain.identity() == build("http://b/v1", "http://c/v1", concurrency=3, timeout=5).identity()
    others = [build("http://a/v1", **s) for s in ({"mode": "completion"}, {"prefill": "no"}, {"samples": 9})]
    assert len({plain.identity(), *(other.identity() for other in others)}) == 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base_urls": "localhost:8000/v1"}, "whole base URL"),
        ({"base_urls": ["http://a/v1", "b/v1"]}, "base_urls.1"),
        ({"base_urls": "ftp://a/v1"}, "whole base URL"),
        ({"base_urls": "http://a:99999/v1"}, "whole base URL"),
        ({"base_urls": "http://192.168.1.300:8000/v1"}, "whole base URL"),
        ({"base_urls": "http://\U0001f600.example/v1"}, "whole base URL"),
        ({"base_urls": f"http://a/{'v' * 70_000}"}, "whole base URL"),
        ({"base_urls": "http://a/\ud800"}, "whole base URL"),
        ({"base_urls": "http://me:secret@a/v1"}, "not have a user, password or query"),
        ({"base_urls": "http://a/v1?api-key=secret"}, "not have a user, password or query"),
        ({"base_urls": []}, "at least 1"),
        ({}, "base_urls"),
        ({"base_urls": "http://a/v1", "requests_per_minute": -1}, "requests_per_minute"),
        ({"base_urls": "http://a/v1", "tokens_per_minute": 0}, "tokens_per_minute"),
        ({"base_urls": "http://a/v1", "max_tokens_budget": -5}, "max_tokens_budget"),
        ({"base_urls": "http://a/v1", "max_cost": 1.0}, "price_in"),
        ({"base_urls": "http://a/v1", "concurrency": 0}, "concurrency"),
        ({"base_urls": "http://a/v1", "timeout": 0}, "timeout"),
    ],
)
def test_bad_settings_are_errors_of_the_spec(
    tiny_spec: Callable[..., Spec], manager: PluginManager, settings: dict[str, Any], says: str
) -> None:
    labeler = {"kind": "llm", "backend": {"kind": "openai", "model": "made", **settings}}
    arms = {"a": {"feedback": {"kind": "ai", "labeler": labeler}, "reward": "bradley-terry", "algorithm": "reinforce"}}
    with pytest.raises(SpecError, match=says) as caught:
        build_spec({"name": "s", "task": "tldr", "policy": {"model": "m"}, "arms": arms}, "s.yaml", manager)
    assert "secret" not in str(caught.value)


def test_one_url_may_be_given_as_a_string_and_no_model_is_loaded() -> None:
    config = OpenAIConfig.model_validate({"model": "m", "base_urls": "http://a/v1/"})
    assert config.base_urls == ["http://a/v1"]
    assert not config.loads("policy")
    with pytest.raises(ValidationError):
        OpenAIConfig.model_validate({"model": "", "base_urls": "http://a/v1"})
    assert json.dumps(OpenAIConfig.model_json_schema())
