"""Labelling by a real HTTP server that refuses some questions, or cannot take them as they are put."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_plugins.backends.openai.negotiation import SHORT_QUESTION
from support.fake_plugins import write_rows
from support.server import Behave, Reply, complete, fail, prompt, serve
from support.token_server import serve_tokens

KEY = "sk-made-for-a-test-0123456789"
Label = Callable[..., tuple[int, str, str]]
FILTERED = f"The prompt was filtered by our content policy ({KEY})"
ONE_BY_ONE = "kind: rate\n"
STRATEGIES = {
    "direct": "strategy: direct\n",
    "chain-of-thought": "strategy: {kind: chain-of-thought, max_new_tokens: 8}\n",
    "self-consistency": "strategy: {kind: self-consistency, samples: 3}\n",
    "free-form": "strategy: {kind: free-form, max_new_tokens: 8}\n",
    "rate": ONE_BY_ONE,
}


@pytest.fixture
def label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rlaif: Callable[..., tuple[int, str, str]]) -> Label:
    """Run `rlaif label` over `pairs.jsonl` in an empty folder; gives its exit status and what it printed."""
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)

    def run(url: str, settings: str = "", strategy: str = "", *options: str) -> tuple[int, str, str]:
        kind = "" if strategy.startswith("kind:") else "kind: llm\n"
        retries = "" if "retries" in settings else ", retries: 0"
        backend = f"backend: {{kind: openai, model: made, base_urls: {url}{retries}{settings}}}\n"
        Path("labeler.yaml").write_text(f"{kind}{strategy}{backend}")
        return rlaif("label", "pairs.jsonl", "--labeler", "labeler.yaml", "--out", "labels.jsonl", *options)

    return run


def make_pairs(count: int, post: Callable[[int], str] = "Post {}".format) -> None:
    rows = [{"id": f"c{i}", "prompt": post(i), "responses": [f"good {i}", f"bad {i}"]} for i in range(count)]
    write_rows(Path("pairs.jsonl"), rows)


def read_labels() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("labels.jsonl").read_text(encoding="utf-8").splitlines()]


def judge(body: dict[str, Any]) -> Reply:
    """Prefers the first, in whatever way it is asked."""
    known = {str(number): 0.05 for number in range(1, 11)}
    return complete(body, "Verdict: 1", {**known, "1": 0.5} if body.get("logprobs") else None)


# Refusals


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_refused_comparison_has_no_label_and_the_others_have_theirs(label: Label, strategy: str) -> None:
    make_pairs(6, lambda i: "a forbidden post" if i == 2 else f"Post {i}")

    def behave(body: dict[str, Any], number: int) -> Reply:
        return fail(400, FILTERED) if "forbidden" in prompt(body) else judge(body)

    with serve(behave) as server:
        code, out, err = label(server.url, "", strategy, "--report", "report.html")
        asked = len(server.bodies)
        assert code == 0, err
        assert label(server.url, "", strategy)[0] == 0
        assert len(server.bodies) == asked  # it is done, the refused one as well
    labels = read_labels()
    assert [row["id"] for row in labels if row["probabilities"] is None] == ["c2"]
    refused = labels[2]["evidence"]["refused"]
    assert "answered 400: The prompt was filtered by our content policy" in refused
    assert [row["evidence"]["refused"] for row in labels if row["id"] != "c2"] == [None] * 5
    assert "6 comparisons, 1 refused" in out
    assert f"has no label for 1 comparisons because the backend refused to answer; the first reason: {refused}" in out
    [found] = json.loads(Path("report.json").read_text())["labelers"].values()
    assert found["quality"]["refused"]["value"] == pytest.approx(1 / 6)
    assert found["quality"]["unparsed"]["value"] == 0
    assert KEY not in "".join(path.read_text(errors="replace") for path in Path.cwd().rglob("*") if path.is_file())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_before_any_answer_and_after_an_interruption_does_not_stop_the_job(label: Label, status: int) -> None:
    make_pairs(1, lambda i: "a forbidden post")

    def behave(body: dict[str, Any], number: int) -> Reply:
        return fail(status, "no") if "forbidden" in prompt(body) else judge(body)

    with serve(behave) as server:
        assert label(server.url)[0] == 0
        assert read_labels()[0]["evidence"]["refused"].endswith(f"answered {status}: no")
        Path("labels.jsonl").unlink()
        assert label(server.url)[0] == 0


def test_a_server_that_refuses_everything_stops_the_job_at_once(label: Label) -> None:
    make_pairs(200)
    with serve(lambda body, number: fail(400, "the model is not for chat")) as server:
        code, _, err = label(server.url, ", concurrency: 4")
    assert code == 2
    assert "answered 400: the model is not for chat; it refuses a short question as well: check the model" in err
    assert len(server.bodies) < 20


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_setup_stops_the_job_also_after_answers(label: Label, status: int) -> None:
    make_pairs(200)
    with serve(lambda body, number: judge(body) if number < 50 else fail(status, "not any more")) as server:
        code, _, err = label(server.url, ", concurrency: 4")
    assert code == 2
    assert "not any more" in err
    assert len(server.bodies) < 60


def test_a_server_that_stops_taking_requests_is_found_out_in_the_next_chunk(label: Label) -> None:
    make_pairs(400)
    with serve(lambda body, number: judge(body) if number < 100 else fail(400, "model unloaded")) as server:
        code, _, err = label(server.url, ", concurrency: 4")
    assert code == 2
    assert "model unloaded; it refuses a short question as well" in err
    assert len(server.bodies) < 150


# Length


def limited(tokens: int, message: str, count: Callable[[str], int]) -> Behave:
    """A server whose context has so many tokens, and that says so in these words."""

    def behave(body: dict[str, Any], number: int) -> Reply:
        text = "".join(m["content"] for m in body["messages"])
        size, new = count(text), int(body["max_tokens"])
        if size + new > tokens:
            return fail(400, message.format(limit=tokens, prompt=size, new=new, all=size + new))
        return judge(body)

    return behave


WORDINGS = {
    "vLLM": "This model's maximum context length is {limit} tokens. However, your request has {prompt} input tokens. "
    "Please reduce the length of the input messages.",
    "vLLM, before": "This model's maximum context length is {limit} tokens. However, you requested {all} tokens "
    "({prompt} in the messages, {new} in the completion).",
    "SGLang": "The input ({prompt} tokens) is longer than the model's context length ({limit} tokens).",
    "OpenAI": "This model's maximum context length is {limit} tokens. However, your messages resulted in {prompt} "
    "tokens.",
    "llama.cpp": "the request ({prompt} tokens) exceeds the available context size ({limit} tokens), try increasing it",
    "llama-cpp-python": "Requested tokens ({prompt}) exceed context window of {limit}",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= {limit}. Given: {prompt} `inputs` "
    "tokens and {new} `max_new_tokens`",
    "limit only": "maximum context length is {limit} tokens",
    "no numbers": "the prompt is too long",
}


@pytest.mark.parametrize("wording", WORDINGS.values(), ids=WORDINGS)
@pytest.mark.parametrize("strategy", ["direct", "chain-of-thought", "rate"])
def test_an_overlong_post_is_cut_and_asked_again(label: Label, wording: str, strategy: str) -> None:
    make_pairs(4, lambda i: "one two three.\n" * (600 if i == 1 else 5) + f"post {i}")
    with serve(limited(900, wording, lambda text: len(text) // 4)) as server:
        code, _, err = label(server.url, "", STRATEGIES[strategy])
    assert code == 0, err
    labels = read_labels()
    assert all(row["probabilities"] is not None for row in labels)
    assert [row["evidence"]["source_truncated"] for row in labels] == [False, True, False, False]
    asked = [text for text in server.prompts if text != SHORT_QUESTION]
    taken = [text for text in asked if len(text) // 4 < 900]
    assert max(map(len, taken)) > 900 * 4 / 2  # not cut by more than it must
    assert all(re.search(r"(good|bad) \d", text) for text in taken)
    overlong = len(asked) - len(taken)
    assert overlong <= (2 if "{prompt}" in wording else 8)  # a server's own count is exact


@pytest.mark.parametrize("message", ["Bad Request", "the prompt is too long"])
def test_the_length_that_a_server_lists_is_used_where_its_refusal_has_none(label: Label, message: str) -> None:
    make_pairs(4, lambda i: "one two three.\n" * (4000 if i == 1 else 5) + f"post {i}")
    with serve(limited(900, message, lambda text: len(text) // 5)) as server:
        server.models = [{"id": "another", "max_model_len": 50}, {"id": "made", "max_model_len": 900}]
        assert label(server.url)[0] == 0
        assert server.listed == 1
    labels = read_labels()
    assert all(row["probabilities"] is not None for row in labels)
    assert [row["evidence"]["source_truncated"] for row in labels] == [False, True, False, False]


@pytest.mark.parametrize("text", ["漢字の文章", "😀🚀🎉🙂", "здравствуйте, "])
def test_other_scripts_are_cut_by_what_the_server_counts(label: Label, text: str) -> None:
    make_pairs(2, lambda i: text * (900 if i else 3))

    def count(text: str) -> int:  # as a vocabulary made for English
        return sum(1 if ord(c) < 128 else 4 for c in text) // 2

    with serve(limited(1500, WORDINGS["vLLM"], count)) as server:
        code, _, err = label(server.url, ", context_tokens: 1500")
    assert code == 0, err
    assert [row["evidence"]["source_truncated"] for row in read_labels()] == [False, True]
    assert all(row["probabilities"] is not None for row in read_labels())
    assert len(server.bodies) <= 8


def test_a_response_too_long_for_the_context_is_an_outcome_of_its_comparison(label: Label) -> None:
    rows = [{"prompt": f"Post {i}", "responses": ["short", "long " * (2000 if i == 1 else 1)]} for i in range(3)]
    write_rows(Path("pairs.jsonl"), rows)
    with serve(limited(900, WORDINGS["vLLM"], lambda text: len(text) // 4)) as server:
        assert label(server.url)[0] == 0
        known = read_labels()
        Path("labels.jsonl").unlink()
        assert label(server.url, ", context_tokens: 900")[0] == 0
    foreseen = read_labels()
    assert [row["probabilities"] is None for row in known] == [False, True, False]
    assert [row["probabilities"] is None for row in foreseen] == [False, True, False]
    assert "maximum context length is 900" in known[1]["evidence"]["refused"]
    assert "a response does not fit into the model's context" in foreseen[1]["evidence"]["refused"]


# Chunks


def test_a_chunk_holds_enough_comparisons_for_the_concurrency(label: Label) -> None:
    make_pairs(150)
    crowd = threading.Event()

    def wait_for_the_crowd(body: dict[str, Any], number: int) -> Reply:
        if number >= 95:
            crowd.set()
        assert crowd.wait(timeout=600)
        return judge(body)

    with serve(wait_for_the_crowd) as server:
        code, _, err = label(server.url, ", concurrency: 120", "orders: first\n")
    assert code == 0, err
    assert server.most_in_flight > 90
    assert len(server.bodies) == 150


def test_an_interrupted_job_goes_on_at_its_chunk_whatever_its_size(label: Label) -> None:
    make_pairs(150)
    with serve(lambda body, number: judge(body) if number < 130 else fail(401, "gone")) as server:
        assert label(server.url, ", concurrency: 100", "orders: first\n")[0] == 2
        assert json.loads(Path("labels.meta.json").read_text())["counts"]["comparisons"] == 100
        server.behave = lambda body, number: judge(body)
        before = len(server.bodies)
        assert label(server.url, ", concurrency: 100", "orders: first\n")[0] == 0
    assert [row["id"] for row in read_labels()] == [f"c{i}" for i in range(150)]
    assert len(server.bodies) - before <= 50


# What is not sent, and what is sampled


def test_settings_that_a_server_refuses_are_named_in_the_evidence(label: Label) -> None:
    make_pairs(2)

    def behave(body: dict[str, Any], number: int) -> Reply:
        if body.get("temperature") == 0:
            return fail(400, "Unsupported value: 'temperature' does not support 0 with this model.")
        if "seed" in body:
            return fail(400, "Unknown parameter: 'seed'")
        return judge(body)

    with serve(behave) as server:
        code, _, err = label(server.url, ", concurrency: 1", STRATEGIES["free-form"])
        assert code == 0, err
        assert ["temperature" in body for body in server.bodies] == [True, *[False] * (len(server.bodies) - 1)]
        assert len(server.bodies) == 2 + 4
    assert [row["evidence"]["dropped"] for row in read_labels()] == [["seed", "temperature"]] * 2
    with serve(lambda body, number: fail(400, "no top_k") if "top_k" in body else judge(body)) as server:
        Path("labels.jsonl").unlink()
        assert label(server.url, ", samples: 7", STRATEGIES["self-consistency"])[0] == 0  # another identity: no cache
    assert [row["evidence"]["dropped"] for row in read_labels()] == [["top_k"]] * 2


@pytest.mark.parametrize(("kind", "source"), [("vllm", "logprob_token_ids"), ("sglang", "score")])
def test_the_evidence_says_where_probabilities_are_from(label: Label, kind: str, source: str) -> None:
    make_pairs(3)
    with serve_tokens(kind) as server:
        assert label(server.url)[0] == 0
    assert [row["evidence"]["read_from"] for row in read_labels()] == [[source]] * 3
    Path("labels.jsonl").unlink()
    with serve(lambda body, number: judge(body)) as server:
        assert label(server.url, ", samples: 9")[0] == 0  # another identity: no cache
    assert [row["evidence"]["read_from"] for row in read_labels()] == [["top_logprobs"]] * 3


def test_a_sampled_rating_says_so(label: Label) -> None:
    make_pairs(4)
    with serve(lambda body, number: complete(body, "7")) as server:
        assert label(server.url, ", samples: 5", ONE_BY_ONE, "--report", "report.html")[0] == 0
    assert [[b["sampled"] for b in row["evidence"]["orders"]] for row in read_labels()] == [[5, 5]] * 4
    assert json.loads(Path("report.json").read_text())["labelers"]["rate"]["quality"]["sampled"]["value"] == 1
    Path("labels.jsonl").unlink()
    with serve(lambda body, number: judge(body)) as server:
        assert label(server.url, ", samples: 6", ONE_BY_ONE, "--report", "report.html")[0] == 0
    assert json.loads(Path("report.json").read_text())["labelers"]["rate"]["quality"]["sampled"]["value"] == 0


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("drops", "says"), [(1, "sent 1 request without"), (3, "sent 3 requests without")])
def test_requests_that_were_sent_without_an_answer_are_stated_and_change_no_label(
    label: Label, drops: int, says: str
) -> None:
    make_pairs(4)
    with serve(lambda body, number: judge(body)) as server:
        assert label(server.url)[0] == 0
    known = Path("labels.jsonl").read_bytes()
    Path("labels.jsonl").unlink()
    with serve(lambda body, number: None if number < drops else judge(body)) as server:
        code, out, err = label(server.url, ", samples: 9, retries: 4, concurrency: 1", "", "--report", "report.html")
    assert code == 0, err
    warning = f"'llm' {says} an answer, because a connection or the command was interrupted; the provider may have"
    assert warning in out
    assert [text for text in json.loads(Path("report.json").read_text())["warnings"] if text.startswith(warning)]
    assert Path("labels.jsonl").read_bytes() == known
