"""Settings, numbers and lengths that servers do not accept are found by asking, not by words in their messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Choose, Generate, ModelError, Question
from rlaif_framework.cli.main import main
from rlaif_framework.prompting import run_coroutines
from rlaif_plugins.backends.openai.clients import find_proxy
from rlaif_plugins.backends.openai.negotiation import SHORT_QUESTION
from support.fake_plugins import write_rows
from support.remote import Build, ask, choices, drive, texts
from support.server import Behave, Reply, complete, fail, prompt, serve

pytestmark = pytest.mark.usefixtures("alone")
Refuses = Callable[[dict[str, Any]], bool]
MESSAGES = pytest.mark.parametrize(
    "message", ["Bad Request", "", "ung\u00fcltige Anfrage", "error 4711: see the manual"]
)


def strict(refuses: Refuses, message: str, status: int = 400) -> Behave:
    """A server that refuses some requests, and never says why."""

    def behave(body: dict[str, Any], number: int) -> Reply:
        known = {"1": 0.6, "2": 0.2} if body.get("logprobs") else None
        return fail(status, message) if refuses(body) else complete(body, "1", known)

    return behave


# Settings


@MESSAGES
@pytest.mark.parametrize("limit", [19, 10, 8, 5, 2])
@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_the_number_of_log_probabilities_is_lowered_until_it_is_accepted(
    build: Build, message: str, limit: int, mode: str
) -> None:
    def too_many(body: dict[str, Any]) -> bool:
        return int(body.get("top_logprobs" if mode == "chat" else "logprobs", 0)) > limit

    with serve(strict(too_many, message)) as server:
        got = dict(build(server.url, mode=mode, concurrency=2).answer(choices(9)))
        found = len(server.bodies)
        assert not [body for body in server.bodies[-5:] if too_many(body)]
    assert {answer.read_from for answer in got.values()} == {"top_logprobs"}
    assert {answer.dropped for answer in got.values()} == {()}
    assert found <= 9 + 16


@MESSAGES
@pytest.mark.parametrize("name", ["top_k", "top_p", "seed", "temperature"])
@pytest.mark.parametrize("status", [400, 422])
def test_a_setting_that_is_refused_without_a_word_is_left_out_alone(
    build: Build, message: str, name: str, status: int
) -> None:
    with serve(strict(lambda body: name in body, message, status)) as server:
        got = dict(build(server.url, concurrency=1).answer(texts(6, temperature=0.7, top_k=40)))
        last = server.bodies[-1]
    assert {answer.dropped for answer in got.values()} == {(name,)}
    assert {"top_k", "top_p", "seed", "temperature"} - set(last) == {name}
    assert len(server.bodies) <= 6 + 12


@MESSAGES
def test_several_refused_settings_are_found_together(build: Build, message: str) -> None:
    refused = {"continue_final_message", "temperature", "max_tokens", "seed"}
    with serve(strict(lambda body: bool(refused & set(body)), message)) as server:
        got = dict(build(server.url, concurrency=4, samples=2).answer([*choices(4), *texts(4)]))
        last = server.bodies[-1]
    assert {answer.refused for answer in got.values()} == {None}
    assert last["max_completion_tokens"] == 5
    assert got[0].dropped == ("prefill", "temperature")
    assert got[7].dropped == ("seed", "temperature")
    assert (got[0].read_from, got[0].mass) == ("top_logprobs", pytest.approx(0.8))
    assert len([text for text in server.prompts if not text.startswith(SHORT_QUESTION)]) <= 8 + 10


def test_servers_of_several_kinds_are_asked_what_all_accept(build: Build) -> None:
    with serve(strict(lambda body: False, "")) as one:
        with serve(strict(lambda body: bool({"continue_final_message", "top_p"} & set(body)), "no")) as two:
            requests = [*choices(12), *texts(12, temperature=0.5)]
            got = dict(build(one.url, two.url, concurrency=1).answer(requests))
    assert len(one.bodies) > 8
    assert len(two.bodies) > 8
    assert {answer.refused for answer in got.values()} == {None}
    assert [got[11].dropped, got[23].dropped] == [("prefill",), ("top_p",)]


@pytest.mark.parametrize("status", [500, 501])
def test_a_server_that_crashes_on_log_probabilities_is_sampled(build: Build, status: int) -> None:
    with serve(strict(lambda body: "logprobs" in body, "internal error", status)) as server:
        got = dict(build(server.url, retries=1, concurrency=1, samples=2).answer(choices(3)))
    assert {(answer.read_from, answer.sampled) for answer in got.values()} == {("samples", 2)}


@pytest.mark.parametrize(
    "message",
    [
        "Our assistant does not support this content",
        "The seed of violence: top_k, top_p, temperature unsupported, max_completion_tokens, logprobs, prefill",
    ],
)
def test_words_in_a_refusal_of_the_content_change_no_setting(build: Build, message: str) -> None:
    with serve(strict(lambda body: "question 0" in prompt(body), message)) as server:
        requests: list[Choose | Generate] = [*choices(4), *texts(4, temperature=0.5, top_k=3)]
        outcomes = run_coroutines([ask(request) for request in requests], build(server.url, concurrency=1))
        last = server.bodies[-1]
    assert [outcome.refused is None for outcome in outcomes] == [False, True, True, True] * 2
    assert {outcome.dropped for outcome in outcomes} == {()}
    assert {"top_k", "top_p", "seed", "temperature", "max_tokens"} <= set(last)
    choice = next(body for body in server.bodies if prompt(body).startswith("question 3") and body.get("logprobs"))
    assert (choice["top_logprobs"], choice["continue_final_message"]) == (20, True)


def test_a_server_that_accepts_nothing_ends_the_run_after_few_requests(build: Build) -> None:
    with serve(strict(lambda body: True, "no")) as server, pytest.raises(ModelError, match="a short question as well"):
        list(build(server.url, concurrency=8).answer(choices(50)))
    assert len(server.bodies) <= 8 + 3


# Lengths


def label(url: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    backend = {"kind": "openai", "model": "made", "base_urls": url, "retries": 0}
    Path("judge.json").write_text(json.dumps({"kind": "llm", "backend": backend}))
    argv = ["rlaif", "label", "pairs.jsonl", "--labeler", "judge.json", "--out", "labels.jsonl"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    return [json.loads(line) for line in Path("labels.jsonl").read_text(encoding="utf-8").splitlines()]


@MESSAGES
@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize("first", [0, 2])
def test_a_question_that_is_too_long_is_shortened_whatever_the_server_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str, status: int, first: int
) -> None:
    monkeypatch.chdir(tmp_path)
    posts = ["one two three.\n" * (600 if i == first else 5) + f"post {i}" for i in range(4)]
    write_rows(Path("pairs.jsonl"), [{"prompt": post, "responses": ["good", "bad"]} for post in posts])
    with serve(strict(lambda body: len(prompt(body)) > 3600, message, status)) as server:
        labels = label(server.url, monkeypatch)
        taken = [text for text in server.prompts if "one two" in text and len(text) <= 3600]
    assert all(row["probabilities"] is not None for row in labels)
    assert [row["evidence"]["source_truncated"] for row in labels] == [i == first for i in range(4)]
    assert max(map(len, taken)) > 1800  # not cut by more than it must


def test_a_long_question_that_is_refused_for_its_content_is_not_shortened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    posts = ["one two three.\n" * (600 if i == 2 else 5) + f"post {i}" for i in range(4)]
    write_rows(Path("pairs.jsonl"), [{"prompt": post, "responses": ["good", "bad"]} for post in posts])
    with serve(strict(lambda body: "post 2" in prompt(body), "no")) as server:
        labels = label(server.url, monkeypatch)
    assert [row["probabilities"] is None for row in labels] == [i == 2 for i in range(4)]
    assert "answered 400: no" in labels[2]["evidence"]["refused"]
    assert not labels[2]["evidence"]["source_truncated"]


def test_no_filler_is_sent_where_a_question_as_long_was_answered(build: Build) -> None:
    long = [Choose(Question("word " * 900 + name, "Answer="), ("1", "2")) for name in ("fine", "bad", "good")]
    with serve(strict(lambda body: "bad" in prompt(body), "no")) as server:
        assert len(drive(long, build(server.url, concurrency=1))) == 2
    assert len(server.bodies) == 3


# Proxies


def proxies(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "no_proxy", ["127.0.0.1", "*", "a.b, 127.0.0.0/8", ".local,127.0.0.1:{port}", " 127.0.0.1 ", "127.*"]
)
def test_a_proxy_that_cannot_be_used_does_not_matter_to_a_server_of_no_proxy(
    build: Build, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    with serve() as server:
        port = str(server.server_address[1])
        proxies(monkeypatch, ALL_PROXY="socks://127.0.0.1:9", NO_PROXY=no_proxy.format(port=port))
        assert len(list(build(server.url).answer(choices(1)))) == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_an_http_proxy_is_used(build: Build, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with serve() as proxy:
        proxies(monkeypatch, **{name: proxy.url.removesuffix("/v1")})
        assert len(list(build("http://server.invalid:8000/v1").answer(choices(1)))) == 1
        assert proxy.paths == ["http://server.invalid:8000/v1/chat/completions"]


def test_a_proxy_that_is_gone_is_a_connection_that_failed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as gone:
        pass
    proxies(monkeypatch, ALL_PROXY=gone.url.replace("http://", "http://me:secret@").removesuffix("/v1"))
    with pytest.raises(ModelError, match=r"no usable answer after 2 attempts.*ConnectError") as caught:
        list(build("http://server.invalid/v1", retries=1).answer(choices(1)))
    assert "secret" not in str(caught.value)


def test_a_proxy_that_wants_a_password_says_so(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda body, number: fail(407, "Proxy Authentication Required")) as proxy:
        proxies(monkeypatch, HTTP_PROXY=proxy.url.removesuffix("/v1"))
        with pytest.raises(ModelError, match=r"answered 407.*check the user and the password of the proxy"):
            list(build("http://server.invalid/v1", retries=1).answer(choices(1)))


@pytest.mark.parametrize(
    ("url", "no_proxy", "uses"),
    [
        ("http://a.example.com/v1", "", True),
        ("http://a.example.com/v1", "example.com", False),
        ("http://a.example.com/v1", ".example.com", False),
        ("http://a.example.com/v1", "*.example.com", False),
        ("http://badexample.com/v1", "example.com", True),
        ("http://a.example.com:8000/v1", "a.example.com:8000", False),
        ("http://10.1.2.3/v1", "10.0.0.0/8", False),
        ("http://11.1.2.3/v1", "10.0.0.0/8, not an address/8", True),
        ("http://[::1]:8000/v1", "::1", False),
        ("http://[fd00::5]/v1", "fd00::/8", False),
        ("https://a.example.com/v1", "", False),  # HTTP_PROXY is for http only
    ],
)
def test_which_servers_need_a_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, uses: bool) -> None:
    proxies(monkeypatch, HTTP_PROXY="proxy:3128", NO_PROXY=no_proxy)
    assert find_proxy(url) == (("HTTP_PROXY", "http://proxy:3128") if uses else None)
