"""The requests of the page: who may send them, what they get, and that hostile texts stay texts."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rlaif_framework.annotation.access import HEADERS, Access, SavedAccess
from rlaif_framework.annotation.answers import AnswerFile
from rlaif_framework.annotation.items import read_items
from rlaif_framework.annotation.server import MAX_BODY, Annotation, PageSettings, create_app
from rlaif_framework.annotation.serving import make_urls, open_socket
from rlaif_framework.errors import SpecError
from support.annotation import open_desk, pair_rows
from support.fake_plugins import write_rows

TOKEN = "a-token-for-the-tests"
PROGRESS_TOKEN = "another-one-for-progress"
HOSTILE = "</script><script>alert(1)</script>\x1b]0;owned\x07 \u202e {{ 7 * 7 }}"
ROOT = "http://127.0.0.1:8000"

Start = Callable[..., TestClient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Make a client of the application; keyword arguments are settings of the page."""
    files: list[AnswerFile] = []

    def start(
        rows: list[dict[str, Any]] | None = None, labels: list[dict[str, Any]] | None = None, **settings: Any
    ) -> TestClient:
        path = write_rows(tmp_path / "pairs.jsonl", rows or pair_rows(4))
        known = [write_rows(tmp_path / "labels.judge.jsonl", labels)] if labels else []
        pairs = read_items(path, known)
        files.append(AnswerFile.create(tmp_path / "answers.sqlite"))
        page = PageSettings(**{"instructions": "Choose **well**.", **settings})
        annotation = Annotation(open_desk(files[-1], pairs), pairs, {}, page)
        app = create_app(annotation, Access(TOKEN, progress_token=PROGRESS_TOKEN))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return TestClient(app, ROOT, headers=headers, raise_server_exceptions=False)

    yield start
    for file in files:
        file.__exit__()


def open_items(client: TestClient, annotator: str = "Ann") -> Any:
    return client.post("/api/items", json={"annotator": annotator}).json()


def read_progress(client: TestClient) -> Any:
    return client.get("/api/progress", headers={"Authorization": f"Bearer {PROGRESS_TOKEN}"}).json()


def send_answer(client: TestClient, number: int, choice: str = "first", **changes: Any) -> Any:
    body = {"annotator": "Ann", "assignment": number, "choice": choice, "seconds": 2.0, "request": "request-0001"}
    return client.post("/api/answers", json={**body, **changes})


def test_a_person_answers_undoes_and_answers_again(start: Start) -> None:
    client = start()
    state = open_items(client)
    first, second = state["items"]
    assert (state["answered"], state["left"], state["last"]) == (0, 4, None)
    state = send_answer(client, first["id"]).json()
    assert state["items"][0] == second  # which the page has shown already
    assert (state["answered"], state["last"]) == (1, first["id"])
    body = {"annotator": "Ann", "assignment": first["id"], "request": "request-0002"}
    assert client.post("/api/undo", json=body).json()["items"][0] == first
    state = send_answer(client, first["id"], "tie", request="request-0003").json()
    assert state["items"][0] == second
    summary = read_progress(client)["summary"]
    assert (summary["answers"], summary["annotators"][0]["ties"]) == (1, 1)


def test_what_is_shown_names_neither_models_nor_repetitions(start: Start) -> None:
    (shown, _) = open_items(start())["items"]
    assert sorted(shown) == ["id", "names_itself", "prompt", "responses"]
    assert "model" not in json.dumps(shown)


def test_a_dialogue_is_shown_as_turns(start: Start) -> None:
    prompt = "Human: Hello\n\nAssistant: Hi\n\nHuman: How are you?\n\nAssistant:"
    (shown,) = open_items(start([{"prompt": prompt, "responses": ["Well.", "As an AI, I am well."]}]))["items"]
    assert shown["prompt"] == [["Human", "Hello"], ["Assistant", "Hi"], ["Human", "How are you?"]]
    assert sorted(shown["names_itself"]) == [False, True]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer another-token-here"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8000"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1:8000"}, 403),
        ({"Origin": ROOT}, 200),
        ({"Host": "localhost:9000"}, 200),
        ({"Host": "[::1]:9000", "Origin": "http://[::1]:9000"}, 200),
    ],
)
def test_requests_from_elsewhere_are_refused(headers: dict[str, str], status: int, start: Start) -> None:
    client = start()
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = client.post("/api/items", json={"annotator": "Ann"}, headers=encoded)
    assert response.status_code == status
    assert ("items" in response.json()) == (status == 200)


@pytest.mark.parametrize("path", ["/api/items", "/api/answers", "/api/undo", "/api/progress", "/api/differences/1"])
def test_all_data_need_the_token(path: str, start: Start) -> None:
    client = start()
    open_items(client)
    for method in ("GET", "POST"):
        assert client.request(method, path, headers={"Authorization": ""}).status_code == 401


def test_annotators_cannot_open_the_progress_which_names_the_models(start: Start) -> None:
    client = start()
    state = send_answer(client, open_items(client)["items"][0]["id"]).json()
    assert sorted(state) == ["answered", "items", "judge", "last", "left", "name"]
    assert client.get("/api/progress").status_code == 401
    assert "model_a" not in client.get("/").text + client.get("/page.js").text
    assert "progress" not in client.get("/").text
    assert read_progress(client)["summary"]["draws"]["random"]["matchups"][0]["first"] == "A"
    owner = {"Authorization": f"Bearer {PROGRESS_TOKEN}"}
    assert client.post("/api/items", json={"annotator": "Ann"}, headers=owner).status_code == 401


@pytest.mark.parametrize("path", ["/", "/progress", "/page.js", "/progress.js", "/page.css", "/nothing", "/api/items"])
def test_all_responses_have_the_headers_for_the_browser(path: str, start: Start) -> None:
    response = start().get(path)
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/progress"])
def test_the_pages_run_and_load_nothing_but_their_own_files(path: str, start: Start) -> None:
    settings = {"instructions": f"{HOSTILE} <img src=x> ![image](http://evil.example/x.png)", "name": HOSTILE[:40]}
    text = start(**settings).get(path).text
    assert re.findall(r"<script[^>]*>", text) == [f'<script src="{"page" if path == "/" else "progress"}.js" defer>']
    assert not re.findall(r"<(style|iframe|img|object|embed|base)\b|\son\w+=|\bstyle=|javascript:", text)
    assert all(link in ("page.css", "data:,") for link in re.findall(r'href="([^"]*)"', text)[:2])
    assert not re.findall(r'src="http', text)
    assert TOKEN not in text


@pytest.mark.parametrize("name", ["page.js", "progress.js"])
def test_the_scripts_never_set_html(name: str, start: Start) -> None:
    text = start().get(f"/{name}").text
    assert "textContent" in text
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http:"):
        assert way not in text


def test_hostile_texts_stay_as_they_are(start: Start) -> None:
    responses = [f"one {HOSTILE}", f"two {HOSTILE}"]
    client = start([{"prompt": f"prompt {HOSTILE}", "responses": responses}])
    response = client.post("/api/items", json={"annotator": "Ann"})
    assert response.headers["Content-Type"] == "application/json"
    (shown,) = response.json()["items"]
    assert shown["prompt"] == [["", f"prompt {HOSTILE}"]]
    assert sorted(shown["responses"]) == responses
    parts = client.get(f"/api/differences/{shown['id']}").json()
    assert ["".join(text for text, _ in side) for side in parts] == shown["responses"]


@pytest.mark.parametrize("name", ["", "  ", "a\x1bb", "a\u202eb", "x" * 61])
def test_names_are_short_and_printable(name: str, start: Start) -> None:
    assert start().post("/api/items", json={"annotator": name}).status_code == 422


def test_a_name_is_the_same_however_it_is_typed(start: Start) -> None:
    client = start()
    state = open_items(client, "Zo\u00eb  Q")
    assert state["name"] == "Zo\u00eb Q"
    assert open_items(client, " Zoe\u0308 Q ") == open_items(client, "ZO\u00cb q") == state


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "third"},
        {"seconds": -1},
        {"seconds": "2"},
        {"request": "short"},
        {"request": "'; DROP TABLE events"},
        {"strength": 4},
        {"more": 1},
        {"assignment": "1"},
    ],
    ids=str,
)
def test_answers_of_another_form_are_refused(changes: dict[str, Any], start: Start) -> None:
    client = start()
    (shown, _) = open_items(client)["items"]
    response = send_answer(client, shown["id"], **{"choice": "first", **changes})
    assert response.status_code == 422
    assert next(iter(changes)) in response.json()["error"]
    assert open_items(client)["answered"] == 0


def test_large_and_unreadable_requests_are_refused(start: Start) -> None:
    client = start()
    assert client.post("/api/items", content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client.post("/api/items", content=b"{").status_code == 422
    assert client.post("/api/items", content=b"\xff").status_code == 422
    assert client.post("/api/items", content=b"[" * 5000).status_code == 422
    assert client.get("/api/differences/99").status_code == 409


def test_an_answer_to_what_somebody_else_was_given_is_refused(start: Start) -> None:
    client = start()
    (shown, _) = open_items(client)["items"]
    response = send_answer(client, shown["id"], annotator="Bob")
    assert (response.status_code, response.json()) == (409, {"error": "Bob was not given this pair"})


def test_strength_is_asked_for_preferences_only(start: Start) -> None:
    client = start(strength=True)
    first, second = open_items(client)["items"]
    assert send_answer(client, first["id"]).status_code == 409
    assert send_answer(client, first["id"], strength=2).status_code == 200
    assert send_answer(client, second["id"], "tie", strength=2, request="request-0002").status_code == 409
    assert send_answer(client, second["id"], "tie", request="request-0002").status_code == 200


def test_answers_before_the_minimum_time_are_refused(start: Start) -> None:
    client = start(min_seconds=3.0)
    (shown, _) = open_items(client)["items"]
    assert "at least 3 seconds" in send_answer(client, shown["id"]).json()["error"]
    assert send_answer(client, shown["id"], seconds=3.0).status_code == 200


def test_the_judges_opinion_is_hidden_until_the_answer_which_is_then_final(start: Start) -> None:
    labels = [{**row, "probabilities": [0.9, 0.1]} for row in pair_rows(4)]
    client = start(labels=labels, show_judge="judge")
    state = open_items(client)
    assert state["judge"] is None
    shown = state["items"][0]
    number = 1 + shown["responses"].index(
        next(row["responses"][0] for row in pair_rows(4) if row["responses"][0] in shown["responses"])
    )
    state = send_answer(client, shown["id"]).json()
    assert state["judge"] == f"Previous pair: you chose response 1; judge prefers response {number}, with 90 %"
    assert state["last"] is None
    body = {"annotator": "Ann", "assignment": shown["id"], "request": "request-0002"}
    assert client.post("/api/undo", json=body).status_code == 409


def test_an_answer_that_cannot_be_written_is_an_error_that_the_page_tries_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    (shown, _) = open_items(client)["items"]

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(AnswerFile, "record", fail)
        response = send_answer(client, shown["id"])
    assert (response.status_code, response.json()["error"]) == (
        503,
        "the server cannot write the file of answers: database or disk is full",
    )
    assert send_answer(client, shown["id"]).json()["answered"] == 1


def test_progress_is_measured_again_after_each_answer(start: Start) -> None:
    client = start()
    for number in range(4):
        assert read_progress(client)["summary"]["labelled"] == number
        send_answer(client, open_items(client)["items"][0]["id"], request=f"request-000{number}")
    found = read_progress(client)
    assert found["lines"][0] == "4 of 4 pairs labelled; 4 answers"
    (matchup,) = found["summary"]["draws"]["random"]["matchups"]
    assert (matchup["first"], matchup["second"], matchup["rate"]["count"]) == ("A", "B", 4)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])
def test_other_addresses_need_a_token_of_ones_own(host: str) -> None:
    with pytest.raises(SpecError, match=f"--host {host}: .* needs --token"):
        Access.create(host, None)
    with pytest.raises(SpecError, match="at least 16 characters"):
        Access.create(host, "short")
    assert Access.create(host, TOKEN).token == TOKEN


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", socket.gethostname())]
)
def test_the_url_names_a_host_that_requests_may_have(host: str, shown: str) -> None:
    access = Access(TOKEN, host)
    with open_socket(host, 0) as listening:
        port = listening.getsockname()[1]
        assert make_urls(listening, access) == (
            f"http://{shown}:{port}/#token={TOKEN}",
            f"http://{shown}:{port}/progress#token={access.progress_token}",
        )
        assert access.allows_host(f"{shown}:{port}")
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # or each response would wait for 40 ms
        with pytest.raises(SpecError, match=f"cannot listen on {host}, port {port}: .*choose another --host or --port"):
            open_socket(host, port)


def test_tokens_are_random_on_loopback() -> None:
    assert Access.create("127.0.0.1", None).token != Access.create("localhost", None).token
    assert len(Access.create("::1", None).token) > 40
    access = Access.create("127.0.0.1", None)
    assert access.progress_token != access.token


def test_the_next_start_has_the_same_tokens_which_only_their_owner_can_read(tmp_path: Path) -> None:
    answers = tmp_path / "answers.sqlite"
    assert SavedAccess.read(answers) is None
    saved = SavedAccess(token=TOKEN, progress_token=PROGRESS_TOKEN, port=8000)
    saved.write(answers)
    (file,) = tmp_path.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (".answers.sqlite.access", 0o600)
    assert SavedAccess.read(answers) == saved
    assert Access.create("127.0.0.1", None, saved) == Access(TOKEN, progress_token=PROGRESS_TOKEN)
    chosen = "chosen-by-the-user"
    assert Access.create("127.0.0.1", chosen, saved) == Access(chosen, progress_token=PROGRESS_TOKEN)
    with pytest.raises(SpecError, match="needs --token"):
        Access.create("0.0.0.0", None, saved)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "short", "progress_token": "short", "port": 1}'])
def test_a_damaged_file_of_tokens_is_replaced(content: str, tmp_path: Path) -> None:
    answers = tmp_path / "answers.sqlite"
    SavedAccess.place(answers).write_text(content)
    assert SavedAccess.read(answers) is None


@pytest.mark.parametrize(
    ("host", "header", "allowed"),
    [
        ("0.0.0.0", "192.168.1.5:80", True),
        ("0.0.0.0", "evil.example:80", False),
        ("annotate.example", "Annotate.example:80", True),
        ("annotate.example", "evil.example", False),
        ("127.0.0.1", "192.168.1.5:80", False),
        ("127.0.0.1", "[::1", False),
    ],
)
def test_names_of_strangers_that_resolve_to_this_machine_are_refused(host: str, header: str, allowed: bool) -> None:
    assert Access(TOKEN, host).allows_host(header) is allowed
