"""Find arms whose reward rose while an independent measure of their responses got worse."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif_framework.metrics.divergence import SYMPTOMS
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.page import metric_name, rate

ROUGE = "rougeL"


def find_hacking(arm: str, evaluation: Evaluation) -> list[str]:
    """Set the gain of an arm's reward against the judges, ROUGE and the form of its responses.

    Judges and ROUGE are signs of hacking if they got significantly worse than the baseline, other metrics if they
    changed significantly beyond the limits of `SYMPTOMS`.

    Returns:
        One sentence if the reward rose significantly and there are such signs, otherwise nothing.
    """
    reward = evaluation.arms[arm].reward
    gain = reward.gain if reward is not None else None
    if gain is None or gain.low <= 0:
        return []
    signs = [*_find_losses(arm, evaluation), *_find_symptoms(arm, evaluation)]
    if not signs:
        return []
    against = ", ".join(signs)
    return [f"the reward of '{arm}' rose by {_show(gain)}, but may be exploited; against the baseline: {against}"]


def _find_losses(arm: str, evaluation: Evaluation) -> Iterator[str]:
    """Find judges who prefer the baseline."""
    for judge in evaluation.judges:
        win = evaluation.find_win(judge, arm, "sft")
        if win is not None and win.rate is not None and win.rate.high < 0.5:
            yield f"win rate by judge {evaluation.labelers[judge].title} {rate(win.rate)}"


def _find_symptoms(arm: str, evaluation: Evaluation) -> Iterator[str]:
    """Find metrics that got worse."""
    changes = evaluation.find_difference(arm, "sft")
    baseline, rouge = evaluation.policies.get("sft", {}), changes.get(ROUGE)
    for symptom in SYMPTOMS:
        change, before = changes.get(symptom.metric), baseline.get(symptom.metric)
        if change is None or before is None or (symptom.metric == "tokens" and rouge is not None and rouge.low > 0):
            continue
        # Any loss of ROUGE counts, as of a judge.
        allowed = 0.0 if symptom.metric == ROUGE else symptom.limit(before.value) - before.value
        if change.low > allowed if symptom.rises else change.high < allowed:
            yield f"{metric_name(symptom.metric)} {_show(change)} from {before.value:.3g}"


def _show(change: Estimate) -> str:
    return f"{change.value:+.3g} [{change.low:+.3g}, {change.high:+.3g}]"
