"""The leaderboard of a run: its policies against the metrics that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation, MeasuredArm
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.report.page import short_number

Mark = Literal["", "better", "worse", "higher", "lower"]
"""A significant difference: from the baseline, from no change, or from chance."""
BASELINE, REFERENCE = "sft", "reference"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a policy."""

    text: str
    value: float | None = None
    """What the table is sorted by; None if it was not measured."""
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A metric of all policies."""

    title: str
    note: str
    """What it is."""
    cells: dict[str, Cell]
    """By the name of the policy."""
    total: str = ""
    """The same of the whole run, of a cost."""
    marking: str = ""
    """What a mark means, or what is in the last row."""

    @property
    def explanation(self) -> str:
        """What the column is and what its marks mean."""
        return "; ".join(filter(None, [self.note, self.marking]))


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Policies with measurements, the best arm first and the baseline and the references last."""

    policies: list[str]
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the stages of a run took of something."""

    arms: Mapping[str, float] = field(default_factory=dict)
    """Of the stages of each arm that took some, by its name."""
    run: float = 0.0
    """Of all stages, those of the baseline and the evaluation included."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the stages of a run took."""

    seconds: Cost = Cost()
    tokens: Cost = Cost()
    """Tokens of the prompts and answers of language models that labelled."""
    dollars: Cost = Cost()
    """US dollars for them, for backends with known prices."""


def build_leaderboard(evaluation: Evaluation, costs: Costs) -> Leaderboard:
    """Collect the metrics of the arms, the baseline and the references, and rank them by the first column.

    Args:
        evaluation: The measurements.
        costs: What the stages took.
    """
    columns = [column for column in _list_columns(evaluation, costs) if column.cells or column.total]
    if not any(column.cells for column in columns):
        return Leaderboard([], [])
    first = columns[0].cells

    def rank(name: str) -> tuple[bool, float]:
        cell = first.get(name)
        return cell is None, 0.0 if cell is None or cell.value is None else -cell.value

    arms = sorted(evaluation.arms, key=rank)  # keeps the order of equal ones
    names = dict.fromkeys([*arms, *evaluation.policies])
    return Leaderboard([name for name in names if any(name in column.cells for column in columns)], columns)


def name_judge(evaluation: Evaluation, judge: str) -> str:
    """Return the name of an additional judge; the main one, which has none of its own, by its settings."""
    return evaluation.labelers[judge].title if judge == "judge" else judge


def find_kl(arm: MeasuredArm) -> float | None:
    """Return the measured KL divergence from the baseline, or else the most that it can be; None if unknown."""
    measured = arm.find_kl()
    return arm.kl_bound if measured is None and arm.starts_at_baseline else measured


def _list_columns(evaluation: Evaluation, costs: Costs) -> Iterator[Column]:
    yield from _list_wins(evaluation)
    arms = evaluation.arms.items()
    gains = {name: arm.reward.gain if arm.reward else None for name, arm in arms}
    note = "Change of the mean reward on test prompts against sft, by the arm's own reward"
    cells = _measure(gains, lambda x: f"{x.value:+.3g}", 0.0)
    yield Column("held-out reward", note, cells, marking="marked if it is not 0")
    kl = {name: Cell(_show_kl(arm, found), found) for name, arm in arms if (found := find_kl(arm)) is not None}
    note = (
        "Estimated KL divergence of the policy from the baseline, in nats per response, or its bound: that of the "
        "checkpoint that was kept, or else of the last step"
    )
    yield Column("KL", note, kl)
    labels = {name: evaluation.labelers[arm.labeler].quality.agreement for name, arm in arms if arm.labeler}
    note, marking = "Agreement of the arm's labeler with gold preferences", "marked if it differs from chance"
    yield Column("labels' agreement", note, _measure(labels, _percent, 0.5), marking=marking)
    rewards = {name: arm.reward for name, arm in arms if arm.reward}
    gold = {name: reward.accuracy_gold for name, reward in rewards.items()}
    note = "Accuracy of the arm's reward against gold preferences, on held-out comparisons"
    yield Column("reward accuracy, gold", note, _measure(gold, _percent, 0.5), marking=marking)
    own = {name: reward.accuracy_labeler for name, reward in rewards.items() if reward.accuracy_gold is None}
    note = "Accuracy of the arm's reward against its labeler's labels, on held-out comparisons without gold preferences"
    yield Column("reward accuracy, own labels", note, _measure(own, _percent, 0.5), marking=marking)
    yield _compare_metric(evaluation, "tokens", "tokens", short_number_of, ("higher", "lower"))
    yield _compare_metric(evaluation, "eos_rate", "EOS rate", _percent, ("better", "worse"))
    note = "Tokens that language models read and wrote for the arm's labels, cached answers included"
    yield _show_cost("label tokens", note, costs.tokens, lambda value: f"{value:,.0f}")
    note = "US dollars for these tokens at the prices in the spec, cached answers included"
    yield _show_cost("label cost", note, costs.dollars, format_dollars)
    note = "Time of the arm's own stages, without the evaluation"
    yield _show_cost("time", note, costs.seconds, format_seconds)


def _show_cost(title: str, note: str, cost: Cost, show: Callable[[float], str]) -> Column:
    cells = {name: Cell(show(value), value) for name, value in cost.arms.items()}
    marking = "the last row is the whole run, with the baseline and the evaluation"
    return Column(title, note, cells, show(cost.run) if cost.run else "", marking)


def _show_kl(arm: MeasuredArm, kl: float) -> str:
    return short_number(kl) if arm.find_kl() is not None else f"\u2264 {short_number(kl)}"


def _list_wins(evaluation: Evaluation) -> Iterator[Column]:
    several = len(evaluation.judges) > 1
    for judge in evaluation.judges:
        title = evaluation.labelers[judge].title
        by = f" by {judge}" if several and judge != "judge" else ""
        for opponent in (BASELINE,) if by else (BASELINE, REFERENCE):
            names = dict.fromkeys([*evaluation.arms, *evaluation.policies])
            wins = {name: evaluation.find_win(judge, name, opponent) for name in names if name != opponent}
            found = {name: win for name, win in wins.items() if win is not None}
            note = f"Share of test prompts won against {opponent} by {title}"
            rates = {name: win.rate for name, win in found.items()}
            yield _show_wins(f"wins against {opponent}{by}", note, rates)
            if not by:
                yield from _adjust_wins(found, "" if opponent == BASELINE else f" against {opponent}")


def _adjust_wins(found: dict[str, WinRate], against: str) -> Iterator[Column]:
    """Yield the win rates by human labels, and those for equal lengths."""
    corrected = {name: win.corrected.rate for name, win in found.items() if win.corrected is not None}
    yield _show_wins(f"corrected by people{against}", "The same win rate, corrected by human labels", corrected)
    adjusted = {name: win.length_adjusted for name, win in found.items()}
    note = "The same win rate, estimated for responses of equal length"
    yield _show_wins(f"length-adjusted{against}", note, adjusted)


def _show_wins(title: str, note: str, rates: Mapping[str, Estimate | None]) -> Column:
    return Column(title, note, _measure(rates, _percent, 0.5), marking="marked if it differs from 50 %")


def _compare_metric(
    evaluation: Evaluation, name: str, title: str, show: Callable[[Estimate], str], marks: tuple[Mark, Mark]
) -> Column:
    """Mark the policies whose metric differs from the baseline on the same prompts."""
    cells = {}
    for policy, metrics in evaluation.policies.items():
        found, change = metrics.get(name), evaluation.find_difference(policy, BASELINE).get(name)
        if found is not None:
            mark: Mark = "" if change is None else _mark(change, 0.0, marks)
            cells[policy] = Cell(show(found), found.value, _interval(found, show), mark)
    marking = "marked if it differs from that of sft on the same prompts"
    return Column(title, f"Mean {title} of a response", cells, marking=marking)


def _measure(found: Mapping[str, Estimate | None], show: Callable[[Estimate], str], null: float) -> dict[str, Cell]:
    return {
        name: Cell(show(x), x.value, _interval(x, show), _mark(x, null, ("better", "worse")))
        for name, x in found.items()
        if x is not None
    }


def _mark(estimate: Estimate, null: float, marks: tuple[Mark, Mark]) -> Mark:
    if estimate.low > null:
        return marks[0]
    return marks[1] if estimate.high < null else ""


def _interval(estimate: Estimate, show: Callable[[Estimate], str]) -> str:
    if show is _percent:
        return f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
    return f"[{estimate.low:.2g}, {estimate.high:.2g}]"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} %"


def short_number_of(estimate: Estimate) -> str:
    """Format the value of an estimate with three digits."""
    return short_number(estimate.value)


def format_seconds(seconds: float) -> str:
    """Format a duration: `12.3 s`, `4 min 10 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_dollars(dollars: float) -> str:
    """Format an amount of US dollars: `$1,234.50`, `$0.012`."""
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.2g}"


def sum_by_arm(steps: Iterable[tuple[str, float]], arms: Iterable[str]) -> dict[str, float]:
    """Add up a number of the stages of each arm, which are in its folder."""
    found = list(steps)
    return {arm: sum(value for name, value in found if name.startswith(f"{arm}/")) for arm in arms}
