"""The specs of the charts hold the numbers of the report, and nothing that a name could change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.metrics.equal_kl import Checkpoint
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.report.charts import MAX_POINTS, SHAPES, Chart, by_arm, curve_channels, draw_rates, thin
from rlaif_framework.report.checkpoint_charts import draw_checkpoints
from rlaif_framework.report.family_charts import MOST_ROWS, draw_family
from rlaif_framework.report.run_charts import LoggedMetric, draw_run
from rlaif_framework.report.win_charts import draw_matrix, draw_outcomes
from support.evaluations import ARM, EVALUATION, build_report

EVIL = "</script><b>${x}{{y}}"


def make_win(first: str, second: str, rate: float, count: int = 20, ties: int = 4) -> WinRate:
    estimate = Estimate(rate, rate - 0.1, rate + 0.1, count)
    return WinRate(first, second, "judge", estimate, None, True, ties, 0, 0)


def rows_of(chart: Chart | None, layer: int | None = None) -> list[dict[str, Any]]:
    assert chart is not None
    part = chart.spec if layer is None else chart.spec["layer"][layer]
    rows: list[dict[str, Any]] = part["data"]["values"]
    return rows


def test_bars_add_up_to_the_pairs_and_say_what_they_filter() -> None:
    bars = rows_of(draw_outcomes("o", "Outcomes", [make_win("rlaif", "sft", 0.6)]), 0)
    assert [(bar["outcome"], bar["filter"], bar["count"]) for bar in bars] == [
        ("wins", "win", 10),
        ("ties", "tie", 4),
        ("losses", "loss", 6),
    ]
    assert [(bar["start"], bar["end"]) for bar in bars] == [(0, 50), (50, 70), (70, 100)]
    assert {(bar["first"], bar["second"], bar["judge"]) for bar in bars} == {("rlaif", "sft", "judge")}


def test_the_matrix_has_both_directions_and_marks_what_is_significant() -> None:
    wins = [make_win("a", "sft", 0.7), make_win("b", "sft", 0.55), make_win("a", "b", 0.5)]
    chart = draw_matrix("m", "Matrix", wins)
    cells = {(row["first"], row["second"]): (row["text"], row["bounds"]) for row in rows_of(chart)}
    assert cells["a", "sft"] == ("70*", "60–80")
    assert cells["sft", "a"] == ("30*", "20–40")
    assert cells["b", "sft"] == ("55", "45–65")
    assert len(cells) == 6
    assert chart is not None
    assert chart.spec["encoding"]["x"]["sort"] == ["a", "b", "sft"]
    assert draw_matrix("m", "Matrix", wins[:1]) is None


def test_checkpoints_are_drawn_by_their_kl_in_the_order_of_steps() -> None:
    def checkpoint(step: int, kl: float, rate: float | None) -> Checkpoint:
        win = None if rate is None else Estimate(rate, rate - 0.1, rate + 0.1, 20)
        return Checkpoint(step, Estimate(kl, kl, kl, 20), Estimate(0.3, 0.2, 0.4, 20), win, "rouge")

    arms = {"far": [checkpoint(2, 5.0, 0.75), checkpoint(4, 3.0, 0.5)], "new": [checkpoint(2, 1.0, None)], "none": []}
    wins, rewards = draw_checkpoints(arms)
    assert wins.title == "Win rate against sft during training, by rouge"
    assert rows_of(wins) == [
        {"arm": "far", "step": 2, "kl": 5.0, "value": 75.0, "low": 65.0, "high": 85.0},
        {"arm": "far", "step": 4, "kl": 3.0, "value": 50.0, "low": 40.0, "high": 60.0},
    ]
    assert wins.spec["layer"][0]["encoding"]["order"] == {"field": "step"}
    assert wins.description.endswith("far 75 at KL 5, 50 at KL 3.")
    assert [row["arm"] for row in rows_of(rewards)] == ["far", "far", "new"]
    assert list(draw_checkpoints({"none": []})) == []


def test_an_arm_has_the_same_colour_in_all_charts() -> None:
    arms = {"rlaif": ARM, "bare": {"labeler": None, "reward": None, "curve": [{"step": 1, "kl_k1": 0.1}]}}
    charts = draw_run(Evaluation.model_validate({**EVALUATION, "arms": {"first": {**ARM, "curve": []}, **arms}}))
    colours: dict[str, set[str]] = {}
    for chart in charts["training"]:
        for channel in ("color", "strokeDash"):
            scale = chart.spec["encoding"][channel]["scale"]
            for name, value in zip(scale["domain"], scale["range"], strict=True):
                colours.setdefault(f"{channel} {name}", set()).add(json.dumps(value))
    assert {name: len(values) for name, values in colours.items()} == dict.fromkeys(colours, 1)
    assert len(set.union(*(colours[f"color {name}"] for name in ("first", "rlaif", "bare")))) == 3


def test_a_curve_holds_the_logged_values_of_every_arm_that_has_them() -> None:
    charts = {chart.id: chart for chart in draw_run(Evaluation.model_validate(EVALUATION))["training"]}
    assert rows_of(charts["curve-kl_k1"]) == [
        {"arm": "rlaif", "step": 1, "value": 0.0},
        {"arm": "rlaif", "step": 2, "value": 0.1},
    ]
    assert "curve-objective" not in charts


def log_rewards(*values: float, arm: str = "rlaif") -> list[LoggedMetric]:
    return [LoggedMetric("curve-reward", "reward", {arm: [(float(i), x) for i, x in enumerate(values, 1)]})]


def test_seeds_are_a_band_around_their_mean() -> None:
    variants = {"seed=0": "f", "seed=1": "f", "seed=2": "f"}
    curves = {"seed=0": log_rewards(1.0, 4.0), "seed=1": log_rewards(3.0, 6.0), "seed=2": log_rewards(2.0)}
    (chart,) = draw_family(variants, curves)
    assert rows_of(chart) == [
        {"arm": "rlaif", "step": 1, "value": 2.0, "low": 1.0, "high": 3.0, "seeds": 3},
        {"arm": "rlaif", "step": 2, "value": 5.0, "low": 4.0, "high": 6.0, "seeds": 2},  # the third stopped early
    ]
    band, line = chart.spec["layer"]
    fields = {name: band["encoding"][name]["field"] for name in ("y", "y2", "color")}
    assert (band["mark"]["type"], fields) == ("area", {"y": "low", "y2": "high", "color": "arm"})
    assert (line["mark"]["type"], line["encoding"]["y"]["field"]) == ("line", "value")
    assert band["params"][0]["bind"] == "scales"
    assert "with a band from the lowest to the highest seed" in chart.description
    assert chart.description.endswith("rlaif 5 [4, 6] at step 2.")


@pytest.mark.parametrize(
    ("arms", "variants", "names"),
    [
        (("x", "y"), ("f", "f"), ["x", "y"]),
        (("x", "x"), ("low", "high"), ["low", "high"]),
        (("x", "y"), ("low", "high"), ["low: x", "high: y"]),
    ],
)
def test_curves_of_a_family_are_named_by_what_differs(
    arms: tuple[str, str], variants: tuple[str, str], names: list[str]
) -> None:
    members = dict(zip("ab", variants, strict=True))
    (chart,) = draw_family(members, {name: log_rewards(1.0, arm=arm) for name, arm in zip("ab", arms, strict=True)})
    assert [row["arm"] for row in rows_of(chart)] == names
    assert chart.spec["layer"][1]["encoding"]["color"]["scale"]["domain"] == names


def test_a_page_does_not_grow_with_the_variants_of_a_family() -> None:
    values = [float(i) for i in range(1000)]
    members = {str(i): str(i) for i in range(100)}
    (chart,) = draw_family(members, dict.fromkeys(members, log_rewards(*values)))
    rows = rows_of(chart)
    assert len(rows) == MOST_ROWS
    assert {row["step"] for row in rows} >= {1.0, 1000.0}


def test_long_curves_are_thinned_to_their_ends_and_points_between() -> None:
    points = [(float(i), float(i)) for i in range(5001)]
    found = thin(points)
    assert len(found) == MAX_POINTS
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thin(points[:7]) == points[:7]


def test_names_are_only_data() -> None:
    chart = draw_rates("r", "Rates", {EVIL: Estimate(0.5, 0.4, 0.6, 9)}, "agreement (%)", 0.5)
    assert chart is not None
    harmless = draw_rates("r", "Rates", {"x": Estimate(0.5, 0.4, 0.6, 9)}, "agreement (%)", 0.5)
    assert harmless is not None
    assert [row.pop("name") for row in rows_of(chart)] == [EVIL]
    assert [row.pop("name") for row in rows_of(harmless)] == ["x"]
    assert chart.spec == harmless.spec


def test_specs_ask_for_nothing_and_have_unique_ids(tmp_path: Path) -> None:
    charts = [chart for section in draw_run(build_report().evaluation).values() for chart in section]
    assert len(charts) > 8
    assert len({chart.id for chart in charts}) == len(charts)
    for chart in charts:
        text = json.dumps(chart.spec)
        assert '"url"' not in text
        assert '"href"' not in text
        assert chart.description.endswith(".")


def test_twenty_curves_differ_by_their_colours_or_dashes() -> None:
    arms = [f"arm {number}" for number in range(20)]
    channels = curve_channels(arms, arms)
    ranges = [channels[name]["scale"]["range"] for name in ("color", "strokeDash")]
    assert len(set(zip(*ranges, strict=True))) == 20
    trade = by_arm(arms, arms, SHAPES, {})["scale"]["range"]
    assert len(set(zip(ranges[0], trade, strict=True))) == 20
