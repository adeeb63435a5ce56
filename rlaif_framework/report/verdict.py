"""The outcome of a run in two sentences."""

from __future__ import annotations

from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.report.hacking import find_hacking
from rlaif_framework.report.leaderboard import BASELINE
from rlaif_framework.report.page import interval, rate


def write_verdict(evaluation: Evaluation) -> list[str]:
    """Return what the run found, and what it rests on: at most two sentences with their intervals."""
    judge = evaluation.main_judge
    wins = _find_wins(evaluation, judge) if judge is not None else {}
    if wins and judge is not None:
        # An arm that is significantly better comes before one with a higher win rate on fewer prompts.
        best = max(wins, key=lambda name: (_is_better(wins[name]), _value(wins[name].rate)))
        return [_describe_wins(wins, best), _describe_grounds(evaluation, judge, best)]
    gains = {
        name: arm.reward.gain for name, arm in evaluation.arms.items() if arm.reward is not None and arm.reward.gain
    }
    if gains:
        best = max(gains, key=lambda name: _value(gains[name]))
        return [f"No win rate is measured; {_describe_gain(evaluation, best, gains[best])}."]
    return _describe_parts(evaluation)


def _find_wins(evaluation: Evaluation, judge: str) -> dict[str, WinRate]:
    found = {name: evaluation.find_win(judge, name, BASELINE) for name in evaluation.arms}
    return {name: win for name, win in found.items() if win is not None and win.rate is not None}


def _is_better(win: WinRate) -> bool:
    return win.rate is not None and win.rate.low > 0.5


def _describe_wins(wins: dict[str, WinRate], best: str) -> str:
    rates = {name: win.rate for name, win in wins.items() if win.rate is not None}
    top, adjusted = wins[best].rate, wins[best].length_adjusted
    better = sum(x.low > 0.5 for x in rates.values())
    worse = [name for name, x in rates.items() if x.high < 0.5]
    length = f" ({_brief(adjusted)} length-adjusted)" if adjusted is not None else " (length-adjusted: not measured)"
    if better:
        opening = f"{best} beats {BASELINE} with a win rate of {rate(top)}{length}"
    else:
        opening = (
            f"No arm is significantly better than {BASELINE}: the highest win rate is {best}'s, {rate(top)}{length}"
        )
    if len(rates) == 1:
        return f"{opening}{', a significant loss' if worse else ''}."
    counts: list[str] = []
    for number, direction in ((better, "better"), (len(worse), "worse")):
        if number:
            among = "" if counts else f" of {len(rates)} arms"
            counts.append(f"{number}{among} {'is' if number == 1 else 'are'} significantly {direction}")
    return f"{'; '.join([opening, ' and '.join(counts)] if counts else [opening])}."


def _describe_grounds(evaluation: Evaluation, judge: str, best: str) -> str:
    """Say how far the judge can be trusted, and whether the best arm's reward rose."""
    labeler = evaluation.labelers[judge]
    agreement, source = labeler.quality.agreement, labeler.quality.gold_source
    if agreement is None:
        trust = f"The judge, {labeler.title}, could not be compared with gold preferences"
    else:
        trust = f"The judge, {labeler.title}, agrees with {source} gold preferences on {rate(agreement)}"
        trust += "" if agreement.beats_chance else ", which is not measurably better than chance"
    win = evaluation.find_win(judge, best, BASELINE)
    if win is not None and win.corrected is not None:
        people = win.corrected.human.count
        return f"{trust}; corrected by {people} human labels, the win rate is {_brief(win.corrected.rate)}."
    reward = evaluation.arms[best].reward
    if reward is None or reward.gain is None:
        return f"{trust}."
    return f"{trust}; {_describe_gain(evaluation, best, reward.gain)}."


def _describe_gain(evaluation: Evaluation, arm: str, gain: Estimate) -> str:
    change = f"{gain.value:+.3g} {interval(gain)}"
    significant = gain.low > 0 or gain.high < 0
    doubt = "" if significant else ", which is not significant"
    if find_hacking(arm, evaluation):
        doubt = ", but may be exploited (see the warnings)"
    return f"the held-out reward of {arm} changed by {change}{doubt}"


def _describe_parts(evaluation: Evaluation) -> list[str]:
    """Describe a run that evaluates no policies: its best labeler and its best reward."""
    found = []
    agreements = {name: x.quality.agreement for name, x in evaluation.labelers.items() if x.quality.agreement}
    if agreements:
        best = max(agreements, key=lambda name: _value(agreements[name]))
        found.append(f"Of the labelers, {best} agrees most with the gold preferences: {rate(agreements[best])}.")
    accuracies = {n: x.reward.accuracy_gold for n, x in evaluation.arms.items() if x.reward and x.reward.accuracy_gold}
    if accuracies:
        best = max(accuracies, key=lambda name: _value(accuracies[name]))
        found.append(
            f"Of the rewards, that of {best} is the most accurate on held-out pairs: {rate(accuracies[best])}."
        )
    return found or ["Nothing could be compared."]


def _brief(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % {interval(estimate, is_rate=True)}"


def _value(estimate: Estimate | None) -> float:
    return -1e300 if estimate is None else estimate.value
