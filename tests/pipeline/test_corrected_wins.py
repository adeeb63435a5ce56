"""Pairs of a run go to annotators, and their labels correct its win rates."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlaif_framework import DataError, Family, PluginManager, Spec, SpecError, Store, plan_family, plan_spec
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.pipeline.sample_sizes import describe_labels
from rlaif_framework.progress import Progress
from rlaif_framework.report.run_report import RunReport
from rlaif_framework.spec.loading import resolve_spec
from support.fake_plugins import write_rows
from support.runs import execute, run_rows


def test_labels_of_the_pairs_of_a_run_correct_its_win_rate_and_compute_nothing_else_again(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    rows = run_rows(run_folder / "evaluation/summary/pairs/rlaif-vs-sft.jsonl")
    before = Evaluation.load(run_folder / "evaluation/summary")
    responses = {name: _read_responses(run_folder, name) for name in ("rlaif", "sft")}
    assert rows
    for row in rows:  # people prefer the arm, whatever the judge says
        assert row["label"] is None
        row["label"] = "a" if row["response_a"] in responses["rlaif"] else "b"
    stranger = {"prompt": "p", "response_a": "not there", "response_b": "neither", "label": "a"}
    write_rows(tmp_path / "labels.jsonl", [*rows, stranger])
    evaluate = {**tiny_spec().model_dump(mode="json")["evaluate"], "human_labels": str(tmp_path / "labels.jsonl")}
    store = run_folder.parent / f"{run_folder.name}-store"
    run = execute(tiny_spec(evaluate=evaluate), tmp_path / "run", manager, store)
    assert [name for name, reused in run.reused.items() if not reused] == ["evaluation/summary"]
    (win,) = Evaluation.load(tmp_path / "run/evaluation/summary").wins
    assert win.corrected is not None
    equal = sum(a == b for a, b in zip(*map(_list_responses, [run_folder] * 2, ("rlaif", "sft")), strict=True))
    assert win.corrected.rate.value == pytest.approx(1 - equal / 12)
    assert win.corrected.human.count == len(rows) == 6 - equal
    assert (win.rate, before.wins[0].corrected) == (before.wins[0].rate, None)
    report = RunReport.read(tmp_path / "run")
    assert any(line.startswith(f"rlaif against sft, corrected by {len(rows)} human labels") for line in report.summary)
    assert any(f"1 of {len(rows) + 1} human labels are not used" in line for line in report.warnings)
    assert run_rows(tmp_path / "run/evaluation/summary/pairs/rlaif-vs-sft.jsonl") == run_rows(
        run_folder / "evaluation/summary/pairs/rlaif-vs-sft.jsonl"
    )


def _list_responses(folder: Path, policy: str) -> list[str]:
    return [row["response"] for row in run_rows(folder / f"evaluation/responses/{policy}/responses.jsonl")]


def _read_responses(folder: Path, policy: str) -> set[str]:
    return set(_list_responses(folder, policy))


@pytest.fixture
def plan(tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> Callable[..., str]:
    """Return the notes of a plan; keyword arguments replace settings of the evaluation."""

    def plan(**changes: Any) -> str:
        evaluate = {**tiny_spec().model_dump(mode="json")["evaluate"], **changes}
        output = io.StringIO()
        plan_spec(tiny_spec(evaluate=evaluate), Store(tmp_path), manager, Progress(Console(file=output, width=400)))
        return output.getvalue()

    return plan


def test_a_plan_states_the_power_of_the_evaluation(plan: Callable[..., str]) -> None:
    assert plan().splitlines() == [
        "evaluate: 6 test prompts show a win rate that is 46.4 points from 50 %, with power 0.8; 10 points need 194 "
        "prompts",
        "evaluate: with 388 test prompts and a judge corrected by human labels, 10 points need 180 labels if it agrees "
        "with 70 % of them, 155 at 80 %, 110 at 90 %",
    ]
    several = plan(responses=4, temperature=1.0)
    assert "show a win rate that is 27.2 to 46.4 points from 50 %, with power 0.8" in several
    assert "10 points need 49 to 194 prompts, depending on how similar the 4 responses to a prompt are\n" in several
    assert "3 test prompts show no win rate to differ from 50 %, with power 0.8" in plan(prompts=3)
    assert plan(matchups=[]) == ""


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (150, "with 388 test prompts and a judge corrected by human labels, 10 points need 180 labels"),
        (195, "with 388 test prompts and a judge corrected by human labels, 10 points need 180 labels"),
        (1000, "with 1000 test prompts and a judge corrected by human labels, 10 points need 171 labels"),
    ],
    ids=["too-few", "just-too-few", "enough"],
)
def test_labels_are_planned_for_the_prompts_there_are_if_these_are_enough(prompts: int, expected: str) -> None:
    assert describe_labels(prompts).startswith(expected)


def test_the_power_of_members_that_have_the_same_is_stated_once(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    family = resolve_spec({**tiny_spec().model_dump(mode="json", exclude={"seed"}), "seeds": [0, 1]}, (), manager)
    assert isinstance(family, Family)
    output = io.StringIO()
    plan_family(family, Store(tmp_path), manager, Progress(Console(file=output, width=400)))
    assert output.getvalue().count("with power 0.8") == 1


def test_labels_that_cannot_be_used_are_refused_before_the_run(tmp_path: Path, plan: Callable[..., str]) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"prompt": "p", "response_a": "a", "response_b": "b"}))
    with pytest.raises(DataError, match=r"evaluate.human_labels: .*labels.jsonl: none of the 1 rows has a preference"):
        plan(human_labels=str(path))
    path.write_text(json.dumps({"prompt": "p", "response_a": "a", "response_b": "b", "label": "tie"}))
    with pytest.raises(SpecError, match=r"evaluate.human_labels: there are no win rates to correct"):
        plan(human_labels=str(path), matchups=[])
