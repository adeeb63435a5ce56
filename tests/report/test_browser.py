"""The page in a real browser: charts, sorting, filters, addresses, and hostile texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.metrics.seeds import Measure, Measured
from rlaif_framework.report.family_report import FamilyMember, FamilyReport
from rlaif_framework.report.run_charts import LoggedMetric
from support.browser import Browser
from support.browser import browser as browser
from support.evaluations import ARM, EVALUATION, POLICY, build_report, estimate, make_row, win
from support.samples import HOSTILE, READY, STATUS, choose, hash_of, shown

WIN_RATES = {"rlaif": 0.6, "7b": 0.7, "10b": None}


def write_page(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    path = folder / "report.html"
    path.write_text(build_report(**changes).render(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kl, reward = estimate(2.0), estimate(0.3)
    checkpoints = [{"step": 2, "kl": kl, "reward": reward, "win_rate": estimate(0.6), "judge": "rouge"}]
    arms = {"rlaif": {**ARM, "checkpoints": checkpoints}, "direct": {**ARM, "labeler": None}}
    wins = [*EVALUATION["wins"], {**win(estimate(0.4), None), "first": "direct"}]
    policies = {"sft": POLICY, "rlaif": POLICY, "direct": POLICY}
    rows = [make_row(number) for number in range(300)]
    return write_page(tmp_path_factory.mktemp("page"), rows, arms=arms, wins=wins, policies=policies)


def check_charts(browser: Browser) -> None:
    for number in range(browser.evaluate("document.querySelectorAll('[data-chart]').length")):
        plot = f"document.querySelectorAll('[data-chart]')[{number}]"
        browser.evaluate(f"{plot}.closest('details')?.setAttribute('open', ''); {plot}.scrollIntoView()")
        browser.wait(f"{plot}.dataset.drawn === 'done'")
        assert browser.evaluate(f"{plot}.querySelectorAll('svg path').length") > 3
        assert browser.evaluate(f"{plot}.getAttribute('aria-label')")


def test_the_curves_of_a_family_are_drawn(browser: Browser, tmp_path: Path) -> None:
    members = [FamilyMember(name=f"seed={i}", variant="f", seed=i, choices={"seed": str(i)}) for i in range(3)]
    curves = {
        member.name: [LoggedMetric("curve-reward", "reward", {"a": [(1.0, 0.1 * member.seed), (2.0, 0.5)]})]
        for member in members
    }
    page = tmp_path / "family.html"
    title = "win rate of a against sft, judged by llm (model: a/long-name)"
    measured = {m.name: [Measure("win_rate/a-vs-sft", title, True, Measured(0.5, ["p"], [0.5]))] for m in members}
    page.write_text(FamilyReport.build("f", {}, members, measured).render(curves), encoding="utf-8")
    browser.open(page)
    links = browser.evaluate("[...document.querySelectorAll('.contents a')].map((x) => x.textContent)")
    assert links == ["Members", "Training", "win rate against sft", "Spec"]
    check_charts(browser)
    assert browser.evaluate("document.querySelectorAll('[data-chart] .mark-area path').length") == 1
    assert browser.violations() == []
    assert (browser.complaints(), browser.requests()) == ([], [])


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_charts_are_drawn_under_the_policy_of_the_page(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.open(page, width, scheme)
    browser.wait(READY)
    check_charts(browser)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.violations() == []
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'")
    assert light == (scheme == "light")
    assert (browser.complaints(), browser.requests()) == ([], [])


@pytest.mark.parametrize(("start", "step"), [(0.693, 2e-4), (0.0, 1e-7), (12345.6, 0.01), (0.0, 3e6)])
def test_no_two_ticks_of_a_curve_have_the_same_label(
    browser: Browser, start: float, step: float, tmp_path: Path
) -> None:
    curve = [{"step": number, "reward": start + step * number} for number in range(1, 7)]
    browser.open(write_page(tmp_path, [], arms={"rlaif": {**ARM, "curve": curve}}))
    plot = "document.querySelector('[data-chart=curve-reward]')"
    browser.evaluate(f"{plot}.scrollIntoView()")
    browser.wait(f"{plot}.dataset.drawn === 'done'")
    axes = (
        f"[...{plot}.querySelectorAll('.role-axis-label')].map((axis) => [...axis.children].map((x) => x.textContent))"
    )
    labels = browser.evaluate(axes)
    assert len(labels) == 2
    assert all(len(set(axis)) == len(axis) > 2 for axis in labels), labels


def test_the_leaderboard_is_sorted_by_click_and_by_keyboard(browser: Browser, page: Path) -> None:
    names = "[...document.querySelectorAll('.leaderboard tbody th')].map((x) => x.firstChild.textContent)"
    orders = "[...document.querySelectorAll('.leaderboard thead th')].map((x) => x.getAttribute('aria-sort'))"
    browser.open(page)
    browser.wait(READY)
    assert browser.evaluate(names) == ["rlaif", "direct", "sft"]
    assert browser.evaluate(orders)[:3] == [None, "descending", None]
    browser.click(".leaderboard thead button", 1)
    assert browser.evaluate(names) == ["direct", "rlaif", "sft"]  # what was not measured stays last
    assert browser.evaluate(orders)[:3] == [None, "ascending", None]
    browser.evaluate("document.querySelector('.leaderboard thead button').focus()")
    browser.press("Enter")
    assert browser.evaluate(orders)[:3] == ["ascending", None, None]
    assert browser.evaluate(names) == ["direct", "rlaif", "sft"]
    mark = browser.evaluate("document.querySelector('.leaderboard .better').textContent")
    assert mark == "▲ significantly better"


def test_samples_are_filtered_searched_and_sorted(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(READY)
    assert (browser.evaluate(STATUS), hash_of(browser)) == ("300 of 300 samples", "")
    choose(browser, "outcome", "loss")
    assert browser.evaluate(STATUS) == "100 of 300 samples"
    choose(browser, "slice", "topic: cats")
    assert browser.evaluate(STATUS) == "50 of 300 samples"
    choose(browser, "q", "NUMBER 29")
    assert browser.evaluate(STATUS) == "2 of 300 samples"  # 290 and 296
    assert shown(browser) == "Sample 291"
    assert browser.evaluate("document.querySelector('.prompt-text mark').textContent") == "number"
    assert hash_of(browser) == "#sample=p290&outcome=loss&slice=topic%3A+cats&q=NUMBER+29"
    browser.click(".filters button[type=reset]")
    browser.wait(f"{STATUS} === '300 of 300 samples'")
    choose(browser, "q", "P123")
    assert (browser.evaluate(STATUS), shown(browser)) == ("1 of 300 samples", "Sample 124")
    assert "p123" in browser.evaluate("document.querySelector('.row').textContent")
    choose(browser, "q", "SINCE")
    assert browser.evaluate(STATUS) == "300 of 300 samples", "rationales are not searched"
    choose(browser, "sort", "first loses most")
    browser.evaluate("document.querySelector('.list').focus()")
    browser.press("Home")
    assert shown(browser) == "Sample 3"
    rows = browser.evaluate("[...document.querySelectorAll('.row')].map((x) => x.textContent)")
    assert rows[0].startswith("#3▼ loss-0.60")
    assert all("loss-0.60" in text for text in rows)


def test_only_the_rows_in_view_are_elements_and_keys_move(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(READY)
    count = "document.querySelectorAll('.row').length"
    assert 5 < browser.evaluate(count) < 40
    browser.evaluate("document.querySelector('.list').focus()")
    browser.press("ArrowDown")
    assert shown(browser) == "Sample 2"
    browser.press("End")
    assert shown(browser) == "Sample 300"
    active = "document.getElementById(document.querySelector('.list').getAttribute('aria-activedescendant'))"
    assert browser.evaluate(f"{active}.getAttribute('aria-posinset')") == "300"
    assert browser.evaluate(f"{active}.getAttribute('aria-setsize')") == "300"
    assert browser.evaluate(count) < 40


def test_an_address_shows_its_sample_and_its_filters(browser: Browser, page: Path) -> None:
    browser.open(page, fragment="#sample=p11")
    browser.wait(READY)
    assert (shown(browser), browser.evaluate(STATUS)) == ("Sample 12", "300 of 300 samples")
    assert browser.evaluate("Math.abs(document.querySelector('#sample-browser').getBoundingClientRect().top) < 100")
    browser.open(page, fragment="#sample=p2&outcome=loss&q=cats")
    browser.wait(READY)
    assert (shown(browser), browser.evaluate(STATUS)) == ("Sample 3", "50 of 300 samples")
    browser.open(page, fragment="#sample=p2&outcome=win&q=cats")
    browser.wait(READY)
    assert (shown(browser), browser.evaluate(STATUS)) == ("Sample 3", "300 of 300 samples"), "another sample is shown"
    browser.open(page, fragment="#sample=p300&outcome=win")
    browser.wait(READY)
    assert browser.evaluate(STATUS) == "100 of 300 samples; sample p300 is not in this page"
    browser.open(page, fragment="#sample=&outcome=<img>&matchup=x&q=<img src=x onerror=owned=1>")
    browser.wait(READY)
    assert browser.evaluate(STATUS) == "0 of 300 samples"
    assert browser.evaluate("typeof owned") == "undefined"


def test_a_bar_of_the_win_rates_shows_its_samples(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(READY)
    browser.evaluate("document.querySelector('[data-chart=outcomes-0]').scrollIntoView()")
    browser.wait("document.querySelector('[data-chart=outcomes-0]').dataset.drawn === 'done'")
    # The wins of the first matchup.
    browser.click_until(f"{STATUS} === '100 of 300 samples'", "[data-chart=outcomes-0] .layer_0_marks path")
    assert hash_of(browser) == "#sample=p0&outcome=win"
    # The diamond on the bar.
    browser.click_until(f"{STATUS} === '300 of 300 samples'", "[data-chart=outcomes-0] .layer_3_marks path")
    assert hash_of(browser) == "#sample=p0"


def test_the_status_says_that_there_are_more_samples(browser: Browser, page: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.read_text(encoding="utf-8").replace('data-total="300"', 'data-total="1000"'))
    browser.open(path)
    browser.wait(READY)
    choose(browser, "outcome", "loss")
    assert browser.evaluate(STATUS) == "100 of 300 samples in this page; there are 1,000 in all"


def test_differences_are_those_of_the_compared_pair(browser: Browser, tmp_path: Path) -> None:
    row = make_row(0, direct="another answer 0")
    row["verdicts"].append({**row["verdicts"][0], "second": "direct"})
    browser.open(write_page(tmp_path, [row]))
    browser.wait(READY)
    marks = "[...document.querySelectorAll('.response ins, .response del')].map((x) => x.tagName + x.textContent)"
    assert browser.evaluate(marks) == []
    browser.click(".sample-detail header button")
    assert browser.evaluate(marks)[:2] == ["DELplain", "INSbetter"]
    choose(browser, "matchup", "rlaif~direct")
    assert browser.evaluate("document.querySelector('.sample-detail button').textContent") == "Differences from direct"
    of_pair = "[...document.querySelectorAll('.compared :is(ins, del)')].map((x) => x.tagName + x.textContent)"
    assert browser.evaluate(of_pair) == ["DELanother", "INSa", "INSbetter "]


def test_rationales_name_their_order_those_of_the_chosen_matchup_first(browser: Browser, tmp_path: Path) -> None:
    rows = [make_row(number) for number in range(2)]
    for row in rows:
        row["verdicts"].append({**row["verdicts"][0], "second": "reference"})
    browser.open(write_page(tmp_path, rows))
    browser.wait(READY)
    choose(browser, "matchup", "rlaif~reference")
    texts = "[...document.querySelectorAll('.rationales > :is(h4, p, pre)')].map((x) => x.textContent)"
    first, second = "Shown in the order rlaif, reference:", "Shown in the order reference, rlaif:"
    found = browser.evaluate(texts)
    assert found[:5] == ["rlaif against reference, by judge", first, "because", second, "since"]
    assert found[5] == "rlaif against sft, by judge"
    browser.click(".rationales summary")
    browser.wait("document.querySelector('.rationales').open")
    browser.evaluate("document.querySelector('.list').focus()")
    browser.press("ArrowDown")
    assert shown(browser) == "Sample 2"
    assert browser.evaluate("document.querySelector('.rationales').open"), "the box is closed by the next sample"


def test_samples_that_cannot_be_unpacked_are_those_in_the_page(browser: Browser, tmp_path: Path) -> None:
    visible = "document.querySelector('.first-samples').checkVisibility()"
    browser.open(write_page(tmp_path, []))
    assert browser.evaluate(visible), "a page without packed samples shows none"
    path = write_page(tmp_path, [make_row(0)])
    page = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'(id="sample-data">)[^<]*', r"\1broken", page), encoding="utf-8")
    browser.open(path)
    browser.wait("document.querySelector('#sample-browser + p') !== null")
    assert browser.evaluate(visible)
    assert browser.evaluate("document.querySelector('#sample-browser').hidden")
    assert "cannot unpack" in browser.evaluate("document.querySelector('#sample-browser + p').textContent")
    assert browser.complaints() == []


def test_hostile_texts_stay_texts(browser: Browser, tmp_path: Path) -> None:
    row = make_row(0, HOSTILE, rlaif=HOSTILE, sft=HOSTILE)
    row["verdicts"][0]["rationales"] = [[HOSTILE]]
    row["groups"] = {HOSTILE: HOSTILE}
    labelers = {name: {**x, "title": HOSTILE} for name, x in EVALUATION["labelers"].items()}
    judges = {"judge": {"kind": HOSTILE}}
    browser.open(write_page(tmp_path, [row, make_row(1)], labelers=labelers, judges=judges))
    browser.wait(READY)
    browser.evaluate("document.querySelector('[data-chart=outcomes-0]').scrollIntoView()")
    browser.wait("document.querySelector('[data-chart=outcomes-0]').dataset.drawn === 'done'")
    texts = browser.evaluate(
        "[...document.querySelectorAll('.response .text, .prompt-text')].map((x) => x.textContent)"
    )
    assert texts.count(HOSTILE) == 3
    assert browser.evaluate("typeof owned") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []


def test_the_contents_stay_in_view_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=390)
    browser.wait(READY)
    browser.evaluate("document.querySelector('#spec').scrollIntoView({behavior: 'instant'})")
    browser.wait("document.querySelector('.contents ul').scrollLeft > 0")
    assert browser.evaluate("document.querySelector('.contents').getBoundingClientRect().top") == 0
    below = "document.querySelector('#spec').getBoundingClientRect().top - document.querySelector('nav').offsetHeight"
    assert browser.evaluate(f"{below} >= 0"), "the contents cover the heading"


def test_print_and_a_browser_without_scripts_show_tables_and_samples(browser: Browser, page: Path) -> None:
    visible = "(x) => Boolean(document.querySelector(x)?.checkVisibility())"
    see = f"['.first-samples', '#sample-browser', '.leaderboard', '.plot'].map({visible})"
    browser.open(page)
    browser.wait(READY)
    assert browser.evaluate(see) == [False, True, True, True]
    browser.media(media="print")
    assert browser.evaluate(see) == [True, False, True, True]
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    without = browser.evaluate(see)
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert without == [True, False, True, False]


def test_samples_without_both_orders_do_not_differ_by_order(browser: Browser, tmp_path: Path) -> None:
    rows = [make_row(number, probability=p) for number, p in enumerate((0.9, 0.5004, 0.9, 0.9))]
    for row, orders in zip(rows, ([None, 0.9], [0.2, 0.8], [0.5, 0.9], [0.9, 0.9]), strict=True):
        row["verdicts"][0]["orders"] = orders
    browser.open(write_page(tmp_path, rows))
    browser.wait(READY)
    choose(browser, "slice", "orders disagree")
    assert browser.evaluate(STATUS) == "1 of 4 samples"
    choose(browser, "slice", "")
    choose(browser, "outcome", "win")
    assert browser.evaluate(STATUS) == "4 of 4 samples"  # also the one that is nearly a tie
    choose(browser, "sort", "orders differ most")
    numbers = browser.evaluate("[...document.querySelectorAll('.row')].map((x) => x.textContent.slice(0, 2))")
    assert numbers == ["#2", "#3", "#4", "#1"]


def test_a_column_is_sorted_as_numbers_only_if_all_its_cells_are(browser: Browser, tmp_path: Path) -> None:
    wins = [{**win(estimate(rate) if rate else None, None), "first": n} for n, rate in WIN_RATES.items()]
    arms, policies = dict.fromkeys(WIN_RATES, ARM), dict.fromkeys(["sft", *WIN_RATES], POLICY)
    browser.open(write_page(tmp_path, [], wins=wins, arms=arms, policies=policies))
    firsts = "[...document.querySelectorAll('#wins tbody tr')].map((x) => x.cells[0].textContent)"
    browser.click("#wins thead button", 0)
    assert browser.evaluate(firsts) == ["10b", "7b", "rlaif"]
    browser.click("#wins thead button", 2)
    assert browser.evaluate(firsts) == ["7b", "rlaif", "10b"], "what was not measured is not last"
    browser.click("#policies thead button", 0)
    shown = "[...document.querySelectorAll('#policies tbody th')].map((x) => x.textContent)"
    assert browser.evaluate(shown) == ["10b", "7b", "rlaif", "sft"]
