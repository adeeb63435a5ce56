"""Read an arm of a finished run from its artefacts: responses, verdicts of a judge, measurements and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif_framework.errors import DataError, suggest
from rlaif_framework.metrics.agreement import score_choice
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import SAMPLES, Evaluation
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.pipeline.run_record import SUMMARY, RunRecord
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.report.run_comparison import FinishedArm, Judged
from rlaif_framework.spec.model import REFERENCE


def list_arms(record: RunRecord) -> list[str]:
    """Return the names of the arms that have a policy.

    Raises:
        DataError: The run has no finished evaluation.
    """
    return [name for name in _read_evaluation(record).policies if name not in ("sft", REFERENCE)]


def read_arm(record: RunRecord, arm: str, opponent: str, judge: str) -> FinishedArm:
    """Read an arm of a finished run.

    Args:
        record: The record of the run.
        arm: Name of the arm.
        opponent: The policy that it was compared with, such as `sft`.
        judge: Name of the judge: `judge`, or a name in `evaluate.judges`.

    Raises:
        DataError: The run is not finished, has no such arm, or has not compared it with the opponent by this judge.
    """
    evaluation = _read_evaluation(record)
    if arm not in (names := list_arms(record)):
        raise DataError(f"{record.folder} has no arm with a policy named '{arm}'; {suggest(arm, names)}")
    win = _find_win(record, evaluation, arm, opponent, judge)
    name = f"evaluation/{'wins' if judge == 'judge' else f'judges/{judge}'}/{win.first}-vs-{win.second}"
    spec = record.read_spec()
    arms = spec.pop("arms", {})
    try:
        return FinishedArm(
            run=str(record.folder),
            arm=arm,
            judge=_describe_judge(record.manifests[name].recipe),
            judge_title=evaluation.labelers[judge].title,
            judged=_read_judged(record, win, arm, opponent),
            metrics=_list_metrics(evaluation, arm, win),
            settings=spec,
            arm_settings=arms.get(arm, {}),
        )
    except (AttributeError, KeyError, TypeError, StopIteration, ValueError) as error:
        raise DataError(
            f"an artefact in {record.folder} is damaged: {type(error).__name__}: {error}; rerun the spec in the same "
            "folder to write it again"
        ) from error


def _read_evaluation(record: RunRecord) -> Evaluation:
    evaluation = record.read_evaluation()
    if evaluation is None:
        reason = "has no evaluation" if record.stage is None else f"is not finished: it was stopped at {record.stage}"
        raise DataError(f"the run in {record.folder} {reason}")
    return evaluation


def _find_win(record: RunRecord, evaluation: Evaluation, arm: str, opponent: str, judge: str) -> WinRate:
    for win in evaluation.wins:
        if win.judge == judge and {win.first, win.second} == {arm, opponent}:
            return win
    pairs = [f"{win.first} against {win.second} by {win.judge}" for win in evaluation.wins]
    raise DataError(
        f"{record.folder} has not compared {arm} with {opponent} by the judge '{judge}'; it has "
        f"{', '.join(pairs) or 'no win rates'}"
    )


def _describe_judge(recipe: Mapping[str, Any]) -> Any:
    """Return what verdicts depend on. Versions of plugins are left out, which are part of the key."""
    judge = {name: recipe["judge"][name] for name in ("config", "models", "own_code")}
    return {**judge, "annotator_prompts": recipe["task"]["annotator_prompts"]}


def _read_judged(record: RunRecord, win: WinRate, arm: str, opponent: str) -> dict[str, Judged]:
    place = record.folder / SUMMARY / SAMPLES
    if not place.exists():
        raise DataError(
            f"{place} is missing: the run is of an earlier version; delete the folder {place.parent} here and in the "
            "store, and rerun the same command"
        )
    judged = {}
    for _, row in read_rows(place):
        own, other = row["responses"][arm], row["responses"].get(opponent)
        opposed = (row["reference"] or "") if other is None else other["text"]
        stated = next(
            verdict["probability"]
            for verdict in row["verdicts"]
            if (verdict["first"], verdict["second"], verdict["judge"]) == (win.first, win.second, win.judge)
        )
        judged[row["id"]] = Judged(
            prompt=row["prompt"],
            response=own["text"],
            opposed=opposed,
            score=_score(stated, win.first == arm, own["text"], opposed),
            metrics=own["metrics"],
        )
    return judged


def _score(stated: float | None, is_first: bool, response: str, opposed: str) -> float | None:
    return None if stated is None or not (response or opposed) else score_choice(stated, is_first)


def _list_metrics(evaluation: Evaluation, arm: str, win: WinRate) -> dict[str, Estimate | float | None]:
    """Return the measurements of an arm by name."""
    measured, reward = evaluation.arms[arm], evaluation.arms[arm].reward
    found: dict[str, Estimate | float | None] = {}
    own = win if win.first == arm else win.flip()
    found |= {"win rate": own.rate, "length-adjusted win rate": own.length_adjusted}
    if measured.labeler is not None:
        found["agreement of the labels"] = evaluation.labelers[measured.labeler].quality.agreement
    if reward is not None:
        found |= {"accuracy of the reward": reward.accuracy_gold, "change of its held-out reward": reward.gain}
    if (kl := measured.find_kl()) is not None:
        found["KL from sft"] = kl
    return found | evaluation.policies[arm]
