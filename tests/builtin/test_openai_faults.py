"""Whatever a server replies, a request has a clear outcome, and the labels are right once the server is well again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Answer, ModelError
from support.fake_plugins import write_rows
from support.faulty_server import FAULTS, Fault, answer, give, healthy
from support.remote import KEY, Build, choices, drive
from support.server import Behave, Reply, Server, prompt, serve

pytestmark = pytest.mark.usefixtures("alone")
ENDING = [name for name, fault in FAULTS.items() if fault.ends]
ALL = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
Label = Callable[[Server], tuple[int, str]]


@pytest.fixture
def label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rlaif: Callable[..., tuple[int, str, str]]) -> Label:
    """Run `rlaif label` over four pairs; gives its exit status and all that it printed."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    write_pairs(*(f"Post {i}" for i in range(4)))

    def run(server: Server) -> tuple[int, str]:
        backend = {"kind": "openai", "model": "made", "base_urls": server.url, "retries": 1, "samples": 2}
        Path("judge.json").write_text(json.dumps({"kind": "llm", "backend": backend}))
        argv = ("label", "pairs.jsonl", "--labeler", "judge.json", "--out", "labels.jsonl")
        code, out, err = rlaif(*argv, "--report", "report.html", "--overwrite")
        return code, out + err

    return run


def write_pairs(*posts: str) -> None:
    write_rows(Path("pairs.jsonl"), [{"prompt": post, "responses": ["good one", "bad one"]} for post in posts])


def read_labels() -> dict[str, list[float] | None]:
    rows = [json.loads(line) for line in Path("labels.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["prompt"]: row["probabilities"] and [round(p, 2) for p in row["probabilities"]] for row in rows}


def check_key_is_nowhere(folder: Path, printed: str) -> None:
    assert KEY not in printed
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS.values() if fault.ends], ids=ENDING)
def test_a_fault_that_ends_the_command_says_so_and_the_next_one_completes(
    label: Label, tmp_path: Path, fault: Fault
) -> None:
    with serve(lambda body, number: fault.reply(body) if "Post 2" in prompt(body) else healthy(body)) as server:
        code, printed = label(server)
        assert code == 2
        assert printed.strip().splitlines()[-1].startswith("rlaif: backend 'openai': ")
        assert "Traceback" not in printed
        check_key_is_nowhere(tmp_path, printed)
        server.behave = healthy
        code, printed = label(server)
    assert code == 0, printed
    assert read_labels() == {f"Post {i}": [0.8, 0.2] for i in range(4)}


def test_any_other_fault_is_the_outcome_of_its_comparison(label: Label, tmp_path: Path) -> None:
    """One command meets all of them, each in another comparison."""
    faults = {f"Post <{name}>": fault for name, fault in FAULTS.items() if not fault.ends}
    write_pairs(*faults)

    def behave(body: dict[str, Any], number: int) -> Reply | bytes | None:
        found = re.search("Post <.*>", prompt(body))
        return faults[found[0]].reply(body) if found else healthy(body)

    with serve(behave) as server:
        code, printed = label(server)
        assert code == 0, printed
        labels = read_labels()
        wrong = [name for name, fault in faults.items() if (labels[name] is None) == (fault.fate == "answered")]
        assert not wrong
        assert not [name for name, label in labels.items() if label is not None and not 0.6 < label[0] <= 1]
        assert f"has no label for {sum(x is None for x in labels.values())} comparisons because the backend" in printed
        check_key_is_nowhere(tmp_path, printed)
        server.behave = healthy
        Path("labels.jsonl").unlink()
        code, printed = label(server)
    assert code == 0, printed
    # What was not answered has not been cached.
    asked_again = {name: label for name, label in read_labels().items() if faults[name].fate != "answered"}
    assert asked_again == {name: [0.8, 0.2] for name in asked_again}


@ALL
def test_a_fault_that_passes_leaves_no_trace(build: Build, fault: Fault) -> None:
    with serve(lambda body, number: fault.reply(body) if number == 0 else healthy(body)) as server:
        backend = build(server.url, retries=1, concurrency=1, samples=2)
        if fault.fate == "setup":
            with pytest.raises(ModelError):
                drive(choices(2), backend)
        answers = drive(choices(2), backend)
        again = drive(choices(2), build(server.url, samples=2))
    labels = [answer.probabilities for answer in answers]
    right = [pytest.approx((0.8, 0.2), abs=0.2)] * 2
    # A refusal is not repeated until the comparison is labelled again.
    assert labels == (right[1:] if fault.fate == "refused" and len(labels) == 1 else right)
    assert [answer.probabilities for answer in again] == right


@ALL
def test_a_server_that_always_has_the_fault_ends_the_run_or_answers(build: Build, fault: Fault) -> None:
    with serve(lambda body, number: fault.reply(body)) as server:
        backend = build(server.url, retries=1, concurrency=2, samples=2)
        if fault.fate == "answered":
            assert len(drive(choices(4), backend)) == 4
        else:
            with pytest.raises(ModelError, match="backend 'openai'"):
                drive(choices(4), backend)
        server.behave = healthy
        answers = drive(choices(4), build(server.url, retries=1, samples=2))
    assert [answer.probabilities for answer in answers] == [pytest.approx((0.8, 0.2), abs=0.2)] * 4


def test_there_are_many_kinds_of_faults() -> None:
    assert len(FAULTS) >= 150
    assert len([fault for fault in FAULTS.values() if fault.fate != "answered"]) >= 100


# Single kinds


def ask_one(build: Build, behave: Behave, **settings: Any) -> Answer:
    with serve(behave) as server:
        [(_, got)] = build(server.url, retries=1, **settings).answer(choices(1))
    return got


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": 1e30}, {"prompt_tokens": -1}, {"prompt_tokens": "5"}])
def test_usage_that_is_none_is_estimated(build: Build, usage: Any) -> None:
    got = ask_one(build, lambda body, number: give(answer(body, usage=usage)))
    assert got.prompt_tokens == 3 + 5  # "question 0" and "Preferred Summary=", at four characters a token
    assert got.generated_tokens == 3  # "Verdict: 1"


def test_a_body_beyond_64_mib_is_not_read_to_its_end(build: Build) -> None:
    sizes = []

    def endless(body: dict[str, Any], number: int) -> Reply | bytes:
        if number:
            return healthy(body)
        sizes.append(2**26 + 2**20)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n" + b" " * sizes[0]

    got = ask_one(build, endless)
    assert got.probabilities == pytest.approx((0.8, 0.2))
    with serve(lambda body, number: FAULTS["gzip bomb"].reply(body)) as server:
        with pytest.raises(ModelError, match="its body has more than 64 MiB"):
            list(build(server.url, retries=0).answer(choices(1)))


def test_the_key_does_not_follow_a_redirect(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve() as other:
        elsewhere = give(b"", 307, Location=f"{other.url}/chat/completions")
        with serve(lambda body, number: elsewhere) as server:
            with pytest.raises(ModelError, match=rf"answered 307, a redirect to {other.url}.*are not followed"):
                list(build(server.url, retries=0).answer(choices(1)))
    assert not other.bodies


@pytest.mark.parametrize("cut", [0, 1, 10])
@pytest.mark.parametrize("where", ["message", "text", "page"])
def test_a_cut_shows_no_part_of_the_key(build: Build, monkeypatch: pytest.MonkeyPatch, cut: int, where: str) -> None:
    """The key ends after the place where our message ends, or the server's own message ends within the key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown = "x" * (500 - len(KEY) + cut) + KEY[: len(KEY) - cut]
    reply = {
        "message": give({"error": {"message": shown}}, 401),
        "text": give({"choices": [{"text": shown, "logprobs": 5}]}),
        "page": give(b"<html>" + shown.encode(), 401),
    }[where]
    with serve(lambda body, number: reply) as server, pytest.raises(ModelError) as caught:
        list(build(server.url, retries=0).answer(choices(1)))
    assert not [i for i in range(len(KEY) - 11) if KEY[i : i + 12] in str(caught.value)]


def test_a_key_with_escaped_slashes_reaches_no_label(label: Label, tmp_path: Path) -> None:
    """As PHP writes JSON."""
    escaped = KEY.replace("-", "\\u002d")

    def echo(body: dict[str, Any], number: int) -> Reply:
        content = json.dumps(answer(body, message={"content": "KEY", "refusal": "the key is KEY"}))
        return give(content.replace("KEY", escaped).encode() if "Post 1" in prompt(body) else answer(body))

    with serve(echo) as server:
        code, printed = label(server)
    assert code == 0, printed
    assert "the key is ***" in Path("labels.jsonl").read_text(encoding="utf-8")
    check_key_is_nowhere(tmp_path, printed)


def test_control_characters_of_a_server_do_not_reach_the_terminal(label: Label) -> None:
    with serve(lambda body, number: FAULTS["control characters"].reply(body)) as server:
        code, printed = label(server)
    assert code == 2
    assert "answered 400: \ufffd[2J\ufffd]0;owned\ufffd \ufffd\ufffd no; it refuses a short question as well" in printed
