"""How the remote backend reads the probabilities of a choice."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from rlaif_framework import Choose, ModelError, Question
from rlaif_plugins.backends.openai.label_tokens import plan_reads, read_methods
from rlaif_plugins.backends.openai.options import option_weights, read_option
from support.remote import Build, choices, drive
from support.server import Reply, answer, complete, fail, serve
from support.token_server import describe, probabilities, render, serve_tokens, tokenize

pytestmark = pytest.mark.usefixtures("alone")


# The most likely tokens, and samples


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_a_choice_is_read_from_the_top_logprobs(build: Build, mode: str) -> None:
    with serve(answer(logprobs={"1": 0.4, " 1": 0.1, "2": 0.2, "\n2": 0.05, "The": 0.1})) as server:
        [(index, got)] = build(server.url, mode=mode).answer(choices(1))
    assert index == 0
    assert got.probabilities == pytest.approx((0.5 / 0.75, 0.25 / 0.75))
    assert got.mass == pytest.approx(0.75)
    assert (got.prompt_tokens, got.generated_tokens, got.sampled) == (10, 1, 0)
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("made", 1, 0.0)
    assert "seed" not in body  # nothing is sampled, and it ends a vLLM server on a CPU
    assert got.read_from == "top_logprobs"
    if mode == "chat":
        assert server.paths == ["/v1/chat/completions"]
        assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
        assert body["messages"] == [
            {"role": "user", "content": "question 0"},
            {"role": "assistant", "content": "Preferred Summary="},
        ]
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    else:
        assert server.paths == ["/v1/completions"]
        assert (body["logprobs"], body["prompt"]) == (20, "question 0\n\nPreferred Summary=")


def test_an_option_outside_the_top_counts_nothing(build: Build) -> None:
    with serve(answer(logprobs={"2": 0.7, "so": 0.2, "if": 0.001})) as server:
        [(_, got)] = build(server.url).answer(choices(1))
    assert got.probabilities == (0.0, 1.0)
    assert got.mass == pytest.approx(0.7)


@pytest.mark.parametrize("listed", [{"2": 0.7}, {"2": 0.7, "so": 0.2}, {"": 0.9, "2": 0.01, "1": 0.001}])
def test_a_list_that_cannot_tell_is_replaced_by_samples(build: Build, listed: dict[str, float]) -> None:
    """Only the chosen token is listed, or few more, or what is before the answer."""
    with serve(lambda body, number: complete(body, "12"[body.get("seed", 0)], listed)) as server:
        [(_, got)] = build(server.url, samples=2).answer(choices(1))
    assert got.read_from == "samples"
    assert got.probabilities == (0.5, 0.5)


def test_sampled_answers_are_counted_where_none_of_the_options_is_found(build: Build) -> None:
    said = ["1", " 2.", "Preferred Summary=1", "12", "I think 1", "1\n"]

    def behave(body: dict[str, Any], number: int) -> Reply:
        return complete(body, "So", {"So": 0.9}) if "logprobs" in body else complete(body, said[body["seed"]])

    with serve(behave) as server:
        [(_, got)] = build(server.url, samples=6).answer(choices(1))
    assert got.sampled == 4  # "12" and "I think 1" start with no option
    assert got.probabilities == (0.75, 0.25)
    assert got.mass is None
    assert (got.prompt_tokens, got.generated_tokens) == (70, 7)
    assert [body["temperature"] for body in server.bodies] == [0.0] + [1.0] * 6
    assert got.read_from == "samples"
    assert sorted(body["seed"] for body in server.bodies[1:]) == list(range(6))


def test_a_server_without_logprobs_is_not_asked_for_them_again(build: Build) -> None:
    with serve(lambda body, number: complete(body, "2")) as server:
        got = dict(build(server.url, samples=3, concurrency=1).answer(choices(5)))
    assert [got[i].probabilities for i in range(5)] == [(0.0, 1.0)] * 5
    assert [got[i].sampled for i in range(5)] == [3] * 5
    assert len([body for body in server.bodies if "logprobs" in body]) == 2
    assert len(server.bodies) == 2 + 5 * 3


def test_one_answer_without_logprobs_does_not_change_how_the_others_are_read(build: Build) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        return complete(body, "1", {"1": 0.6, "2": 0.2} if number else None)

    with serve(behave) as server:
        got = dict(build(server.url, samples=2, concurrency=1).answer(choices(4)))
    assert [got[i].read_from for i in range(4)] == ["samples", *["top_logprobs"] * 3]


def test_a_choice_nobody_can_read_has_no_probabilities(build: Build) -> None:
    with serve(lambda body, number: complete(body, "I cannot say")) as server:
        [(_, got)] = build(server.url, samples=2).answer(choices(1))
    assert got.probabilities == ()
    assert got.sampled == 0


def test_refused_logprobs_are_asked_for_in_smaller_number_then_not_at_all(build: Build) -> None:
    def five(body: dict[str, Any], number: int) -> Reply:
        if body.get("top_logprobs", 0) > 5:
            return fail(400, "Invalid 'top_logprobs': at most 5")
        return complete(body, "1", {"1": 0.5, "2": 0.5})

    def never(body: dict[str, Any], number: int) -> Reply:
        return fail(400, "logprobs are not supported") if "logprobs" in body else complete(body, "1")

    with serve(five) as server:
        got = dict(build(server.url, concurrency=1).answer(choices(3)))
        assert [body["top_logprobs"] for body in server.bodies] == [20, 5, 5, 5]
        assert got[2].probabilities == (0.5, 0.5)
    with serve(never) as server:
        got = dict(build(server.url, samples=2).answer(choices(1)))
    assert got[0].probabilities == (1.0, 0.0)
    assert got[0].sampled == 2


def test_weights_are_none_where_the_next_token_cannot_tell() -> None:
    one_token = [("1", -1.0), ("10", -2.0), ("9", -3.0), ("so", -12.0)]
    digits = [("1", -1.0), ("9", -3.0), ("so", -12.0)]
    options = [str(i) for i in range(1, 11)]
    assert option_weights(options, one_token) is not None
    assert option_weights(options, digits) is None  # is it 1, or the first digit of 10?
    assert option_weights(options, [("1", -9.0), ("9", -0.1), ("so", -12.0)]) is not None  # too unlikely to matter
    assert option_weights(["1", "2"], [("1", -0.001)]) is not None  # not even a certain 2 would matter
    assert option_weights(["1", "2"], [("1", -0.2)]) is None
    assert option_weights(options, [("8", -0.69), ("9", -0.7)]) is not None
    assert option_weights(options, [("8", -0.7), ("9", -1.0)]) is None
    assert option_weights(["1", "2"], [("\n", -0.5), ("1", -0.9)]) is not None
    assert option_weights(["1", "2"], [("\n", -0.05), ("1", -3.1)]) is None
    assert option_weights(["first", "seventh"], [("first", -1.0), ("se", -1.0), ("so", -12.0)]) is None
    assert option_weights(["1", "2"], []) is None
    assert option_weights(["1", "2"], [("1", -9999.0), ("2", float("-inf"))]) is None
    assert option_weights(["1", "2"], [("1", math.nan), ("2", -0.1)]) is None
    assert option_weights(["1", "2"], [("1", 3.0), ("2", 5.0)]) is None


@pytest.mark.parametrize(
    ("text", "index"),
    [("10", 1), ("1", 0), ("1.", 0), (" 10 of 10", 1), ("100", None), ("1.5", None), ("Rating: 10", 1), ("a 1", None)],
)
def test_the_option_an_answer_starts_with(text: str, index: int | None) -> None:
    assert read_option(["1", "10"], text, "Rating:") == index


def test_a_token_that_is_listed_twice_counts_once(build: Build) -> None:
    """Some servers add the chosen token to the list."""

    def behave(body: dict[str, Any], number: int) -> Reply:
        status, headers, content = complete(body, "1", {"1": 0.45, "2": 0.1})
        data = json.loads(content)
        tops = data["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        tops.append(tops[0])
        return status, headers, json.dumps(data).encode()

    with serve(behave) as server:
        [(_, got)] = build(server.url).answer(choices(1))
    assert got.probabilities == pytest.approx((0.45 / 0.55, 0.1 / 0.55))


# Exact probabilities

NUMBERS = tuple(str(number) for number in range(1, 11))
MODES = pytest.mark.parametrize("mode", ["chat", "completion"])
KINDS = pytest.mark.parametrize("kind", ["vllm", "sglang"])
METHODS = {"vllm": "logprob_token_ids", "sglang": "score"}


def read_text(question: Question, mode: str) -> str:
    """Return what the model of `serve_tokens` reads before its answer."""
    if mode == "completion":
        return f"{question.text}\n\n{question.prefill}"
    turns = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.prefill}]
    return render({"messages": turns, "continue_final_message": True})


def chance(text: str, token: str) -> float:
    """Return the model's own probability of one token after a text."""
    [i] = tokenize(token, [token])
    return probabilities(text)[i]


@KINDS
@MODES
def test_labels_outside_the_most_likely_tokens_have_their_exact_probability(build: Build, kind: str, mode: str) -> None:
    requests = choices(24)
    with serve_tokens(kind) as server:
        got = dict(build(server.url, mode=mode).answer(requests))
    with serve_tokens("plain") as plain:
        before = dict(build(plain.url, mode=mode, samples=1).answer(requests))
    outside = 0
    for i, request in enumerate(requests):
        known = [chance(read_text(request.question, mode), option) for option in ("1", "2")]
        assert got[i].mass == pytest.approx(sum(known), abs=1e-9)
        assert got[i].probabilities == pytest.approx([p / sum(known) for p in known], abs=1e-9)
        assert (got[i].read_from, got[i].sampled) == (METHODS[kind], 0)
        outside += 0.0 in before[i].probabilities or before[i].mass is None
    assert outside > 10  # of the 24, with the 20 most likely tokens
    assert {answer.read_from for answer in before.values()} <= {"top_logprobs", "samples"}


@KINDS
@MODES
def test_servers_are_asked_once_what_they_offer_and_once_for_the_tokens(build: Build, kind: str, mode: str) -> None:
    with serve_tokens(kind) as server:
        backend = build(server.url, mode=mode)
        assert len(list(backend.answer(choices(24)))) == 24
        assert len(list(backend.answer(choices(24)))) == 24
        assert server.described == 1
    rendered = 48 if (kind, mode) == ("sglang", "chat") else 0
    assert server.paths.count("/tokenize") == 3 + rendered  # each option after the ending, and the ending
    assert len(server.paths) == 48 + 3 + rendered
    asked = [body for body in server.bodies if "logprob_token_ids" in body or "label_token_ids" in body]
    ids = [tokenize(option)[0] for option in ("1", "2")]
    assert all(body.get("logprob_token_ids", body.get("label_token_ids")) == ids for body in asked)
    assert not [body for body in server.bodies if "seed" in body or body.get("temperature", 0) > 0]


@KINDS
@MODES
def test_an_option_of_two_tokens_is_read_after_its_first(build: Build, kind: str, mode: str) -> None:
    question = Question("How good is it?", "SCORE:")
    with serve_tokens(kind) as server:
        [(_, got)] = build(server.url, mode=mode).answer([Choose(question, NUMBERS)])
    text = read_text(question, mode)
    ten = chance(text, "1") * chance(text + "1", "0")
    known = [chance(text, "1") - ten, *(chance(text, str(number)) for number in range(2, 10)), ten]
    assert got.mass == pytest.approx(sum(known), abs=1e-9)
    assert got.probabilities == pytest.approx([p / sum(known) for p in known], abs=1e-9)
    assert got.prompt_tokens == 20


@KINDS
@MODES
def test_a_space_before_an_option_may_belong_to_its_token(build: Build, kind: str, mode: str) -> None:
    question = Question("Which one?", "Answer: ")
    with serve_tokens(kind, merges=(" 1", " 2")) as server:
        [(_, got)] = build(server.url, mode=mode).answer([Choose(question, ("1", "2"))])
    text = read_text(question, mode).rstrip()
    known = [chance(text, option) for option in (" 1", " 2")]
    assert got.mass == pytest.approx(sum(known), abs=1e-9)
    assert got.probabilities == pytest.approx([p / sum(known) for p in known], abs=1e-9)


@KINDS
def test_options_that_merge_with_the_ending_are_read_from_the_most_likely_tokens(build: Build, kind: str) -> None:
    with serve_tokens(kind, merges=("=1",)) as server:
        got = dict(build(server.url, samples=1).answer(choices(24)))
    assert {answer.read_from for answer in got.values()} <= {"top_logprobs", "samples"}


@KINDS
def test_a_new_turn_is_read_from_the_most_likely_tokens(build: Build, kind: str) -> None:
    """It may begin with any form of an option, which depends on the chat template."""
    with serve_tokens(kind) as server:
        got = dict(build(server.url, samples=1, prefill="no").answer(choices(24)))
    assert {answer.read_from for answer in got.values()} <= {"top_logprobs", "samples"}
    assert "/tokenize" not in server.paths


@MODES
def test_a_server_that_describes_more_than_it_does_is_asked_for_the_most_likely_tokens(build: Build, mode: str) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        if server.paths[number] == "/tokenize":
            return 200, {}, json.dumps({"tokens": tokenize(body["prompt"])}).encode()
        return complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(behave) as server:
        server.openapi = describe("vllm")
        got = dict(build(server.url, mode=mode, concurrency=1).answer(choices(5)))
    assert [got[i].probabilities for i in range(5)] == [pytest.approx((0.75, 0.25))] * 5
    assert {answer.read_from for answer in got.values()} == {"top_logprobs"}
    assert ["logprob_token_ids" in body for body in server.bodies[3:]] == [True] + [False] * 5


@pytest.mark.parametrize("refused", ["/tokenize", "/v1/score", "/v1/completions"])
def test_a_refused_method_is_not_tried_again(build: Build, refused: str) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        path = server.paths[number]
        if path == refused and (path != "/v1/completions" or "logprob_token_ids" in body):
            return fail(400, "logprob_token_ids are not for this model")
        if path == "/tokenize":
            return 200, {}, json.dumps({"tokens": tokenize(body["prompt"])}).encode()
        return complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(behave) as server:
        server.openapi = describe("sglang" if refused == "/v1/score" else "vllm")
        got = dict(build(server.url, mode="completion", concurrency=1).answer(choices(5)))
    assert {answer.read_from for answer in got.values()} == {"top_logprobs"}
    asked = [path for path, body in zip(server.paths, server.bodies, strict=True) if path == refused]
    # Two options and the ending; once refused, and then each choice without the setting.
    assert len(asked) == {"/tokenize": 3, "/v1/completions": 1 + 5, "/v1/score": 1}[refused]
    assert {answer.prompt_tokens for answer in got.values()} == {10}


def test_a_server_that_fails_on_scores_is_asked_for_the_most_likely_tokens(build: Build) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        path = server.paths[number]
        if path == "/tokenize":
            return 200, {}, json.dumps({"tokens": tokenize(body["prompt"])}).encode()
        if path == "/v1/score":
            return fail(500, "list index out of range")
        return complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(behave) as server:
        server.openapi = describe("sglang")
        got = dict(build(server.url, mode="completion", concurrency=1, retries=1).answer(choices(3)))
    assert [got[i].read_from for i in range(3)] == ["top_logprobs"] * 3
    assert server.paths.count("/v1/score") == 2


def test_all_servers_must_offer_a_method_but_for_those_that_are_gone(build: Build) -> None:
    with serve_tokens("vllm") as one, serve_tokens("plain") as two:
        got = dict(build(one.url, two.url, samples=1).answer(choices(8)))
        assert "logprob_token_ids" not in {answer.read_from for answer in got.values()}
        with serve() as gone:
            pass
        got = dict(build(one.url, gone.url).answer(choices(8)))
        assert {answer.read_from for answer in got.values()} == {"logprob_token_ids"}


@pytest.mark.parametrize(
    "description", [None, [], {}, {"paths": []}, {"paths": {"/tokenize": {}, "/v1/score": {"post": {}}}}]
)
def test_a_description_that_cannot_be_read_offers_nothing(description: Any) -> None:
    assert read_methods(description, "/completions") == frozenset()
    assert read_methods(describe("vllm"), "/completions") == {"logprob_token_ids"}
    assert read_methods(describe("sglang"), "/chat/completions") == {"score"}
    without = describe("vllm")
    del without["paths"]["/tokenize"]
    assert read_methods(without, "/completions") == frozenset()


def test_which_options_can_be_read() -> None:
    assert plan_reads(["1", "2"], [7], [[7, 1], [7, 2]]) == (((1,), (2,)), {(): ("", (1, 2))})
    assert plan_reads(["1", "10"], [7], [[7, 1], [7, 1, 0]]) == (
        ((1,), (1, 0)),
        {(): ("", (1,)), (1,): ("1", (0,))},
    )
    assert plan_reads(["1", "2"], [7], [[8], [7, 2]]) is None  # `=1` is one token
    assert plan_reads(["1", "2"], [7], [[7], [7, 2]]) is None
    assert plan_reads(["1", "2"], [7], [[7, 0], [7, 0]]) is None  # both unknown
    assert plan_reads(["12", "13"], [7], [[7, 1, 2], [7, 1, 3]]) is None  # `1` alone is not an option
    assert plan_reads(["ab", "cd"], [], [[1, 2], [3, 4]]) == (((1, 2), (3, 4)), {(): ("", (1, 3))})


# Forms of log-probabilities, and numbers that are none


def give(body: dict[str, Any], pairs: list[tuple[str, Any]], form: str) -> Reply:
    """Answer with log-probabilities in the form of an endpoint, whichever is asked."""
    tops: Any = [{"token": token, "logprob": p} for token, p in pairs]
    logprobs = {"content": [{"top_logprobs": tops}]} if form == "chat" else {"top_logprobs": [dict(pairs)]}
    choice: dict[str, Any] = {"finish_reason": "length", "logprobs": logprobs}
    choice |= {"text": "1"} if "prompt" in body else {"message": {"content": "1"}}
    return 200, {}, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3}}).encode()


@MODES
@pytest.mark.parametrize("form", ["chat", "completion"])
def test_the_form_of_the_other_endpoint_is_read_too(build: Build, mode: str, form: str) -> None:
    pairs = [("1", math.log(0.6)), ("2", math.log(0.2))]
    with serve(lambda body, number: give(body, pairs, form)) as server:
        [(_, got)] = build(server.url, mode=mode).answer(choices(1))
    assert got.probabilities == pytest.approx((0.75, 0.25))
    assert got.mass == pytest.approx(0.8)


@pytest.mark.parametrize("mark", ["\u0120", "\u2581", "\u010a"])
def test_marks_of_vocabularies_are_white_space(build: Build, mark: str) -> None:
    pairs = [(f"{mark}1", math.log(0.5)), ("1", math.log(0.1)), (f"{mark}2", math.log(0.2))]
    with serve(lambda body, number: give(body, pairs, "chat")) as server:
        [(_, got)] = build(server.url).answer(choices(1))
    assert got.probabilities == pytest.approx((0.75, 0.25))
    assert got.mass == pytest.approx(0.8)


@MODES
@pytest.mark.parametrize("zero", [None, -math.inf])
def test_the_logarithm_of_0_counts_as_0(build: Build, mode: str, zero: float | None) -> None:
    pairs = [("1", math.log(0.6)), ("2", zero), ("<unk>", zero)]
    with serve(lambda body, number: give(body, pairs, mode)) as server:
        [(_, got)] = build(server.url, mode=mode).answer(choices(1))
    assert got.probabilities == (1.0, 0.0)
    assert got.mass == pytest.approx(0.6)


NO_NUMBERS = pytest.mark.parametrize("bad", [math.nan, math.inf, 0.7, 3, "-0.5", True, [-0.5]])


@NO_NUMBERS
@MODES
def test_a_number_that_is_no_log_probability_is_asked_for_again(build: Build, mode: str, bad: Any) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        first = bad if number == 0 else math.log(0.6)
        return give(body, [("1", first), ("2", math.log(0.2))], mode)

    with serve(behave) as server:
        [(_, got)] = build(server.url, mode=mode, retries=1).answer(choices(1))
    assert got.probabilities == pytest.approx((0.75, 0.25))
    assert len(server.bodies) == 2


@NO_NUMBERS
def test_a_comparison_with_such_a_number_has_no_label_and_is_not_cached(build: Build, bad: Any) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        first = bad if "question 1" in str(body["messages"]) else math.log(0.6)
        return give(body, [("1", first), ("2", math.log(0.2))], "chat")

    with serve(behave) as server:
        got = dict(build(server.url, retries=1).answer(choices(3)))
        assert f"no usable answer after 2 attempts: {server.url}/chat/completions" in got[1].refused
        assert f"the log-probability of '1' is {json.loads(json.dumps(bad))!r}" in got[1].refused
        assert got[1].probabilities == ()
        assert [got[i].probabilities for i in (0, 2)] == [pytest.approx((0.75, 0.25))] * 2
        server.behave = lambda body, number: give(body, [("1", -1.0), ("2", -1.0)], "chat")
        [again] = drive(choices(3)[1:2], build(server.url))
    assert again.probabilities == (0.5, 0.5)


def test_a_server_that_gives_no_numbers_at_all_ends_the_run(build: Build) -> None:
    with serve(lambda body, number: give(body, [("1", math.nan), ("2", math.nan)], "chat")) as server:
        with pytest.raises(ModelError, match=r"the log-probability of '1' is nan.*refuses a short question as well"):
            list(build(server.url, retries=1).answer(choices(20)))


@pytest.mark.parametrize("scores", [[0.5], [0.5, math.nan], [0.5, -0.1], [0.5, 1.5], [0.5, None], None])
def test_scores_that_are_no_probabilities_are_faults(build: Build, scores: Any) -> None:
    def behave(body: dict[str, Any], number: int) -> Reply:
        if server.paths[number] == "/tokenize":
            return 200, {}, json.dumps({"tokens": tokenize(body["prompt"])}).encode()
        if server.paths[number] == "/v1/score":
            return 200, {}, json.dumps({"scores": [scores]}).encode()
        return complete(body, "1", {"1": 0.6, "2": 0.2})

    with serve(behave) as server:
        server.openapi = describe("sglang")
        [(_, got)] = build(server.url, mode="completion", retries=1).answer(choices(1))
    assert (got.read_from, got.mass) == ("top_logprobs", pytest.approx(0.8))


# A real vLLM

VLLM = os.environ.get("RLAIF_TEST_VLLM", "")
"""Base URL, model name and model folder of a running vLLM server, separated by spaces."""


@pytest.mark.skipif(not VLLM, reason="RLAIF_TEST_VLLM is not set")
@MODES
def test_vllm_gives_the_probabilities_of_a_forward_pass(
    build: Build, mode: str, local: Callable[[str, str], Any]
) -> None:
    url, name, folder = VLLM.split()
    requests = [
        *choices(4),
        Choose(Question("Rate this summary: a man went home.", "SCORE:"), NUMBERS),
        Choose(Question("Rate this summary: a man went home.", "SCORE: "), NUMBERS),
    ]
    theirs = dict(build(url, model=name, mode=mode).answer(requests))
    ours = dict(local(folder, "yes" if mode == "chat" else "no").answer(requests))
    for i in range(len(requests)):
        assert theirs[i].read_from == "logprob_token_ids"
        assert theirs[i].probabilities == pytest.approx(ours[i].probabilities, abs=1e-4)
        assert theirs[i].mass == pytest.approx(ours[i].mass, abs=1e-4)
