"""Compare arms of finished runs on the test prompts that they share, by the verdicts of the same judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlaif_framework.errors import DataError
from rlaif_framework.metrics.estimates import (
    Estimate,
    adjust_holm,
    clustered_p_value,
    estimate_mean,
    paired_p_value,
)
from rlaif_framework.metrics.response_metrics import measure_differences
from rlaif_framework.records.preferences import Prompt


@dataclass(frozen=True, slots=True)
class Judged:
    """One response of an arm, and the judge's verdict on it."""

    prompt: str
    """Text of the prompt."""
    response: str
    opposed: str
    """The response of the opponent that it was compared with."""
    score: float | None
    """1 if it won, 0 if it lost, 0.5 for a tie; None if the verdict could not be read, or both responses are empty."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FinishedArm:
    """An arm of a finished run, as its artefacts have it."""

    run: str
    """The run folder."""
    arm: str
    judge: Any
    """Everything that the judge's verdicts depend on, besides the pairs and the seed, as plain JSON."""
    judge_title: str
    judged: Mapping[str, Judged]
    """Its responses by their ids: that of the prompt, and for further responses a number."""
    metrics: Mapping[str, Estimate | float | None]
    """Its measurements by name."""
    settings: Mapping[str, Any]
    """The resolved spec, without its arms."""
    arm_settings: Mapping[str, Any]
    """The settings of the arm."""

    @property
    def label(self) -> str:
        """Its name in texts."""
        return f"{self.run}:{self.arm}"


class _Compared(BaseModel):
    model_config = ConfigDict(frozen=True)


class Side(_Compared):
    """An arm of a run."""

    run: str
    arm: str


class Counts(_Compared):
    """Verdicts on the shared responses of one side."""

    wins: int
    losses: int
    ties: int


class Flip(_Compared):
    """A prompt whose verdict is not the same in both runs."""

    id: str
    prompt: str
    scores: tuple[float, float]
    """1 for a win, 0 for a loss, 0.5 for a tie, of the first and of the second side."""
    responses: tuple[str, str]
    opposed: tuple[str, str]
    """The response of the opponent in each run."""


class PairedWins(_Compared):
    """Two sides compared on the responses to the prompts that they share."""

    first: Side
    second: Side
    shared: int
    """Shared responses with a verdict in both runs, on which the remaining fields are based."""
    prompts: int
    """The number of their prompts."""
    only_first: int
    """Responses of the first to prompts that the second was not measured on. They are left out."""
    only_second: int
    unread: int
    """Shared responses without a verdict in one of the runs. They are left out."""
    opponents_differ: int
    """Shared responses that were compared with another response of the opponent."""
    counts: tuple[Counts, Counts]
    first_better: int
    """Responses whose verdict is better for the first than for the second."""
    second_better: int
    difference: float
    """Win rate of the second minus that of the first; ties count half."""
    interval: Estimate | None
    """The difference with its interval; None if it is the same on all prompts, or there is only one prompt."""
    test: str
    p: float
    """P-value of the test that verdicts are as often better for the first as for the second."""
    p_holm: float
    """The p-value, adjusted for the number of comparisons by Holm's method."""
    metrics: dict[str, Estimate]
    """Mean difference of each metric of the responses, second minus first, paired by response."""
    flips: list[Flip]
    """Those from a win to a loss or the reverse first."""


class MetricRow(_Compared):
    """One measurement of all sides."""

    name: str
    values: list[Estimate | float | None]


class SettingRow(_Compared):
    """A setting that is not the same in all runs."""

    path: str
    values: list[Any]
    """The value of each side; None if it has none there."""


class ArmComparison(_Compared):
    """One arm of each run."""

    opponent: str
    judge: str
    """The kind of the judge, with the settings that are not their defaults."""
    sides: list[Side]
    pairs: list[PairedWins]
    """Each further side compared with the first one."""
    settings: list[SettingRow]
    metrics: list[MetricRow]


class RunComparison(_Compared):
    """Runs compared arm by arm."""

    arms: list[ArmComparison]


def compare_arms(groups: Sequence[Sequence[FinishedArm]], opponent: str) -> RunComparison:
    """Compare the first arm of each group with each other arm of it.

    Args:
        groups: Arms that are compared with each other, two or more.
        opponent: The policy that they were compared with by the judges.

    Raises:
        DataError: Their judges differ, or they share no test prompt.
    """
    compared = [[_compare_pair(first, other) for other in others] for first, *others in groups]
    adjusted = iter(adjust_holm([pair.p for pairs in compared for pair in pairs]))
    return RunComparison(
        arms=[
            ArmComparison(
                opponent=opponent,
                judge=group[0].judge_title,
                sides=[_side(arm) for arm in group],
                pairs=[pair.model_copy(update={"p_holm": next(adjusted)}) for pair in pairs],
                settings=list(find_differences(_align_settings(group))),
                metrics=_list_metrics(group),
            )
            for group, pairs in zip(groups, compared, strict=True)
        ]
    )


def _align_settings(group: Sequence[FinishedArm]) -> list[dict[str, Any]]:
    """Return the settings of each side, with `*` in place of the names of arms if they differ."""
    name = group[0].arm if len({arm.arm for arm in group}) == 1 else "*"
    return [{**arm.settings, "arms": {name: arm.arm_settings}} for arm in group]


def find_differences(settings: Sequence[Mapping[str, Any]]) -> Iterator[SettingRow]:
    """Yield the settings that are not the same everywhere, by their dotted paths."""
    flat = [dict(_flatten(one, "")) for one in settings]
    for path in dict.fromkeys(path for one in flat for path in one):
        values = [one.get(path) for one in flat]
        if any(value != values[0] for value in values):
            yield SettingRow(path=path, values=values)


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    inner = [pair for key, item in items for pair in _flatten(item, f"{path}.{key}" if path else str(key))]
    yield from inner if inner else [(path, value)]


def _side(arm: FinishedArm) -> Side:
    return Side(run=arm.run, arm=arm.arm)


def _compare_pair(first: FinishedArm, second: FinishedArm) -> PairedWins:
    if first.judge != second.judge:
        raise DataError(
            f"{first.label} and {second.label} have different judges ({first.judge_title}, {second.judge_title}), or "
            "judges with other prompts or models, so their win rates cannot be compared"
        )
    # An id alone is not enough: runs may have other data.
    shared = [
        key for key, one in first.judged.items() if key in second.judged and one.prompt == second.judged[key].prompt
    ]
    if not shared:
        raise DataError(
            f"{first.label} and {second.label} share no test prompt; run both with the same data and evaluation_seed"
        )
    read = [(key, a.score, b.score) for key in shared for a, b in [(first.judged[key], second.judged[key])]]
    scored = [(key, a, b) for key, a, b in read if a is not None and b is not None]
    if not scored:
        raise DataError(f"{first.label} and {second.label}: no shared response has a readable verdict in both")
    prompts = [first.judged[key].prompt for key, _, _ in scored]
    differences = [b - a for _, a, b in scored]
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    test, p = _test(scored, differences, prompts)
    is_unknown = len(set(prompts)) < 2 or max(differences) == min(differences)
    return PairedWins(
        first=_side(first),
        second=_side(second),
        shared=len(scored),
        prompts=len(set(prompts)),
        only_first=len(first.judged) - len(shared),
        only_second=len(second.judged) - len(shared),
        unread=len(shared) - len(scored),
        opponents_differ=sum(first.judged[key].opposed != second.judged[key].opposed for key in shared),
        counts=(_count([a for _, a, _ in scored]), _count([b for _, _, b in scored])),
        first_better=worse,
        second_better=better,
        difference=sum(differences) / len(differences),
        interval=None if is_unknown else estimate_mean(differences, prompts),
        test=test,
        p=p,
        p_holm=p,
        metrics=_compare_metrics(first, second, shared),
        flips=_list_flips(first, second, scored),
    )


def _test(
    scored: Sequence[tuple[str, float, float]], differences: Sequence[float], prompts: Sequence[str]
) -> tuple[str, float]:
    """Test whether verdicts are as often better as worse; return the name of the test and its p-value."""
    if len(set(prompts)) < len(prompts):
        return "cluster-robust test", clustered_p_value(differences, prompts)
    name = "exact sign test" if any(0.5 in (a, b) for _, a, b in scored) else "exact McNemar test"
    better, worse = (sum(sign * difference > 0 for difference in differences) for sign in (1, -1))
    return name, paired_p_value(better, worse)


def _count(scores: Sequence[float]) -> Counts:
    return Counts(wins=scores.count(1.0), losses=scores.count(0.0), ties=scores.count(0.5))


def _compare_metrics(first: FinishedArm, second: FinishedArm, shared: Sequence[str]) -> dict[str, Estimate]:
    own, other = ([arm.judged[key].metrics for key in shared] for arm in (second, first))
    prompts = [Prompt(key, first.judged[key].prompt, "") for key in shared]
    return measure_differences(own, other, prompts)


def _list_flips(first: FinishedArm, second: FinishedArm, scored: Sequence[tuple[str, float, float]]) -> list[Flip]:
    changed = sorted((row for row in scored if row[1] != row[2]), key=lambda row: -abs(row[1] - row[2]))
    return [
        Flip(
            id=key,
            prompt=first.judged[key].prompt,
            scores=(before, after),
            responses=(first.judged[key].response, second.judged[key].response),
            opposed=(first.judged[key].opposed, second.judged[key].opposed),
        )
        for key, before, after in changed
    ]


def _list_metrics(group: Sequence[FinishedArm]) -> list[MetricRow]:
    names = dict.fromkeys(name for arm in group for name in arm.metrics)
    return [MetricRow(name=name, values=[arm.metrics.get(name) for arm in group]) for name in names]
