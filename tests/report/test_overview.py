"""The first screen of a report: verdict, leaderboard and grouped warnings."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rlaif_framework.metrics.evaluation import Evaluation, PairedDifference
from rlaif_framework.report.cautions import HEADLINES, Caution, group_cautions
from rlaif_framework.report.hacking import find_hacking
from rlaif_framework.report.leaderboard import (
    Cost,
    Costs,
    build_leaderboard,
    format_dollars,
    format_seconds,
    sum_by_arm,
)
from rlaif_framework.report.run_report import RunReport, StepReport
from rlaif_framework.report.verdict import write_verdict
from support.evaluations import ARM, EVALUATION, POLICY, REWARD, SPEC, build_report, correction, estimate, labeler, win
from support.pages import read_text

ARMS = {"rlaif": ARM, "direct": {**ARM, "labeler": None}, "dpo": {**ARM, "reward": None}}


def evaluate(**changes: Any) -> Evaluation:
    return Evaluation.model_validate({**EVALUATION, **changes})


def several(**rates: dict[str, float] | None) -> Evaluation:
    """Arms with these win rates against sft."""
    wins = [{**win(rate, None), "first": arm} for arm, rate in rates.items()]
    policies = dict.fromkeys(["sft", *rates], POLICY)
    return evaluate(arms={arm: ARMS[arm] for arm in rates}, wins=wins, policies=policies)


def test_the_verdict_is_the_best_arm_and_what_it_rests_on() -> None:
    found = write_verdict(several(rlaif=estimate(0.7), direct=estimate(0.4), dpo=estimate(0.52)))
    assert found == [
        "rlaif beats sft with a win rate of 70.0 % [65.0, 75.0], n=50 (length-adjusted: not measured); 1 of 3 arms is "
        "significantly better and 1 is significantly worse.",
        "The judge, rouge, agrees with human gold preferences on 65.0 % [60.0, 70.0], n=50; the held-out reward of "
        "rlaif changed by +0.4 [0.3, 0.5].",
    ]


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (estimate(0.7), "rlaif beats sft with a win rate of 70.0 %"),
        (estimate(0.52), "No arm is significantly better than sft: the highest win rate is rlaif's, 52.0 %"),
        (estimate(0.3), "a significant loss."),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(rate: dict[str, float], words: str) -> None:
    first, _ = write_verdict(several(rlaif=rate))
    assert words in first
    assert ("beats" in first) == (rate["low"] > 0.5)


def test_the_verdict_says_what_cannot_be_judged() -> None:
    unknown = {**EVALUATION["labelers"], "judge": labeler("rouge", None)}
    _, grounds = write_verdict(evaluate(labelers=unknown))
    assert grounds.startswith("The judge, rouge, could not be compared with gold preferences; the held-out reward")
    chance = {**EVALUATION["labelers"], "judge": labeler("rouge", estimate(0.52))}
    assert "not measurably better than chance" in write_verdict(evaluate(labelers=chance))[1]
    flat = {**ARM, "reward": {**REWARD, "gain": estimate(0.02)}}
    (only,) = write_verdict(evaluate(wins=[], judges={}, arms={"rlaif": flat}))
    assert only.startswith(
        "No win rate is measured; the held-out reward of rlaif changed by +0.02 [-0.03, 0.07], which"
    )
    without = {**ARM, "reward": {**REWARD, "gain": None}}
    labels, rewards = write_verdict(evaluate(wins=[], differences=[], arms={"rlaif": without}, policies={}))
    assert labels == "Of the labelers, rlaif agrees most with the gold preferences: 72.0 % [67.0, 77.0], n=50."
    assert rewards.startswith("Of the rewards, that of rlaif is the most accurate on held-out pairs: 70.0 %")


def test_human_labels_are_part_of_the_verdict() -> None:
    corrected = {**win(estimate(0.7), None), "corrected": correction(0.58, estimate(0.12))}
    assert (
        "corrected by 80 human labels, the win rate is 58.0 % [52.0, 64.0]"
        in write_verdict(evaluate(wins=[corrected]))[1]
    )


def test_the_leaderboard_ranks_arms_and_marks_what_is_significant() -> None:
    rates = several(dpo=estimate(0.52), direct=None, rlaif=estimate(0.7))
    found = build_leaderboard(rates, Costs(Cost({"rlaif": 61.0})))
    assert found.policies == ["rlaif", "dpo", "direct", "sft"]
    columns = {column.title: column.cells for column in found.columns}
    assert list(columns) == [
        "wins against sft",
        "held-out reward",
        "KL",
        "labels' agreement",
        "reward accuracy, gold",
        "tokens",
        "EOS rate",
        "time",
    ]
    wins = columns["wins against sft"]
    assert {name: (cell.text, cell.interval, cell.mark) for name, cell in wins.items()} == {
        "rlaif": ("70.0 %", "[65, 75]", "better"),
        "dpo": ("52.0 %", "[47, 57]", ""),
    }
    assert columns["KL"]["rlaif"].value == 0.1  # of the last step that has one
    assert set(columns["held-out reward"]) == {"direct", "rlaif"}
    assert columns["time"]["rlaif"].text == "1 min 01 s"
    assert [column.title for column in found.columns if not column.marking] == ["KL"]


def test_the_accuracy_of_a_reward_says_by_which_preferences() -> None:
    own = {**REWARD, "accuracy_gold": None, "accuracy_labeler": estimate(0.9)}
    found = build_leaderboard(evaluate(arms={"rlaif": ARM, "own": {**ARM, "reward": own}}), Costs())
    columns = {column.title: column.cells for column in found.columns if column.title.startswith("reward")}
    assert {title: {name: cell.text for name, cell in cells.items()} for title, cells in columns.items()} == {
        "reward accuracy, gold": {"rlaif": "70.0 %"},
        "reward accuracy, own labels": {"own": "90.0 %"},
    }


def test_a_policy_without_any_number_has_no_row() -> None:
    assert build_leaderboard(evaluate(), Costs()).policies == ["rlaif", "sft"]
    against = evaluate(wins=[{**win(estimate(0.7), None), "first": "reference"}])
    assert build_leaderboard(against, Costs()).policies == ["rlaif", "sft", "reference"]


def test_the_kl_of_an_algorithm_that_logs_none_is_its_bound() -> None:
    arms = {"rlaif": {**ARM, "kl_bound": 1.2}, "best-of-n": {**ARM, "curve": [], "kl_bound": 1.2}}
    found = build_leaderboard(evaluate(arms=arms), Costs())
    (column,) = (column for column in found.columns if column.title == "KL")
    assert {name: (cell.text, cell.value) for name, cell in column.cells.items()} == {
        "rlaif": ("0.1", 0.1),
        "best-of-n": ("\u2264 1.2", 1.2),
    }


def test_the_kl_is_that_of_the_policy_that_was_kept() -> None:
    curve = [{"step": step, "kl_k1": float(10 * step - 10)} for step in (1, 2, 3, 4)]
    checkpoints = [
        {"step": step, "kl": estimate(kl), "reward": None, "win_rate": None, "judge": None}
        for step, kl in ((2, 21.0), (4, 43.0))
    ]
    # The alarm keeps a policy without measuring its KL: the responses of step 2 are those of the policy after step 1.
    kept: dict[str, dict[str, Any]] = {
        "rlaif": {},
        "selected": {"selected_step": 2, "checkpoints": checkpoints},
        "alarm": {"selected_step": 1},
        "initial": {"selected_step": 0},
    }
    found = evaluate(arms={name: {**ARM, "curve": curve, **changes} for name, changes in kept.items()})
    assert {name: arm.find_kl() for name, arm in found.arms.items()} == {
        "rlaif": 30.0,
        "selected": 21.0,
        "alarm": 10.0,
        "initial": 0.0,
    }
    (column,) = (column for column in build_leaderboard(found, Costs()).columns if column.title == "KL")
    assert column.cells["selected"].text == "21"


def test_metrics_are_marked_by_the_difference_on_the_same_prompts() -> None:
    changes = {"tokens": estimate(4.0), "eos_rate": estimate(-0.2)}
    differences = [{"first": "rlaif", "second": "sft", "metrics": changes}]
    found = build_leaderboard(evaluate(differences=differences), Costs())
    marks = {c.title: c.cells["rlaif"].mark for c in found.columns if c.title in ("tokens", "EOS rate")}
    assert marks == {"tokens": "higher", "EOS rate": "worse"}


def test_a_win_rate_is_found_whichever_policy_is_first() -> None:
    found = evaluate(wins=[win(estimate(0.7), None, ties=3)]).find_win("judge", "sft", "rlaif")
    assert found is not None
    assert found.rate is not None
    assert [found.rate.value, found.rate.low, found.rate.high] == pytest.approx([0.3, 0.25, 0.35])
    assert found.ties == 3


def test_labels_of_language_models_have_their_tokens_and_cost_in_the_leaderboard() -> None:
    facts: dict[str, float | int | str] = {"prompt_tokens": 12000, "generated_tokens": 345, "cost": 0.0213}
    steps = [
        StepReport(name=name, reused=False, seconds=1.0, peak_memory_bytes=0, facts=own)
        for name, own in (("rlaif/labels", facts), ("dpo/labels", {"cost": 0.0}), ("evaluation/labels/llm", facts))
    ]
    evaluation = several(dpo=estimate(0.52), rlaif=estimate(0.7))
    report = RunReport.build(SPEC, evaluation, steps, {})
    board = report._build_leaderboard()
    cells = {column.title: column.cells for column in board.columns if column.title.startswith("label ")}
    assert {title: {name: cell.text for name, cell in own.items()} for title, own in cells.items()} == {
        "label tokens": {"rlaif": "12,345"},  # the labeler of dpo is no language model
        "label cost": {"rlaif": "$0.021"},
    }
    totals = {column.title: column.total for column in board.columns if column.total}
    assert totals == {"label tokens": "24,690", "label cost": "$0.043", "time": "3.0 s"}  # those of the judge included
    assert read_text(report.render()).count("whole run24,690$0.0433.0 s") == 1
    assert report.render_markdown().count("| whole run |  |") == 1
    assert [format_dollars(x) for x in (0.00012, 1.5, 1234.5)] == ["$0.00012", "$1.50", "$1,234.50"]


def test_win_rates_against_the_reference_are_adjusted_for_length_too() -> None:
    wins = [win(estimate(0.7), estimate(0.6)), {**win(estimate(0.4), estimate(0.3)), "second": "reference"}]
    columns = {c.title: c.cells for c in build_leaderboard(evaluate(wins=wins), Costs()).columns}
    assert columns["length-adjusted"]["rlaif"].text == "60.0 %"
    assert columns["wins against reference"]["rlaif"].text == "40.0 %"
    assert columns["length-adjusted against reference"]["rlaif"].text == "30.0 %"


def test_the_time_of_an_arm_is_that_of_its_own_stages() -> None:
    steps = [("sft", 1.0), ("rlaif/labels", 2.0), ("rlaif/round-1/policy", 3.0), ("rlaif-2/policy", 4.0)]
    assert sum_by_arm(steps, ["rlaif", "rlaif-2"]) == {"rlaif": 5.0, "rlaif-2": 4.0}
    assert [format_seconds(x) for x in (0.25, 59.94, 60, 7500)] == ["0.2 s", "59.9 s", "1 min 00 s", "2 h 05 min"]


def test_warnings_are_grouped_and_at_most_five_kinds_are_open() -> None:
    cautions = [Caution(kind, f"arm-{i}", f"{kind} {i}") for kind in reversed(HEADLINES) for i in range(2)]
    texts = [caution.text for caution in cautions]
    groups = group_cautions(cautions, [*texts, "from elsewhere"])
    assert [group.headline for group in groups] == list(HEADLINES.values())
    assert groups[0].about == ["arm-1", "arm-0"] or groups[0].about == ["arm-0", "arm-1"]
    assert groups[-1].texts == ["run 0", "run 1", "from elsewhere"]
    assert group_cautions(cautions, []) == []


def test_every_warning_is_on_the_page_once() -> None:
    changes: dict[str, Any] = {
        "wins": [win(estimate(0.7), estimate(0.52)), {**win(estimate(0.5), None), "first": "reference"}],
        "longer_is_better": estimate(0.8),
        "policies": {
            **EVALUATION["policies"],
            "rlaif": {**POLICY, "eos_rate": estimate(0.1), "copy_rate": estimate(0.6)},
        },
        "labelers": {**EVALUATION["labelers"], "judge": labeler("rouge", estimate(0.5), "synthetic")},
    }
    found = build_report(**changes)
    assert len(found.warnings) == 7
    page = found.render()
    section = page[page.index('class="warnings"') :].partition("</section>")[0]
    shown = read_text(section)
    assert [shown.count(text) for text in found.warnings] == [1] * 7
    assert len(re.findall(r"more kinds? of warning", shown)) == 1


def test_the_best_arm_is_a_significantly_better_one_if_there_is_any() -> None:
    first, _ = write_verdict(several(dpo=estimate(0.8, 0.35, 5), rlaif=estimate(0.7)))
    assert first.startswith("rlaif beats sft with a win rate of 70.0 % [65.0, 75.0]")
    assert first.endswith("1 of 2 arms is significantly better.")


def test_a_matchup_means_the_same_in_either_order() -> None:
    changes = {"tokens": estimate(30.0), "eos_rate": estimate(-0.2), "rougeL": estimate(-0.05, 0.01)}
    fixed = correction(0.3, estimate(0.1))
    stated = evaluate(
        wins=[{**win(estimate(0.3), estimate(0.35)), "corrected": fixed}],
        differences=[{"first": "rlaif", "second": "sft", "metrics": changes}],
    )
    turned = stated.model_copy(
        update={
            "wins": [found.flip() for found in stated.wins],
            "differences": [
                PairedDifference(
                    first="sft",
                    second="rlaif",
                    metrics={name: change.negate() for name, change in stated.differences[0].metrics.items()},
                )
            ],
        }
    )
    assert turned.wins[0].first == "sft"
    assert turned.find_win("judge", "rlaif", "sft") is not None
    boards = [build_leaderboard(found, Costs()) for found in (stated, turned)]
    columns = [{column.title: column.cells for column in board.columns} for board in boards]
    assert {"corrected by people", "wins against sft"} < set(columns[0])
    shown = [
        {(title, name): (cell.text, cell.mark) for title, cells in own.items() for name, cell in cells.items()}
        for own in columns
    ]
    assert shown[0] == shown[1]
    assert find_hacking("rlaif", stated) == find_hacking("rlaif", turned) != []
    assert write_verdict(stated) == write_verdict(turned)
