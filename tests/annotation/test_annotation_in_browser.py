"""The annotation page in a real browser: two people at once, the keys, and accessibility."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif_framework.annotation.answers import AnswerFile
from support.annotation import serve, write_pairs
from support.browser import Browser
from support.browser import browser as browser

SHOWN = "!document.querySelector('#pair').hidden"
RESPONSES = "[1, 2].map((side) => document.querySelector(`#response-${side}`).textContent)"
COUNTS = "document.querySelector('#counts').textContent"
SAVED = "queue.length === 0"


@pytest.fixture
def other(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The browser of a second person."""
    second = Browser(tmp_path / "profile")
    yield second
    second.close()


def sign_in(browser: Browser, url: str, name: str) -> None:
    browser.open(url)
    browser.wait("document.activeElement === document.querySelector('#name')")
    for letter in name:
        browser.press(letter)
    browser.press("Enter")
    browser.wait(SHOWN)


def answer(browser: Browser, key: str, answered: int) -> None:
    """Press the key of an answer, and wait until the server has it."""
    browser.press(key)
    browser.wait(f"{SAVED} && {COUNTS}.includes(': {answered} answered')")


def test_two_people_at_once_get_different_pairs_and_lose_no_answer(
    browser: Browser, other: Browser, tmp_path: Path
) -> None:
    pairs, out = write_pairs(tmp_path, 10), tmp_path / "answers.sqlite"
    people = {"Ann": browser, "Bob": other}
    with serve(pairs, "--out", out, "--repeat", 0) as served:
        for name, page in people.items():
            sign_in(page, served.url, name)
        seen: list[tuple[str, ...]] = []
        for number in range(1, 6):
            for page in people.values():
                seen.append(tuple(sorted(page.evaluate(RESPONSES))))
                answer(page, "120bs"[number - 1], number)
        for page in people.values():
            page.wait("!document.querySelector('#done').hidden")
            assert page.evaluate("document.activeElement.id") == "done-title"
            assert page.complaints() == []
    assert len(set(seen)) == len(seen) == 10
    with AnswerFile.read(out) as file:
        given = [(x.assignment.annotator, x.choice) for x in file.read_answers()]
    choices = ["first", "second", "tie", "bad", "skip"]
    assert sorted(given) == sorted((name, choice) for name in people for choice in choices)


def test_an_answer_is_taken_back_and_the_differences_are_marked_by_keys(browser: Browser, tmp_path: Path) -> None:
    with serve(write_pairs(tmp_path, 3), "--out", tmp_path / "a.sqlite", "--name", "Ann") as served:
        browser.open(served.url)
        browser.wait(SHOWN)
        first = browser.evaluate(RESPONSES)
        answer(browser, "1", 1)
        assert browser.evaluate(RESPONSES) != first
        answer(browser, "u", 0)
        browser.wait(f"{RESPONSES}.join() === {first}.join()")
        browser.press("d")
        browser.wait("document.querySelectorAll('#pair mark').length > 0")
        browser.press("?")
        browser.wait("document.querySelector('#help').open")
        browser.press("1")  # not an answer while the help is open
        assert ": 0 answered" in browser.evaluate(COUNTS)
        assert browser.complaints() == []


def test_an_open_page_sends_what_it_holds_once_the_same_command_runs_again(browser: Browser, tmp_path: Path) -> None:
    command = (write_pairs(tmp_path, 4), "--out", tmp_path / "a.sqlite", "--name", "Ann")
    with serve(*command) as served:
        browser.open(served.url)
        browser.wait(SHOWN)
        served.kill()
    for answered in (1, 2):
        browser.press("1")
        browser.wait("document.querySelector('#notice').textContent.includes('not saved yet')")
        with serve(*command) as served:
            browser.wait(f"{SAVED} && {COUNTS} === 'Ann: {answered} answered, {4 - answered} left for you'")
            assert browser.evaluate("document.querySelector('#notice').hidden")
            served.kill()
    with AnswerFile.read(tmp_path / "a.sqlite") as file:
        assert [x.choice for x in file.read_answers()] == ["first", "first"]


def test_the_page_says_why_an_answer_cannot_be_written_and_sends_it_again(browser: Browser, tmp_path: Path) -> None:
    refuse = 'Promise.resolve(new Response(\'{"error": "the disk is full"}\', {status: 503}))'
    with serve(write_pairs(tmp_path, 3), "--out", tmp_path / "a.sqlite", "--name", "Ann") as served:
        browser.open(served.url)
        browser.wait(SHOWN)
        browser.evaluate(f"globalThis.real = fetch; globalThis.fetch = () => {refuse}; undefined")
        browser.press("1")
        browser.wait("!document.querySelector('#notice').hidden")
        notice = browser.evaluate("document.querySelector('#notice').textContent")
        assert notice == "Your last answer is not saved yet: the disk is full. Trying again ..."
        browser.evaluate("globalThis.fetch = real; undefined")
        browser.wait(f"{SAVED} && {COUNTS} === 'Ann: 1 answered, 2 left for you'")
        assert browser.evaluate("document.querySelector('#notice').hidden")


def test_an_answer_is_taken_back_while_it_is_under_way(browser: Browser, tmp_path: Path) -> None:
    hold = "new Promise((done) => (globalThis.release = () => done(real(...request))))"
    with serve(write_pairs(tmp_path, 3), "--out", tmp_path / "a.sqlite", "--name", "Ann") as served:
        browser.open(served.url)
        browser.wait(SHOWN)
        first = browser.evaluate(RESPONSES)
        browser.evaluate(f"globalThis.real = fetch; globalThis.fetch = (...request) => {hold}")
        browser.press("1")
        browser.press("u")
        browser.press("2")  # the pair that comes back is not there yet
        assert browser.evaluate("queue.map((entry) => entry.path)") == ["api/answers", "api/undo"]
        browser.evaluate("globalThis.fetch = real; release()")
        browser.wait(f"{SAVED} && {COUNTS} === 'Ann: 0 answered, 3 left for you'")
        assert browser.evaluate(RESPONSES) == first


def test_a_second_person_gives_another_name_and_each_sees_the_instructions_first(
    browser: Browser, tmp_path: Path
) -> None:
    unfolded = "document.querySelector('#instructions').open"
    with serve(write_pairs(tmp_path, 6), "--out", tmp_path / "a.sqlite", "--name", "Ann") as served:
        browser.open(served.url)
        browser.wait(f"{SHOWN} && {unfolded}")
        answer(browser, "1", 1)
        assert not browser.evaluate(unfolded)
        browser.click("#rename")
        browser.wait("document.activeElement === document.querySelector('#name')")
        for key in ("B", "o", "b", "Enter"):
            browser.press(key)
        browser.wait(f"{SHOWN} && {unfolded} && {COUNTS} === 'Bob: 0 answered, 3 left for you'")
        answer(browser, "2", 1)
        browser.open(served.url)
        browser.wait(f"{SHOWN} && {COUNTS}.startsWith('Bob: 1 answered')")
        assert browser.complaints() == []
    with AnswerFile.read(tmp_path / "a.sqlite") as file:
        given = [(x.assignment.annotator, x.choice) for x in file.read_answers()]
    assert given == [("Ann", "first"), ("Bob", "second")]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_in_all_its_states(browser: Browser, width: int, scheme: str, tmp_path: Path) -> None:
    with serve(write_pairs(tmp_path, 3), "--out", tmp_path / "a.sqlite", "--strength") as served:
        browser.open(served.url, width, scheme)
        browser.wait("!document.querySelector('#who').hidden || document.querySelector('#pair').hidden === false")
        browser.evaluate("localStorage.clear()")
        browser.open(served.url, width, scheme)
        browser.wait("!document.querySelector('#who').hidden")
        assert browser.violations() == []
        browser.press("A")
        browser.press("Enter")
        browser.wait(SHOWN)
        assert browser.violations() == []
        browser.press("d")
        browser.wait("document.querySelectorAll('#pair mark').length > 0")
        browser.press("1")
        browser.wait("!document.querySelector('#strengths').hidden")
        assert browser.violations() == []
        browser.press("2")
        browser.wait(SAVED)
        browser.press("?")
        browser.wait("document.querySelector('#help').open")
        assert browser.violations() == []
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.open(served.progress_url, width, scheme)
        browser.wait("document.querySelectorAll('#tables table').length > 0")
        assert browser.violations() == []


def test_no_pair_is_answered_that_a_person_did_not_mean(browser: Browser, tmp_path: Path) -> None:
    click = "document.querySelector('[data-choice=first]').dispatchEvent(new MouseEvent('click', {{detail: {}}}))"
    with serve(write_pairs(tmp_path, 4), "--out", tmp_path / "a.sqlite", "--name", "Ann") as served:
        browser.open(served.url.partition("#")[0])
        browser.wait("document.querySelector('#notice').textContent.includes('it has the token')")
        browser.evaluate(f"location.hash = {json.dumps(served.url.partition('#')[2])}")  # pasted into the same tab
        browser.wait(SHOWN)
        first = browser.evaluate(RESPONSES)
        browser.evaluate(f"{click.format(1)}; {click.format(2)}")  # a double click
        browser.wait(f"{SAVED} && {COUNTS}.includes(': 1 answered')")
        # An answer right after an undo is not for the pair that was on the page.
        browser.evaluate("globalThis.send = globalThis.fetch; globalThis.fetch = () => new Promise(() => {})")
        browser.press("u")
        browser.press("2")
        assert browser.evaluate("queue.map((entry) => entry.path)") == ["api/undo"]
        assert browser.evaluate("document.querySelector('#pair').hidden")
        assert first
