"""Describe the win rates of a run in sentences, and list reasons to doubt them."""

from __future__ import annotations

from rlaif_framework.metrics.correction import CorrectedWinRate
from rlaif_framework.metrics.equal_kl import EqualKl
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.report.cautions import Caution
from rlaif_framework.report.page import points, rate

MAX_UNREAD = 0.1
"""Share of answers that could not be read above which it is reported."""


def summarise_wins(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each win rate, and for each corrected one."""
    lines = []
    for win in evaluation.wins:
        lines.append(_summarise_win(win, evaluation))
        if win.corrected is not None:
            lines.append(_summarise_correction(win, win.corrected))
    if evaluation.equal_kl is not None:
        lines.append(_summarise_equal_kl(evaluation.equal_kl))
    return lines


def check_wins(evaluation: Evaluation) -> list[Caution]:
    """Return reasons to doubt the win rates."""
    found = []
    for win in evaluation.wins:
        names, pair = _name(win, evaluation), f"{win.first} against {win.second}"
        found += [Caution(kind, pair, text) for kind, text in _check_win(win, names)]
        if win.corrected is not None:
            found += [Caution("human labels", pair, text) for text in _check_correction(win, win.corrected, names)]
        elif evaluation.human_labels:
            text = f"{names}: no human label is of these responses, so the win rate is not corrected"
            found.append(Caution("human labels", pair, text))
    if evaluation.unused_labels:
        text = (
            f"{evaluation.unused_labels} of {evaluation.human_labels} human labels are not used, because no matchup "
            "compared these two responses to this prompt"
        )
        found.append(Caution("human labels", "", text))
    return found


def _summarise_equal_kl(found: EqualKl) -> str:
    arms = "; ".join(f"{arm} {rate(estimate)}" for arm, estimate in found.win_rates.items())
    return (
        f"at equal KL from the baseline, {found.kl:.3g} nats, win rates against it on the validation prompts: {arms}; "
        f"judge {found.judge}, interpolated between checkpoints"
    )


def _name(win: WinRate, evaluation: Evaluation) -> str:
    by = "" if win.judge == "judge" else f" by {evaluation.labelers[win.judge].title}"
    return f"{win.first} against {win.second}{by}"


def _summarise_win(win: WinRate, evaluation: Evaluation) -> str:
    judge = evaluation.labelers[win.judge]
    left_out = f", unread verdicts: {win.unread}" if win.unread else ""
    left_out += f", pairs of empty responses: {win.empty}" if win.empty else ""
    return (
        f"{win.first} against {win.second}: win rate {rate(win.rate)}, {win.ties} ties{left_out}; length-adjusted "
        f"{rate(win.length_adjusted)}; judge {judge.title}, whose own agreement is {rate(judge.quality.agreement)}"
    )


def _check_win(win: WinRate, names: str) -> list[tuple[str, str]]:
    """Return the kinds and the texts of reasons to doubt a win rate."""
    adjusted = win.length_adjusted
    if win.rate is None:
        unread = f"the judge's verdict could not be read on any of {win.unread} pairs"
        reason = unread if win.unread else "all responses of both are empty"
        return [("not measured", f"{names}: the win rate is not measured: {reason}")]
    found = []
    if win.unread > MAX_UNREAD * (win.unread + win.rate.count):
        pairs = win.unread + win.rate.count
        text = f"{names}: the judge's verdict could not be read on {win.unread} of {pairs} pairs"
        found.append(("unreadable", text))
    if _winner(win.rate) is None:
        text = f"{names}: no significant difference (the 95 % interval includes 50 %)"
        found.append(("no difference", text))
    # Also if only the adjusted interval includes one half.
    elif adjusted and _winner(adjusted) != _winner(win.rate):
        text = f"{names}: the difference may be due to length; the length-adjusted win rate is {rate(adjusted)}"
        found.append(("length", text))
    elif not win.lengths_overlap:
        text = (
            f"{names}: the difference may be due to length; no length-adjusted win rate can be measured, because the "
            "same policy has the longer response on every prompt"
        )
        found.append(("length", text))
    return found


def _summarise_correction(win: WinRate, corrected: CorrectedWinRate) -> str:
    return (
        f"{win.first} against {win.second}, corrected by {corrected.human.count} human labels: win rate "
        f"{rate(corrected.rate)}; from the labels alone {rate(corrected.human)}; the judge agrees with them on "
        f"{rate(corrected.agreement)}; its bias towards {win.first} is {points(corrected.bias)}"
    )


def _check_correction(win: WinRate, corrected: CorrectedWinRate, names: str) -> list[str]:
    warnings, bias = [], corrected.bias
    if bias.low > 0 or bias.high < 0:
        favoured = win.first if bias.value > 0 else win.second
        warnings.append(
            f"{names}: compared with human labels, the judge favours {favoured} (bias towards {win.first} "
            f"{points(bias)}); use the corrected win rate"
        )
    if win.rate is not None and _winner(win.rate) is not None and _winner(corrected.rate) != _winner(win.rate):
        warnings.append(f"{names}: the human labels do not confirm the difference: corrected {rate(corrected.rate)}")
    return warnings


def _winner(estimate: Estimate) -> bool | None:
    """Return True if a win rate is above one half, False if below, None if its interval includes one half."""
    return None if estimate.low <= 0.5 <= estimate.high else estimate.value > 0.5
