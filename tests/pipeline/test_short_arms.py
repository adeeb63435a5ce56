"""Arms that end at their labels or at their reward: what comes after is left out, and what there is is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Context, PluginManager, Spec, SpecError, Store, plan_spec
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.report.run_report import RunReport
from support.runs import execute

TASTE = {"kind": "ai", "labeler": "test/taste", "pairs": {"source": "task", "limit": 16}}
LABELS = {"feedback": TASTE}
REWARD = {
    "feedback": {**TASTE, "allow_weak_labels": True},
    "reward": {"kind": "bradley-terry", "model": "base", "lr": 1e-3, "batch_size": 8},
}
POLICY = {"reward": "test/taste", "algorithm": {"kind": "best-of-n", "n": 2}}


def steps_of(spec: Spec, manager: PluginManager) -> list[str]:
    return [step.name for step in compose(spec, Context.from_spec(spec, manager))]


def test_an_arm_of_labels_has_no_baseline_gate_or_policy(
    tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    spec = tiny_spec(arms={"a": LABELS}, evaluate={"comparisons": 4})
    expected = ["a/pairs", "a/labels", "evaluation/labels/a", "evaluation/summary"]
    assert steps_of(spec, manager) == expected
    assert [step.name for step in plan_spec(spec, Store(tmp_path), manager)] == expected


def test_an_arm_of_a_reward_trains_from_what_it_names(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    arm = [f"evaluation/{part}/a" for part in ("labels", "margins")]
    spec = tiny_spec(arms={"a": REWARD}, evaluate={"comparisons": 4})
    assert steps_of(spec, manager) == ["a/pairs", "a/labels", "a/reward", *arm, "evaluation/summary"]
    reward = {**REWARD, "reward": {"kind": "bradley-terry"}}
    assert steps_of(tiny_spec(arms={"a": reward}, evaluate=None), manager)[0] == "sft"
    sampled = {"feedback": {**TASTE, "pairs": {"source": "policy", "prompts": 2}}}
    assert steps_of(tiny_spec(arms={"a": sampled}, evaluate=None), manager) == ["sft", "a/pairs", "a/labels"]
    existing = tiny_spec(arms={"a": {"reward": "length"}}, evaluate=None)
    assert steps_of(existing, manager) == ["a/reward"], "an existing reward cannot be measured alone"


def test_only_arms_with_a_policy_are_compared(tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    spec = tiny_spec(arms={"a": LABELS, "b": POLICY}, evaluate={"judge": "length", "prompts": 2})
    assert spec.matchups() == [("b", "sft")]
    names = steps_of(spec, manager)
    assert "evaluation/responses/b" in names
    assert "evaluation/responses/a" not in names
    assert names[0] == "sft"


def test_short_arms_run_alone_and_are_reported(
    tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    spec = tiny_spec(arms={"labels": LABELS, "model": REWARD}, evaluate={"comparisons": 8}, sft=None)
    execute(spec, tmp_path / "run", manager)
    report = RunReport.read(tmp_path / "run")
    evaluation = report.evaluation
    assert evaluation.policies == {}
    assert (evaluation.wins, evaluation.samples, evaluation.prompts) == ([], [], 0)
    assert list(evaluation.labelers) == ["labels"], "both arms have the same labeler"
    assert evaluation.arms["labels"].reward is None
    reward = evaluation.arms["model"].reward
    assert reward is not None
    assert reward.accuracy_gold is not None
    assert reward.loss
    assert (reward.sft, reward.policy, reward.gain) == (None, None, None)
    assert any(line.startswith("reward model of model: accuracy on held-out pairs") for line in report.summary)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "no policy is evaluated" in page
    assert "Win rates" not in page
    assert "Policies" not in page
    assert not (tmp_path / "run/sft").exists()
    steps = json.loads((tmp_path / "run/run.json").read_text())["steps"]
    assert "labels/policy" not in steps


def test_a_short_arm_beside_a_whole_one_is_reported(
    tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    evaluate = {"judge": "length", "prompts": 2, "comparisons": 4}
    execute(tiny_spec(arms={"a": LABELS, "b": POLICY}, evaluate=evaluate, sft=None), tmp_path / "run", manager)
    evaluation = RunReport.read(tmp_path / "run").evaluation
    assert set(evaluation.arms) == {"a", "b"}
    assert set(evaluation.policies) == {"sft", "b", "reference"}
    assert [(win.first, win.second) for win in evaluation.wins] == [("b", "sft")]


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({}, "arms.a: the arm is empty: set 'feedback' for labels, also 'reward' for a reward model, and 'algorithm'"),
        ({"reward": "bradley-terry"}, "reward 'bradley-terry' is trained on preferences: set the arm's 'feedback'"),
        ({**LABELS, "reward": "length"}, "reward 'length' uses no preferences: remove the arm's 'feedback'"),
        ({**LABELS, "rounds": 2}, "rounds: every round trains a policy; set the arm's 'algorithm', or remove 'rounds'"),
    ],
    ids=["empty", "no-feedback", "unused-feedback", "rounds"],
)
def test_a_short_arm_that_makes_no_sense_is_an_error(
    arm: dict[str, Any], expected: str, tiny_spec: Callable[..., Spec]
) -> None:
    with pytest.raises(SpecError) as raised:
        tiny_spec(arms={"a": arm})
    assert expected in str(raised.value)


def test_a_matchup_with_an_arm_without_a_policy_is_an_error(tiny_spec: Callable[..., Spec]) -> None:
    with pytest.raises(SpecError, match=r"evaluate.matchups: arm 'a' has no 'algorithm', so it trains no policy"):
        tiny_spec(arms={"a": LABELS}, evaluate={"judge": "length", "matchups": [["a", "sft"]]})
