"""Published results stand beside those of a run and of a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlaif_framework import Spec, SpecError
from rlaif_framework.metrics.seeds import Measure, Measured
from rlaif_framework.report.family_report import FamilyMember, FamilyReport
from support.evaluations import SPEC
from support.evaluations import build_report as report

RESULTS = {
    "win_rate/rlaif-vs-sft": 0.71,
    "win_rate_length_adjusted/rlaif-vs-sft": 0.59,
    "win_rate/rlaif-vs-rlhf": 0.5,
    "reward_accuracy/rlaif": 0.742,
    "reward_accuracy_own_labels/rlaif": 0.8,
    "policies/sft/rougeL": 0.25,
}


def test_the_report_has_a_panel_of_published_results() -> None:
    (panel,) = report({**SPEC, "published": {"source": "RLAIF <v2>", "results": RESULTS}}).panels
    assert panel.title == "Published results"
    assert panel.text.startswith("Published: RLAIF <v2>. Its models and data")
    assert panel.table is not None
    assert [list(row) for row in panel.table.rows] == [
        ["win rate: rlaif against sft", "71 %", "70.0 % [65, 75] n=50"],
        ["win rate, length adjusted: rlaif against sft", "59 %", "61.0 % [56, 66] n=50"],
        ["win rate: rlaif against rlhf", "50 %", "not measured"],
        ["reward accuracy: rlaif", "74.2 %", "70.0 % [65, 75] n=50"],
        ["reward accuracy, own labels: rlaif", "80 %", "75.0 % [70, 80] n=50"],
        ["policies: sft, rougeL", "0.25", "0.2 [0.15, 0.25]"],
    ]


@pytest.mark.parametrize("published", [None, {"source": "a paper", "results": {}}])
def test_without_published_results_there_is_no_panel(published: dict[str, Any] | None) -> None:
    assert report({**SPEC, "published": published}).panels == []


def test_a_family_shows_the_published_result_of_each_variant() -> None:
    name = "reward_accuracy/ai"
    members = [
        FamilyMember(
            name=f"{variant},seed={seed}",
            variant=variant,
            seed=seed,
            choices={},
            published={name: value} if value else {},
        )
        for variant, value in (("base", 0.779), ("detailed", 0.742), ("other", None))
        for seed in (0, 1)
    ]
    found = {m.name: [Measure(name, "accuracy", True, Measured(0.6 + 0.1 * m.seed))] for m in members}
    family = FamilyReport.build("table7", {}, members, found, ["RLAIF v2, Table 7"])
    ((_, head, rows),) = family.list_tables()
    assert head[:4] == ("variant", "published", "seed 0", "seed 1")
    assert [row[:4] for row in rows] == [
        ("base", "77.9 %", "60.0 %", "70.0 %"),
        ("detailed", "74.2 %", "60.0 %", "70.0 %"),
        ("other", "-", "60.0 %", "70.0 %"),
    ]
    assert "Published: RLAIF v2, Table 7." in family.render()
    plain = FamilyReport.build("table7", {}, [m.model_copy(update={"published": {}}) for m in members], found)
    assert "published" not in plain.list_tables()[0][1]
    assert "Published:" not in plain.render()


def test_published_results_need_a_source(tiny_spec: Callable[..., Spec]) -> None:
    with pytest.raises(SpecError, match=r"published\.source: Field required"):
        tiny_spec(published={"results": RESULTS})


def test_a_family_of_one_variant_has_a_table_for_each_kind_of_measure() -> None:
    members = [FamilyMember(name=f"seed={n}", variant="f", seed=n, choices={}, state="finished") for n in (0, 1)]
    titles = {
        "win_rate/a-vs-sft": "win rate of a against sft, judged by rouge",
        "win_rate/b.2-vs-sft": "win rate of b.2 against sft, judged by rouge",
        "win_rate/a-vs-b.2": "win rate of a against b.2, judged by rouge",
        "tokens/a": "tokens of a response of a",
        "tokens/b.2": "tokens of a response of b.2",
    }
    rows = [Measure(name, title, False, Measured(float(n))) for n, (name, title) in enumerate(titles.items())]
    tables = FamilyReport.build("f", {}, members, {member.name: rows for member in members}).list_tables()
    assert [(title, head[0], [row[0] for row in rows]) for title, head, rows in tables] == [
        ("win rate against sft, judged by rouge", "arm", ["a", "b.2"]),
        ("win rate against b.2, judged by rouge", "arm", ["a"]),
        ("tokens of a response", "arm", ["a", "b.2"]),
    ]
