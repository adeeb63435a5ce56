"""The report says what was measured, and says it when a number did not improve."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import DataError, PluginManager
from rlaif_framework.files import read_own
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.report.results import list_results
from rlaif_framework.report.run_report import RunReport, StepReport
from rlaif_framework.report.verdict import write_verdict
from support.evaluations import ARM, EVALUATION, POLICY, REWARD, SPEC, correction, estimate, labeler, win
from support.evaluations import build_report as report
from support.pages import read_text, strip_assets

UNREADABLE = labeler("x", None)
UNREADABLE["quality"] |= {"unparsed": estimate(1.0, 0.0)}
PARTLY_READABLE = labeler("x", estimate(0.7))
PARTLY_READABLE["quality"] |= {"unparsed": estimate(0.4)}


def by_judges(**judges: dict[str, Any]) -> dict[str, Any]:
    return {"judges": {"judge": {"kind": "rouge"}, **judges}}


def test_win_rates_that_human_labels_correct_are_shown_beside_the_judges() -> None:
    corrected = {**win(estimate(0.7), None), "corrected": correction(0.58, estimate(0.12, 0.05))}
    found = report(wins=[corrected], human_labels=80)
    assert (
        "rlaif against sft, corrected by 80 human labels: win rate 58.0 % [52.0, 64.0], n=300; from the labels alone "
        "58.0 % [49.0, 67.0], n=80; the judge agrees with them on 80.0 % [75.0, 85.0], n=70; its bias towards rlaif is "
        "+12.0 points [+7.0, +17.0]" in found.summary
    )
    page = read_text(found.render())
    for text in ("Corrected by human labels", "58.0 % [52, 64] n=300", "+12.0 points [+7.0, +17.0]"):
        assert text in page
    assert "corrected by human labels</th>" in found._repr_html_()
    assert "58.0 % [52, 64] n=300" in found._repr_html_()
    results = list_results(found.evaluation)
    assert results["win_rate_corrected/rlaif-vs-sft"] == 0.58
    plain = report()
    assert "human labels" not in read_text(plain.render())
    assert "human labels" not in plain._repr_html_()


def test_win_rates_at_equal_kl_are_a_finding() -> None:
    rates = {"rlaif": estimate(0.62), "direct": estimate(0.7)}
    found = report(equal_kl={"kl": 3.456, "judge": "rouge", "win_rates": rates})
    assert (
        "at equal KL from the baseline, 3.46 nats, win rates against it on the validation prompts: rlaif 62.0 % [57.0, "
        "67.0], n=50; direct 70.0 % [65.0, 75.0], n=50; judge rouge, interpolated between checkpoints" in found.summary
    )
    assert "at equal KL" not in "\n".join(report().summary)


def test_human_labels_that_contradict_the_judge_are_warned_of() -> None:
    def warn(rate: float, bias: dict[str, float], **changes: Any) -> str:
        wins = [{**win(estimate(0.7), None), "corrected": correction(rate, bias)}]
        return "\n".join(report(wins=wins, human_labels=80, **changes).warnings)

    unbiased = estimate(0.01, 0.05)
    assert "human labels" not in warn(0.6, unbiased)
    assert "human labels do not confirm the difference: corrected 52.0 %" in warn(0.52, unbiased)
    assert "human labels do not confirm the difference: corrected 40.0 %" in warn(0.4, unbiased)
    assert (
        "compared with human labels, the judge favours rlaif (bias towards rlaif +12.0 points [+7.0, +17.0]); use the "
        "corrected win rate" in warn(0.58, estimate(0.12, 0.05))
    )
    assert "the judge favours sft (bias towards rlaif -12.0 points" in warn(0.8, estimate(-0.12, 0.05))
    assert "5 of 80 human labels are not used" in warn(0.6, unbiased, unused_labels=5)
    without = "\n".join(report(human_labels=80, unused_labels=80).warnings)
    assert "rlaif against sft: no human label is of these responses, so the win rate is not corrected" in without


def test_the_page_shows_every_measurement() -> None:
    page = report().render()
    shown = read_text(page)
    for text in (
        "rlaif against sft",
        "72.0 % [67, 77] n=50",
        "61.0 % [56, 66] n=50",
        "too-long",
        "91.0 %",
        "prompts_truncated 2",
        "1.00 GiB",
        "0.031 [0.021, 0.041]",
    ):
        assert text in shown, text
    inert = strip_assets(page)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", inert), "the page must ask for nothing"
    assert "<svg" not in inert


def test_the_least_certain_labels_of_a_labeler_can_be_read() -> None:
    example = {
        "id": "p7",
        "prompt": "<b>POST</b>",
        "responses": ["one", "two"],
        "probabilities": [0.51, 0.49],
        "human": 1.0,
        "votes": {},
        "principle": None,
        "rationales": [[], ["why two"]],
    }
    judge = {**EVALUATION["labelers"]["judge"], "uncertain": [example]}
    page = report(labelers={**EVALUATION["labelers"], "judge": judge}).render()
    shown = read_text(page)
    assert "Least certain labels" in shown
    assert "judgep7<b>POST</b> 0.510 gold 1 one0.490 gold 0 tworationale, swapped why two" in shown
    assert "<b>POST" not in strip_assets(page)
    assert "Least certain labels" not in read_text(report().render())


def test_samples_cannot_run_as_html() -> None:
    page = strip_assets(report().render())
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page
    assert "a &amp; b" in page


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (estimate(0.4, 0.1), "a significant increase"),
        (estimate(0.05, 0.1), "NO significant increase"),
        (estimate(-0.4, 0.1), "a significant DECREASE"),
    ],
)
def test_the_summary_says_whether_the_reward_rose(gain: dict[str, float], words: str) -> None:
    arms = {"rlaif": {**ARM, "reward": {**REWARD, "gain": gain}}}
    assert any(words in line for line in report(arms=arms).summary)


def test_what_could_not_be_measured_is_said_in_summary_and_page() -> None:
    judge = {**EVALUATION["labelers"], "judge": UNREADABLE}
    empty = {"sft": POLICY, "rlaif": {**POLICY, "empty_rate": estimate(1.0, 0.0)}}
    made = report(wins=[{**win(None, None), "unread": 3, "empty": 1}], labelers=judge, policies=empty)
    summary = "\n".join(made.summary)
    assert "labeler judge, x: no answer could be read as a label" in summary
    assert "win rate not measured, 0 ties, unread verdicts: 3, pairs of empty responses: 1" in summary
    assert "empty responses of rlaif: 100.0 %" in summary
    assert "<td>not measured</td>" in made.render()


def test_a_good_run_has_no_warnings() -> None:
    assert report().warnings == []


def test_a_low_mass_on_the_label_tokens_is_told() -> None:
    low, fine = labeler("llm", estimate(0.7)), labeler("similarity", estimate(0.65))
    low["quality"]["label_token_mass"] = estimate(0.06)
    fine["quality"]["label_token_mass"] = estimate(0.2)
    arm = EVALUATION["arms"]["rlaif"]
    curve = [{"step": 1, "reward/label_token_mass": 0.05}, {"step": 2, "reward/label_token_mass": 0.03}]
    made = report(
        labelers={**EVALUATION["labelers"], "rlaif": low, "judge": fine}, arms={"rlaif": {**arm, "curve": curve}}
    )
    found = [text for text in made.warnings if "probability mass on the label tokens" in text]
    assert [text.partition(" mostly")[0] for text in found] == [
        "'rlaif'",
        "the reward of 'rlaif' (reward/label_token_mass)",
    ]
    assert found[1].endswith("is 0.04")


def test_every_win_rate_names_its_judge_and_the_judges_own_agreement() -> None:
    """Judge and labeler may be of one kind: their settings tell them apart."""
    judge = labeler("similarity", estimate(0.65), settings=" (against: reference)")
    made = report(labelers={**EVALUATION["labelers"], "judge": judge})
    (line,) = [line for line in made.summary if "against sft" in line]
    assert "judge similarity (against: reference), whose own agreement is 65.0 %" in line
    assert any(line.startswith("labeler rlaif, similarity, agrees") for line in made.summary)
    page = made.render()
    row = read_text(page[page.index("<td>rlaif</td><td>sft</td>") :].partition("</tr>")[0])
    assert "similarity (against: reference)" in row
    assert "65.0 % [60, 70] n=50" in row


def test_every_judge_and_the_difference_of_every_metric_is_reported() -> None:
    other = {**win(estimate(0.55), None), "judge": "llm"}
    made = report(**by_judges(llm={"kind": "llm"}), wins=[*EVALUATION["wins"], other])
    assert [line.split("; judge ")[1] for line in made.summary if "against sft" in line] == [
        "rouge, whose own agreement is 65.0 % [60.0, 70.0], n=50",
        "llm, whose own agreement is 45.0 % [40.0, 50.0], n=50",
    ]
    assert "rlaif minus sft, paired by prompt: rougeL +0.031 [+0.021, +0.041]" in made.summary
    assert made.render().count("<td>rlaif</td><td>sft</td>") == 3


def test_metrics_of_the_evaluation_are_compared_over_the_policies() -> None:
    measured = {
        "sft": {**POLICY, "harmless_rate": estimate(0.64), "harmless_score": estimate(0.2)},
        "rlaif": {**POLICY, "harmless_rate": estimate(0.88), "harmless_score": None},
    }
    summary = report(policies=measured, metrics=["harmless_rate", "harmless_score"]).summary
    assert "harmless rate: sft 64.0 % [59.0, 69.0], n=50; rlaif 88.0 % [83.0, 93.0], n=50" in summary
    assert "harmless score: sft 0.2 [0.15, 0.25]; rlaif -" in summary


def test_a_rate_over_several_observations_of_a_prompt_says_so() -> None:
    rate = {**estimate(0.7), "count": 600, "clusters": 100}
    made = report(wins=[win(rate, None)], responses=6)
    assert any("win rate 70.0 % [65.0, 75.0], n=600 on 100 prompts" in line for line in made.summary)
    assert "50 test prompts with 6 responses each" in made.render()


def test_a_title_is_the_kind_with_what_is_not_the_default(manager: PluginManager) -> None:
    llm = {"kind": "llm", "backend": {"kind": "transformers", "model": "m"}, "strategy": {"kind": "direct"}}
    for given, expected in [
        ("similarity", "similarity"),
        ({"kind": "similarity", "against": "reference"}, "similarity (against: reference)"),
        (llm, "llm (backend: transformers (model: m))"),
        ({"kind": "mix", "labeler": "rouge", "proportion": 0.5}, "mix (labeler: rouge, proportion: 0.5)"),
        ({"kind": "ensemble", "labelers": {"a": "rouge"}}, "ensemble (labelers: {a: rouge})"),
    ]:
        assert narrow("labeler", given, manager).title == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"labelers": {**EVALUATION["labelers"], "rlaif": labeler("x", estimate(0.52))}},
            "not measurably better than chance",
        ),
        (
            {"labelers": {**EVALUATION["labelers"], "rlaif": labeler("x", None)}, "gold_comparisons": 0},
            "the validation split has no comparisons with gold preferences",
        ),
        (
            {"labelers": {**EVALUATION["labelers"], "llm": labeler("llm", estimate(0.6), "synthetic")}},
            "preferences are synthetic",
        ),
        (by_judges(judge={"kind": "similarity", "model": "package:mini"}), "THE JUDGE IS THE LABELER"),
        (by_judges(judge={"kind": "similarity", "model": "package:mini", "against": "reference"}), "share a model"),
        (by_judges(llm={"kind": "similarity", "model": "package:mini"}), "THE JUDGE 'llm' IS THE LABELER"),
        (by_judges(llm={"kind": "llm", "model": "package:mini"}), "judge 'llm' and labeler of arm 'rlaif' share"),
        (by_judges(llm={"kind": "llm"}), "'llm' agrees with the gold preferences not measurably better than chance"),
        ({"wins": [{**win(estimate(0.52), None), "judge": "llm"}]}, "rlaif against sft by llm: no significant"),
        (
            {"labelers": {**EVALUATION["labelers"], "rlaif": UNREADABLE}},
            "'rlaif' is unknown: no answer could be read as a label on the 50 validation comparisons (unparsed 100%",
        ),
        (
            {"labelers": {**EVALUATION["labelers"], "rlaif": PARTLY_READABLE}},
            "the answers of 'rlaif' could not be read on 40.0 %",
        ),
        (
            {"wins": [{**win(None, None), "unread": 4}]},
            "not measured: the judge's verdict could not be read on any of 4 pairs",
        ),
        ({"wins": [{**win(None, None), "empty": 4}]}, "not measured: all responses of both are empty"),
        ({"wins": [{**win(estimate(0.7), None), "unread": 10}]}, "verdict could not be read on 10 of 60 pairs"),
        ({"wins": [{**win(estimate(0.7), None), "lengths_overlap": False}]}, "the longer response on every prompt"),
        ({"policies": {"sft": POLICY, "rlaif": {**POLICY, "empty_rate": estimate(1.0)}}}, "all responses of 'rlaif'"),
        (
            {"policies": {"sft": {**POLICY, "empty_rate": estimate(0.3)}, "rlaif": POLICY}},
            "30% of the responses of 'sft'",
        ),
        ({"wins": [win(estimate(0.52), None)]}, "no significant difference"),
        ({"wins": [win(estimate(0.7), estimate(0.52))]}, "may be due to length"),
        ({"wins": [win(estimate(0.3), estimate(0.7))]}, "may be due to length"),
        (
            {"longer_is_better": estimate(0.71)},
            "no more accurate on held-out pairs than always picking the longer response (71%)",
        ),
        ({"longer_is_better": estimate(0.2)}, "than always picking the shorter response (80%)"),
        ({"policies": {"sft": POLICY, "rlaif": {**POLICY, "copy_rate": estimate(0.6)}}}, "copies more"),
        ({"policies": {"sft": POLICY, "rlaif": {**POLICY, "tokens": estimate(47.0)}}}, "length limit"),
        ({"policies": {"sft": POLICY, "rlaif": {**POLICY, "eos_rate": estimate(0.2)}}}, "no end-of-sequence token"),
    ],
)
def test_what_a_reader_should_doubt_is_said(changes: dict[str, Any], words: str) -> None:
    assert any(words in line for line in report(**changes).warnings)


def test_missing_measurements_are_shown_as_missing() -> None:
    reward = {**REWARD, "accuracy_gold": None, "accuracy_labeler": None, "calibration": None, "lengths": [], "loss": []}
    made = report(
        {**SPEC, "arms": {"bare": {}}},
        arms={"bare": {"labeler": None, "reward": reward, "curve": []}},
        policies={"sft": POLICY, "bare": POLICY},
        wins=[{**win(None, None), "first": "bare"}],
        differences=[],
        labelers={"judge": labeler("rouge", None)},
    )
    assert "not measured" in " ".join(made.summary)
    assert "bare against sft" in " ".join(made.summary)
    assert not any(line.startswith("reward of bare: accuracy") for line in made.summary)
    assert "of own" not in read_text(made.render())


def test_a_reward_that_is_not_trained_is_no_reward_model() -> None:
    reward = {**REWARD, "accuracy_labeler": None}
    made = report(arms={"rlaif": {**ARM, "labeler": None, "reward": reward}})
    assert any(line.startswith("reward of rlaif: accuracy on held-out pairs 70.0 %") for line in made.summary)


def test_accuracies_against_gold_preferences_and_against_labels_are_two_results() -> None:
    both = list_results(report().evaluation)
    assert (both["reward_accuracy/rlaif"], both["reward_accuracy_own_labels/rlaif"]) == (0.7, 0.75)
    without_gold = {**ARM, "reward": {**REWARD, "accuracy_gold": None}}
    results = list_results(report(arms={"rlaif": without_gold}).evaluation)
    assert [name for name in results if name.startswith("reward_accuracy") and name.endswith("rlaif")] == [
        "reward_accuracy_own_labels/rlaif"
    ]


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report().write(tmp_path)
    assert RunReport.read(tmp_path) == report()


@pytest.mark.parametrize(
    "arm",
    [
        {"reward": {"kind": "direct", "labeler": {"kind": "rate", "model": "m"}}, "algorithm": {"kind": "rloo"}},
        {"reward": None, "algorithm": {"kind": "online-dpo", "labeler": {"kind": "rate", "model": "m"}}},
    ],
)
def test_a_judge_that_a_policy_learned_from_without_labels_is_told(arm: dict[str, Any]) -> None:
    def about_judge(judge: dict[str, Any], arm: dict[str, Any]) -> list[str]:
        made = report({**SPEC, "arms": {"rlaif": {"feedback": None, **arm}}}, judges={"judge": judge})
        return [text for text in made.warnings if "judge" in text.lower()]

    (same,) = about_judge({"kind": "rate", "model": "m"}, arm)
    assert "THE JUDGE IS THE LABELER of arm 'rlaif'" in same
    rouge = {"kind": "rouge"}
    for made in ({"kind": "mix", "labeler": rouge}, {"kind": "ensemble", "labelers": {"x": rouge}}):
        (part,) = about_judge(rouge, {"feedback": {"labeler": made}, "reward": None, "algorithm": {"kind": "dpo"}})
        assert part.startswith("judge is part of the labeler of arm 'rlaif'")
    (shared,) = about_judge({"kind": "llm", "model": "m"}, arm)
    assert "share a model (m)" in shared
    judge = {"kind": "llm", "labeler": {"kind": "llm", "model": "m"}}
    selection = {"kind": "rloo", "checkpoint_selection": {"judge": judge}}
    assert about_judge({"kind": "llm", "model": "m"}, {"reward": None, "algorithm": selection}) == []


def test_requests_without_an_answer_are_stated_for_each_stage() -> None:
    facts: tuple[dict[str, int], ...] = ({"unanswered": 1}, {"unanswered": 0}, {"unanswered": 1200}, {})
    steps = [
        StepReport(name=f"stage {i}", reused=False, seconds=1.0, peak_memory_bytes=0, facts=dict(found))
        for i, found in enumerate(facts)
    ]
    known = report().warnings
    found = RunReport.build(SPEC, report().evaluation, steps, {}).warnings
    assert found[: len(known)] == known
    assert [text.partition(", because")[0] for text in found[len(known) :]] == [
        "stage 'stage 0' sent 1 request without an answer",
        "stage 'stage 2' sent 1,200 requests without an answer",
    ]


def differences(**metrics: dict[str, Any]) -> dict[str, Any]:
    return {"differences": [{"first": "rlaif", "second": "sft", "metrics": metrics}]}


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"wins": [win(estimate(0.3), None)]}, "win rate by judge rouge 30.0 % [25.0, 35.0], n=50"),
        (differences(rougeL=estimate(-0.02, 0.01)), "rougeL -0.02 [-0.03, -0.01] from 0.2"),
        (differences(eos_rate=estimate(-0.4)), "EOS rate -0.4 [-0.45, -0.35] from 0.9"),
        (differences(copy_rate=estimate(0.3)), "copy rate +0.3 [+0.25, +0.35] from 0.02"),
        (differences(tokens=estimate(15.0)), "tokens +15 [+14.9, +15.1] from 20"),
    ],
    ids=["judge", "ROUGE", "EOS rate", "copy rate", "length"],
)
def test_a_reward_that_rises_while_responses_get_worse_may_be_exploited(changes: dict[str, Any], sign: str) -> None:
    opening = "the reward of 'rlaif' rose by +0.4 [+0.3, +0.5], but may be exploited; against the baseline: "
    assert opening + sign in report(**changes).warnings
    assert (
        "changed by +0.4 [0.3, 0.5], but may be exploited (see the warnings)."
        in write_verdict(report(**changes).evaluation)[-1]
    )
    flat = {**ARM, "reward": {**REWARD, "gain": estimate(0.05, 0.1)}}
    for arm in (flat, {**ARM, "reward": None}):
        assert not any("exploited" in line for line in report(**changes, arms={"rlaif": arm}).warnings)
        assert not any("exploited" in line for line in write_verdict(report(**changes, arms={"rlaif": arm}).evaluation))


@pytest.mark.parametrize(
    "changes",
    [
        {"wins": [win(estimate(0.45), None)]},
        differences(rougeL=estimate(-0.02, 0.03), eos_rate=estimate(-0.1), copy_rate=estimate(0.2, 0.1)),
        differences(tokens=estimate(15.0), rougeL=estimate(0.03, 0.01)),
    ],
    ids=["no significant loss", "within the limits", "longer and better"],
)
def test_other_changes_are_no_sign_of_an_exploited_reward(changes: dict[str, Any]) -> None:
    assert not any("exploited" in line for line in report(**changes).warnings)


def test_slices_are_those_of_all_labelers() -> None:
    labelers = {"judge": labeler("reference-likelihood", None), "rlaif": labeler("similarity", estimate(0.7))}
    page = report(labelers=labelers).render()
    assert "Agreement by slice" in page
    assert '<th scope="row">too-long</th>' in page


def mutate(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a value with one key removed or renamed, at every depth, and where. Estimates are left as they are."""
    if isinstance(value, dict) and "count" not in value:
        for key, inner in value.items():
            rest = {name: other for name, other in value.items() if name != key}
            yield f"{path}.{key} removed", rest
            yield f"{path}.{key} renamed", {**rest, f"{key}-x": inner}
            for place, changed in mutate(inner, f"{path}.{key}"):
                yield place, {**value, key: changed}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            for place, changed in mutate(inner, f"{path}.{number}"):
                yield place, [*value[:number], changed, *value[number + 1 :]]


def test_an_evaluation_without_a_key_has_a_report_or_is_refused_in_one_line(tmp_path: Path) -> None:
    labelers = {name: EVALUATION["labelers"][name] for name in ("judge", "rlaif")}
    wins = [*EVALUATION["wins"], {**win(estimate(0.6), None), "judge": "rlaif"}]
    checkpoint = {"step": 1, "kl": estimate(1.0), "reward": None, "win_rate": estimate(0.6), "judge": "rouge"}
    more = {"wins": wins, "arms": {"rlaif": {**ARM, "checkpoints": [checkpoint]}}, "metrics": ["rougeL"]}
    policies = {"sft": {"tokens": estimate(9)}, "rlaif": {"tokens": estimate(9), "eos_rate": estimate(1)}}
    evaluation = {**EVALUATION, **by_judges(rlaif={"kind": "llm"}), "labelers": labelers, "policies": policies, **more}
    path = tmp_path / "evaluation.json"
    refused, accepted = set(), set()
    for place, changed in [(".", evaluation), *mutate(evaluation)]:
        path.write_text(json.dumps(changed))
        try:
            found = read_own(Evaluation, path, 2**20, "rerun the spec")
        except DataError as error:
            refused.add(place)
            message = str(error)
            assert re.fullmatch(rf"{path} is damaged: [^\n]+; rerun the spec", message), place
        else:
            accepted.add(place)
            RunReport.build(SPEC, found, [], {}).write(tmp_path)
    named = ("judges.judge", "judges.rlaif", "labelers.judge", "labelers.rlaif", "arms.rlaif", "policies.sft")
    for place in (*named, "policies.rlaif"):
        assert f".{place} renamed" in refused, place
    assert accepted >= {".", ".judges.rlaif removed", ".policies.rlaif.tokens removed"}
