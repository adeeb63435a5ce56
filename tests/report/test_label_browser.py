"""The labels of `rlaif label --report` in the sample browser: outcomes beside people, filters, and all texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.data.pairs_file import scan_pairs
from rlaif_framework.labelling.loop import LabelRecord
from rlaif_framework.labelling.report import build_report, write_report
from rlaif_framework.labelling.rows import to_row
from rlaif_framework.labelling.samples import describe_label, read_samples
from rlaif_framework.prompting.chunks import LabelCounts
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Labelled, Preference, Prompt, Vote
from rlaif_framework.report.sample_data import pack_samples
from support.browser import Browser
from support.browser import browser as browser
from support.pages import read_text
from support.samples import HOSTILE, READY, STATUS, choose, hash_of, shown, unpack

CELLS = "[...document.querySelectorAll('.verdicts tbody tr')].map((x) => [...x.cells].map((y) => y.textContent))"
ROWS = "[...document.querySelectorAll('.row .line')].map((x) => x.textContent)"
LLM = LabelRecord(
    key="k",
    pairs="pairs.jsonl",
    comparisons=4,
    labeler={"config": {"kind": "llm"}},
    task={"config": {"kind": "tldr"}},
    seed=0,
    counts=LabelCounts(comparisons=4),
)


def compare(number: int, human: float | None, **changes: Any) -> Comparison:
    responses = (f"a plain answer {number}", f"a better answer {number}, and longer")
    prompt = Prompt(f"p{number}", f"POST: number {number}", "source")
    source = None if human is None else "human"
    return Comparison(
        **{
            "id": f"p{number}",
            "prompt": prompt,
            "responses": responses,
            "preference": human,
            "preference_source": source,
            "slice": ("cats", "dogs")[number % 2],
            **changes,
        }
    )


def label(comparison: Comparison, first: float | None, *orders: Ballot, **evidence: Any) -> Labelled:
    probabilities = None if first is None else (first, 1 - first)
    return comparison, Preference(comparison.id, probabilities, Evidence("llm", orders, **evidence))


def ballot(first: float, *texts: str, mass: float | None = None) -> Ballot:
    return Ballot((first, 1 - first), mass, rationale=texts[0] if texts else None)


LABELS = [
    label(compare(0, 1.0, confidence=0.75), 0.8, ballot(0.9, "because", mass=0.9), ballot(0.3, "since", mass=0.7)),
    label(compare(1, 0.0), 0.55, ballot(0.8), ballot(0.7)),
    label(compare(2, 0.5), 0.35, ballot(0.3), ballot(0.7)),
    label(compare(3, None), None, ballot(0.9), Ballot(None)),
]
LONGER = [label(comparison, 0.0, scores=(16.0, 28.0)) for comparison, _ in LABELS]


def write_page(folder: Path, labels: Mapping[str, Iterable[Labelled]]) -> Path:
    """Write a report of labels; the labelled pairs are those of the first labeler."""
    paths = {name: folder / f"labels.{number}.jsonl" for number, name in enumerate(labels)}
    for name, path in paths.items():
        write_rows(path, (to_row(*labelled) for labelled in labels[name]))
    pairs = folder / "pairs.jsonl"
    made = [comparison for comparison, _ in next(iter(labels.values()))]
    write_rows(pairs, ({"id": x.id, "prompt": x.prompt.text, "responses": x.responses} for x in made))
    with scan_pairs(pairs) as scanned:
        report = build_report(scanned, {name: (LLM, path) for name, path in paths.items()})
    page = folder / "report.html"
    write_report(report, paths, page)
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("labels"), {"llm": LABELS, "longer": LONGER})


def test_labels_are_shown_in_both_orders_beside_the_preference_of_people(browser: Browser, page: Path) -> None:
    browser.open(page, fragment="#sample=p0")
    browser.wait(READY)
    assert browser.evaluate(CELLS) == [
        ["llm", "✓ agrees", "80.0 %", "90.0 %", "70.0 %", "probability mass on the label tokens 0.8"],
        ["longer", "✗ disagrees", "0.0 %", "-", "-", "scores 16 and 28"],
        ["people", "", "100.0 %", "", "", "confidence 0.75"],
    ]
    titles = "[...document.querySelectorAll('.response')].map((x) => x.querySelector('h4, .facts').parentNode)"
    facts = browser.evaluate(f"{titles}.map((x) => [...x.children].map((y) => y.textContent).join('|'))")
    assert facts == [
        "first response|16 characters · preferred by people|a plain answer 0",
        "second response|29 characters|a better answer 0, and longer",
    ]
    texts = "[...document.querySelectorAll('.rationales > :is(summary, h4, p, pre)')].map((x) => x.textContent)"
    orders = ["Shown in the order first, second:", "because", "Shown in the order second, first:", "since"]
    assert browser.evaluate(texts) == ["What the labelers wrote", "llm", *orders]
    browser.click(".sample-detail header button")
    marks = "[...document.querySelectorAll('.response :is(ins, del)')].map((x) => x.tagName + x.textContent)"
    assert browser.evaluate(marks) == ["DELbetter", "INSplain", "DEL, and longer"]
    assert browser.complaints() == []


def test_labels_are_filtered_searched_and_sorted(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(READY)
    assert browser.evaluate(ROWS) == [
        "#1✓ agrees+0.60",
        "#2✗ disagrees+0.10",
        "#3prefers second-0.30",  # people have no preference
        "#4? failed",
    ]
    for outcome, number in (("agrees", 1), ("disagrees", 2), ("second", 3), ("failed", 4)):
        choose(browser, "outcome", outcome)
        assert (browser.evaluate(STATUS), shown(browser)) == ("1 of 4 samples", f"Sample {number}")
    assert hash_of(browser) == "#sample=p3&outcome=failed"
    assert browser.evaluate(CELLS)[0] == ["llm", "? failed", "-", "90.0 %", "-", "the answer could not be read"]
    choose(browser, "outcome", "")
    for name, found in (
        ("orders disagree", ["#2"]),
        ("labelers disagree", ["#1", "#2"]),
        ("prefers the longer", ["#3"]),
        ("people have no preference", ["#3", "#4"]),
        ("slice: dogs", ["#2", "#4"]),
    ):
        choose(browser, "slice", name)
        assert [text[:2] for text in browser.evaluate(ROWS)] == found, name
    choose(browser, "slice", "")
    for name, order in (
        ("least certain", ["#2", "#3", "#1", "#4"]),
        ("orders differ most", ["#2", "#1", "#3", "#4"]),
        ("furthest from people", ["#2", "#1", "#3", "#4"]),
        ("second preferred most", ["#3", "#2", "#1", "#4"]),
    ):
        choose(browser, "sort", name)
        assert [text[:2] for text in browser.evaluate(ROWS)] == order, name
    choose(browser, "q", "SINCE")
    assert browser.evaluate(ROWS) == ["#1✓ agrees+0.60"]
    choose(browser, "judge", "longer")
    assert browser.evaluate(ROWS) == ["#1✗ disagrees-1.00"]


def test_an_address_names_the_labeler(browser: Browser, page: Path) -> None:
    browser.open(page, fragment="#sample=p1&judge=longer&outcome=agrees")
    browser.wait(READY)
    assert (shown(browser), browser.evaluate(STATUS)) == ("Sample 2", "1 of 4 samples")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    browser.wait(READY)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.violations() == []
    assert (browser.complaints(), browser.requests()) == ([], [])


def test_a_printed_page_has_examples_and_no_browser(browser: Browser, page: Path) -> None:
    see = "['#samples', '#examples'].map((x) => document.querySelector(x).checkVisibility())"
    browser.open(page)
    browser.wait(READY)
    assert browser.evaluate(see) == [True, True]
    browser.media(media="print")
    assert browser.evaluate(see) == [False, True]


def test_hostile_texts_of_labels_stay_texts(browser: Browser, tmp_path: Path) -> None:
    prompt = Prompt("p", HOSTILE, HOSTILE)
    comparison = compare(0, 1.0, id=HOSTILE, prompt=prompt, responses=(HOSTILE, f"x {HOSTILE}"), slice=HOSTILE)
    votes = (Vote(HOSTILE, (0.7, 0.3)), Vote("b", None))
    labelled = label(comparison, 0.8, ballot(0.8, HOSTILE), members=votes)
    browser.open(write_page(tmp_path, {HOSTILE: [labelled], "b": [label(comparison, None, refused=HOSTILE)]}))
    browser.wait(READY)
    texts = browser.evaluate(
        "[...document.querySelectorAll('.response .text, .prompt-text, pre')].map((x) => x.innerText)"
    )
    assert sum(text.startswith("</script><script>owned") for text in texts) >= 2
    assert browser.evaluate(CELLS)[0][5] == f"{HOSTILE} 0.700; b unparsed"
    assert browser.evaluate("typeof owned") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []


def test_only_the_first_labels_are_packed(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("one", "other")}
    for path in paths.values():
        write_rows(path, (to_row(*labelled) for labelled in LABELS))
    rows = list(read_samples(paths, 3))
    assert [row["id"] for row in rows] == ["p0", "p1", "p2"]
    packed = pack_samples(rows, 4)
    assert packed is not None
    assert (packed.shown, packed.total) == (3, 4)
    found = unpack(packed.data)
    assert found["human"] == {"preference": [1000, 0, 500], "confidence": [750, None, None]}
    assert [x["probabilities"] for x in found["verdicts"]] == [[800, 550, 350]] * 2


def test_the_page_says_where_all_labels_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_samples, "__defaults__", (3,))
    text = read_text(write_page(tmp_path, {"llm": LABELS, "b": LONGER}).read_text(encoding="utf-8"))
    assert "The first 3 of 4 samples; " in text
    found = re.findall(r"The first 3 of 4 samples; (.*?) have all of them\.", text)
    assert found == [f"{tmp_path / 'labels.0.jsonl'}, {tmp_path / 'labels.1.jsonl'}"]


def test_without_people_labels_neither_agree_nor_disagree(tmp_path: Path) -> None:
    labels = [label(compare(number, None), 0.8) for number in range(3)]
    page = write_page(tmp_path, {"llm": labels}).read_text(encoding="utf-8")
    assert '<option value="failed">' in page
    assert "agrees with people" not in page


def test_a_label_without_probabilities_has_its_reason() -> None:
    def describe(first: float | None, **evidence: Any) -> str:
        return describe_label(label(compare(0, 1.0), first, **evidence)[1])

    assert describe(0.7) == ""
    assert describe(None) == "the answer could not be read"
    assert describe(None, inconsistent=True) == "the orders disagree"
    assert describe(None, refused="filter") == "refused: filter"
    copied = Preference("p", (1.0, 0.0), Evidence("human"))
    assert describe_label(copied) == "copied from human annotations"
    principled = Ballot((0.7, 0.3), principle="be brief")
    assert describe_label(label(compare(0, 1.0), 0.7, principled, principled)[1]) == "principle: be brief"
