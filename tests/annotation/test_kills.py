"""A server that is killed at any moment loses no answer, and Ctrl-C ends it with the measurements."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from rlaif_framework.annotation.answers import AnswerFile
from rlaif_framework.annotation.items import read_items
from rlaif_framework.annotation.serving import open_socket
from support.annotation import Served, serve, write_pairs

ANSWERS_BEFORE_KILL = 12


def test_no_confirmed_answer_is_lost_when_the_server_is_killed_three_times(tmp_path: Path) -> None:
    pairs, out = write_pairs(tmp_path, 200), tmp_path / "answers.sqlite"
    confirmed: dict[int, str] = {}
    lock = threading.Lock()

    def annotate(served: Served, name: str, target: int) -> None:
        try:
            items = served.client.open(name)["items"]
            while True:
                number, choice = items[0]["id"], ("first", "second", "tie")[items[0]["id"] % 3]
                items = served.client.answer(name, number, choice, f"{name}-request-{number}")["items"]
                with lock:
                    confirmed[number] = choice
                    if len(confirmed) >= target:
                        served.process.kill()  # while the other person's answer is under way
        except httpx2.TransportError:
            pass

    for round_ in range(3):
        target = ANSWERS_BEFORE_KILL * (round_ + 1)
        with serve(pairs, "--out", out) as served, ThreadPoolExecutor() as pool:
            for person in [pool.submit(annotate, served, name, target) for name in ("Ann", "Bob")]:
                person.result()
            assert len(confirmed) >= target
            assert served.process.wait() == -9
        with AnswerFile.read(out) as file:
            kept = {answer.assignment.id: answer.choice for answer in file.read_answers()}
            assignments = file.read_assignments()
        assert confirmed.items() <= kept.items()  # an answer that was under way may be there as well
        assert len(kept) - len(confirmed) <= 2
        assert len({x.item for x in assignments}) == len(assignments)  # nobody was given another one's item
        confirmed |= kept
    assert all(answer in read_items(pairs).items for answer in {x.item for x in assignments})


def test_ctrl_c_prints_the_measurements_and_the_next_start_continues(tmp_path: Path) -> None:
    pairs, out = write_pairs(tmp_path, 5), tmp_path / "answers.sqlite"
    with serve(pairs, "--out", out, "--name", "Ann") as served:
        (shown, held) = served.client.open("Ann")["items"]
        served.client.answer("Ann", shown["id"], "tie", "request-0001")
        code, text, messages = served.interrupt()
    assert (code, messages) == (0, "")
    assert text.splitlines()[:2] == ["1 of 5 pairs labelled; 1 answer", "Ann: 1 pair, 1.5 s per answer, 1 tie"]
    assert [path.name for path in tmp_path.glob("answers*")] == ["answers.sqlite"]
    with serve(pairs, "--out", out, "--json") as served:
        assert served.client.open("Ann")["items"][0] == held
        code, text, _ = served.interrupt()
    assert (code, json.loads(text)["answers"]) == (0, 1)


def test_an_open_page_goes_on_after_a_kill_and_the_same_command(tmp_path: Path) -> None:
    pairs, out = write_pairs(tmp_path, 5), tmp_path / "answers.sqlite"
    with serve(pairs, "--out", out) as served:
        urls = served.url, served.progress_url
        page, (shown, _) = served.client, served.client.open("Ann")["items"]
        served.kill()
    with pytest.raises(httpx2.TransportError):
        page.answer("Ann", shown["id"], "tie", "request-0001")
    with serve(pairs, "--out", out) as served:
        assert (served.url, served.progress_url) == urls
        assert page.answer("Ann", shown["id"], "tie", "request-0001")["answered"] == 1
        served.kill()
    port = urlsplit(urls[0]).port
    assert port is not None
    with open_socket("127.0.0.1", port), serve(pairs, "--out", out, "--json") as served:
        assert served.url != urls[0]
        assert urlsplit(served.url).fragment == urlsplit(urls[0]).fragment
        assert served.notes == [
            f"warning: port {port} of the last start is taken, so pages that are open cannot go on; free it and start "
            "again, or open the new URL\n"
        ]


def test_two_servers_cannot_collect_answers_in_one_file(
    tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    pairs, out = write_pairs(tmp_path, 5), tmp_path / "answers.sqlite"
    with serve(pairs, "--out", out):
        code, _, message = rlaif("annotate", pairs, "--out", out)
    assert code == 2
    assert "collects answers in" in message
