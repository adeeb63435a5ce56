"""The command `rlaif compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_framework.cli.options import AsJson
from rlaif_framework.cli.printing import print_json, print_table
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.metrics.estimates import Estimate
    from rlaif_framework.report.run_comparison import ArmComparison, Flip, PairedWins, RunComparison

OUTCOMES = {1.0: "won", 0.0: "lost", 0.5: "tied"}
RATES = ("win rate", "agreement", "accuracy")
"""Measurements that are shown in per cent."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of the sides in tables."""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, two or more; FOLDER:ARM for one arm of several."),
    ],
    against: Annotated[
        str, typer.Option(metavar="NAME", help="Policy that the arms were compared with: sft, reference or an arm.")
    ] = "sft",
    judge: Annotated[str, typer.Option(metavar="NAME", help="Judge: judge, or a name in evaluate.judges.")] = "judge",
    flips: Annotated[int, typer.Option(metavar="N", min=0, help="Number of flips to show of each comparison.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs with the first one, on the test prompts that they share.

    Shows the flips (prompts whose verdict changed), the difference of the win rates with a paired test, the settings
    that differ, and all metrics side by side.
    """
    from rlaif_framework.api import comparisons

    if len(runs) > len(LETTERS):
        raise typer.BadParameter(f"at most {len(LETTERS)} runs can be compared")
    found = comparisons.compare(*runs, against=against, judge=judge)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found, flips)


def _print(found: RunComparison, flips: int) -> None:
    several = sum(len(arm.pairs) for arm in found.arms) > 1
    for number, arm in enumerate(found.arms):
        print("\n" if number else "", end="")
        for letter, side in zip(LETTERS, arm.sides, strict=False):
            print(escape_controls(f"{letter}  {side.run}: {side.arm}"))
        print(escape_controls(f"win rates against {arm.opponent}, judged by {arm.judge}"))
        for letter, pair in zip(LETTERS[1:], arm.pairs, strict=False):
            _print_flips(pair, letter, flips)
        _print_wins(arm, several)
        _print_settings(arm)
        _print_metrics(arm)


def _print_flips(pair: PairedWins, letter: str, limit: int) -> None:
    shown = "" if len(pair.flips) <= limit else f", of which {limit} are shown (--flips N, --json)"
    print(
        f"\n{len(pair.flips)} flips between A and {letter}: {pair.second_better} better for {letter}, "
        f"{pair.first_better} better for A{shown}"
    )
    for flip in pair.flips[:limit]:
        for line in _describe_flip(flip, letter):
            print(escape_controls(line))


def _describe_flip(flip: Flip, letter: str) -> Iterator[str]:
    yield f"\n  {flip.id}"
    yield f"  prompt:  {_fold(flip.prompt)}"
    for name, score, response in zip(("A", letter), flip.scores, flip.responses, strict=True):
        yield f"  {name} {OUTCOMES[score]:5}  {_fold(response)}"
    opposed = dict.fromkeys(flip.opposed)
    for text in opposed:
        yield f"  against  {_fold(text)}"


def _fold(text: str) -> str:
    """Indent the further lines of a text under the first."""
    return text.strip().replace("\n", "\n           ")


def _print_wins(arm: ArmComparison, several: bool) -> None:
    for letter, pair in zip(LETTERS[1:], arm.pairs, strict=False):
        rows = [
            (name, str(counts.wins), str(counts.losses), str(counts.ties))
            for name, counts in zip(("A", letter), pair.counts, strict=True)
        ]
        print()
        print_table(("", "wins", "losses", "ties"), rows)
        for line in describe_pair(pair, letter, arm.opponent, several):
            print(escape_controls(line))


def describe_pair(pair: PairedWins, letter: str, opponent: str, several: bool) -> Iterator[str]:
    """Yield sentences about the difference between A and another side."""
    from rlaif_framework.report.page import points

    value = f"{100 * pair.difference:+.1f} points" if pair.interval is None else points(pair.interval)
    adjusted = f", {pair.p_holm:.3g} adjusted by Holm's method" if several else ""
    size = f"n={pair.shared}" + (f" on {pair.prompts} prompts" if pair.prompts < pair.shared else "")
    yield f"{letter} minus A: {value}, {size}; {pair.test}: p = {pair.p:.3g}{adjusted}"
    if pair.interval is None:
        yield "no interval: the difference is the same on all prompts, or there is only one"
    left_out = {"only A has": pair.only_first, f"only {letter} has": pair.only_second}
    parts = [f"{count} that {reason}" for reason, count in left_out.items() if count]
    parts += [f"{pair.unread} without a verdict"] if pair.unread else []
    if parts:
        yield f"responses left out: {', '.join(parts)}"
    if pair.opponents_differ:
        yield f"the responses of {opponent} differ on {pair.opponents_differ} shared prompts"


def _print_settings(arm: ArmComparison) -> None:
    print()
    if not arm.settings:
        print("no setting differs")
        return
    rows = [(row.path, *(_show_setting(value) for value in row.values)) for row in arm.settings]
    print_table(("setting", *LETTERS[: len(arm.sides)]), rows)


def _show_setting(value: Any) -> str:
    return "-" if value is None else str(value)


def _print_metrics(arm: ArmComparison) -> None:
    letters = LETTERS[: len(arm.sides)]
    rows = [
        (
            row.name,
            *(_show(row.name, value) for value in row.values),
            *(_show_difference(pair.metrics.get(row.name)) for pair in arm.pairs),
        )
        for row in arm.metrics
    ]
    print()
    print_table(("metric", *letters, *(f"{letter} minus A, paired" for letter in letters[1:])), rows)


def _show(name: str, value: Estimate | float | None) -> str:
    from rlaif_framework.report.page import number, percent

    if isinstance(value, float):
        return f"{value:.3g}"
    show: Callable[[Estimate | None], str] = percent if any(part in name for part in RATES) else number
    return show(value)


def _show_difference(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:+.3g} [{value.low:+.3g}, {value.high:+.3g}]"
