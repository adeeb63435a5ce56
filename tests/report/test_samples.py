"""All test prompts are in the page: packed, complete, and no larger than a browser opens at once."""

from __future__ import annotations

import html
import json
import random
import re
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.evaluated_prompts import Verdict, find_groups
from rlaif_framework.records.preferences import Evidence, Preference
from rlaif_framework.report.assets import load_assets
from rlaif_framework.report.run_report import RunReport, read_samples
from rlaif_framework.report.sample_data import pack_samples
from support.evaluations import build_report, make_row
from support.pages import find_scripts, read_text, strip_assets
from support.runs import run_rows
from support.samples import unpack


def test_a_run_keeps_every_test_prompt_with_responses_rewards_and_verdicts(run_folder: Path) -> None:
    rows = list(read_samples(run_folder))
    responses = {
        name: run_rows(run_folder / f"evaluation/responses/{name}/responses.jsonl") for name in ("sft", "rlaif")
    }
    scores = json.loads((run_folder / "evaluation/scores/rlaif/scores.json").read_text())
    verdicts = run_rows(run_folder / "evaluation/wins/rlaif-vs-sft/preferences.jsonl")
    assert len(rows) == 6
    for index, row in enumerate(rows):
        assert row["id"] == responses["sft"][index]["prompt"] == verdicts[index]["comparison"]
        for name, given in responses.items():
            assert row["responses"][name]["text"] == given[index]["response"]
            assert row["responses"][name]["metrics"]["tokens"] == given[index]["metrics"]["tokens"]
        assert row["responses"]["sft"]["rewards"] == {"rlaif": scores["sft"][index]}
        assert row["responses"]["rlaif"]["rewards"] == {"rlaif": scores["policy"][index]}
        (verdict,) = row["verdicts"]
        assert verdict["probability"] == verdicts[index]["probabilities"][0]
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'id="sample-data">([^<]*)<', page)
    assert unpack(data)["ids"] == [row["id"] for row in rows]
    assert "samples" in json.loads((run_folder / "report.json").read_text())["evaluation"]


def test_both_orders_are_the_probability_of_the_first_policy() -> None:
    def read(probabilities: tuple[float, float] | None, *ballots: Ballot, **flags: Any) -> Verdict:
        evidence = Evidence("llm", orders=ballots, **flags)
        return Verdict.read("a", "b", "judge", Preference("c", probabilities, evidence))

    consistent = read((0.75, 0.25), Ballot((0.8, 0.2), rationale="why"), Ballot((0.3, 0.7)))
    assert (consistent.probability, consistent.orders, consistent.rationales) == (0.75, (0.8, 0.7), (("why",), ()))
    assert read((0.7, 0.3), Ballot((0.3, 0.7)), swapped=True).orders == (None, 0.7)
    # Asked for the more harmful response, both orders name the second policy's.
    harmless = read((0.85, 0.15), Ballot((0.1, 0.9)), Ballot((0.8, 0.2)), asks_worse=True)
    assert harmless.orders == (0.9, 0.8)
    assert read((0.7, 0.3), Ballot((0.7, 0.3)), swapped=True, asks_worse=True).orders == (None, 0.7)
    assert read(None, Ballot(None), Ballot((0.3, 0.7))).orders == (None, 0.7)
    assert (read((0.5, 0.5)).orders, read((0.5, 0.5)).rationales) == ((), ())
    swapped = read((0.7, 0.3), Ballot((0.3, 0.7), rationale="a", rationales=("a", "b")), swapped=True)
    assert swapped.rationales == ((), ("a", "b")), "what a judge wrote is attributed to the other order"


def test_only_short_texts_and_truth_values_name_groups() -> None:
    columns = {"topic": "cats", "done": True, "post": "x" * 41, "score": 3, "empty": "", "none": None}
    assert find_groups(columns.items()) == {"topic": "cats", "done": "true"}


def test_packed_samples_are_what_was_given_in_fewer_digits() -> None:
    packed = pack_samples([make_row(0), make_row(2)])
    assert packed is not None
    found = unpack(packed.data)
    assert (found["policies"], found["matchups"], found["judges"]) == (["sft", "rlaif"], [["rlaif", "sft"]], ["judge"])
    prompt, reference, responses, rationales = found["texts"][1]
    assert (prompt, reference) == ("POST: number 2 about cats", "a reference")
    assert responses == ["a plain answer 2", "a better answer 2"]
    assert rationales == {"0": [["because"], ["since"]]}
    assert found["ids"] == ["p0", "p2"]
    assert found["rewards"] == [{"rlaif": [0, 0.2857]}] * 2
    assert found["metrics"] == [{"tokens": [4, 4], "eos_rate": [1, 1]}] * 2
    (verdicts,) = found["verdicts"]
    assert verdicts == {
        "matchup": 0,
        "judge": 0,
        "probabilities": [900, 200],
        "orders": [[900, 200], [100, 800]],
        "notes": ["", ""],
    }
    long = make_row(0)
    long["responses"]["sft"]["metrics"]["tokens"] = 12_345
    packed = pack_samples([long])
    assert packed is not None
    assert unpack(packed.data)["metrics"][0]["tokens"] == [12_345], "counts are not rounded"
    assert pack_samples([]) is None
    assert pack_samples([make_row(0), make_row(2)]) == pack_samples([make_row(0), make_row(2)])


def test_samples_beyond_the_limit_are_left_out_and_said() -> None:
    draw = random.Random(0)
    rows = [make_row(i, "".join(draw.choices("abcdefgh ", k=400))) for i in range(200)]
    packed = pack_samples(rows, limit=20_000)
    assert packed is not None
    assert len(packed.data) <= 20_000
    assert 50 < packed.shown < packed.total == 200
    assert len(unpack(packed.data)["texts"]) == packed.shown


def test_a_page_without_all_samples_says_so_where_charts_link_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [make_row(number) for number in range(1500)]
    assert "as far as they are among" not in read_text(build_report().render(rows))
    monkeypatch.setattr(pack_samples, "__defaults__", (0, 2_000))
    page = build_report().render(rows)
    (shown,) = re.findall(r"The first ([\d,]+) of 1,500 samples;", read_text(page))
    assert f"see these samples, as far as they are among the first {shown} of 1,500, which" in read_text(page)
    assert 'data-total="1500"' in page


def test_half_of_a_surrogate_pair_can_be_packed() -> None:
    packed = pack_samples([make_row(0, "half \ud83d of a pair")])
    assert packed is not None
    assert unpack(packed.data)["texts"][0][0] == "half ? of a pair"


def test_the_policy_of_a_page_allows_exactly_its_own_scripts() -> None:
    page = build_report().render([make_row(0)])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert html.unescape(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert strip_assets(page).count("<script>") == strip_assets(page).count("<style>") == 0
    assert len(find_scripts(page)) == len(load_assets(charts=True, samples=True).scripts) == 12
    assert not re.search(r"\s(on\w+|style)=", strip_assets(page)), "the policy forbids handlers and styles of elements"


def test_a_report_without_samples_shows_those_in_its_numbers(tmp_path: Path) -> None:
    build_report().write(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="sample-data"' not in page
    assert "POST: &lt;b&gt;bold" in page
    assert RunReport.read(tmp_path).render() == page


def test_numbers_of_the_page_have_the_outcomes_of_the_win_rates() -> None:
    close = [make_row(number, probability=p) for number, p in enumerate((0.500001, 0.499999, 0.5))]
    close.append(make_row(3, probability=0.5, rlaif="", sft=""))
    packed = pack_samples(close)
    assert packed is not None
    (verdicts,) = unpack(packed.data)["verdicts"]
    assert verdicts["probabilities"] == [501, 499, 500, None]


def test_a_verdict_takes_few_bytes_of_the_page() -> None:
    draw = random.Random(0)
    rows = [make_row(number) for number in range(300)]
    for row in rows:
        row["verdicts"] = []
    without = pack_samples(rows)
    matchups = list(combinations(("a", "b", "c", "d", "rlaif", "sft"), 2))
    for row in rows:
        for (first, second), judge in product(matchups, ("judge", "llm")):
            orders = [draw.random(), draw.random()]
            names = {"first": first, "second": second, "judge": judge}
            row["verdicts"].append({**names, "probability": sum(orders) / 2, "orders": orders, "rationales": []})
    packed = pack_samples(rows)
    assert packed is not None
    assert without is not None
    assert (len(packed.data) - len(without.data)) / (len(rows) * 30) < 7


def test_samples_of_different_matchups_have_their_own_verdicts() -> None:
    rows = [make_row(0), make_row(1), make_row(2)]
    rows[1]["verdicts"][0] |= {"second": "reference", "judge": "llm"}
    rows[2]["verdicts"] = []
    packed = pack_samples(rows)
    assert packed is not None
    found = unpack(packed.data)
    assert [(x["matchup"], x["judge"]) for x in found["verdicts"]] == [(0, 0), (1, 1)]
    assert [x["probabilities"] for x in found["verdicts"]] == [[900, -1, -1], [-1, 500, -1]]
    assert found["verdicts"][1]["orders"] == [[None, 500, None]] * 2
    assert [list(rationales) for _, _, _, rationales in found["texts"]] == [["0"], ["1"], []]


def test_only_columns_with_few_values_are_kept_to_filter_by() -> None:
    rows = [make_row(number) for number in range(13)]
    for number, row in enumerate(rows):
        row["groups"] |= {"number": str(number), "all": "one"} | ({"some": "abc"[number]} if number < 2 else {})
    packed = pack_samples(rows)
    assert packed is not None
    groups = unpack(packed.data)["groups"]
    assert list(groups) == ["topic", "some"]
    assert groups["some"] == ["a", "b", *[None] * 11]
