"""List the results of a run as numbers by name, for trackers."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation


def list_results(evaluation: Evaluation) -> dict[str, float]:
    """Return win rates, agreement, reward accuracies and means of metrics, with the ends of their 95 % intervals.

    The ends of `win_rate/rlaif-vs-sft` are `win_rate/rlaif-vs-sft/low` and `win_rate/rlaif-vs-sft/high`. What was not
    measured is left out.
    """
    found: dict[str, float] = {}
    for name, estimate in list_estimates(evaluation):
        if estimate is not None:
            found |= {name: estimate.value, f"{name}/low": estimate.low, f"{name}/high": estimate.high}
    return found


def list_estimates(evaluation: Evaluation) -> Iterator[tuple[str, Estimate | None]]:
    """Yield the name of each result and its estimate; None if it was not measured."""
    for win in evaluation.wins:
        judge = "" if win.judge == "judge" else f"{win.judge}/"
        yield f"win_rate/{judge}{win.first}-vs-{win.second}", win.rate
        yield f"win_rate_length_adjusted/{judge}{win.first}-vs-{win.second}", win.length_adjusted
        if win.corrected is not None:
            yield f"win_rate_corrected/{judge}{win.first}-vs-{win.second}", win.corrected.rate
    for name, labeler in evaluation.labelers.items():
        yield f"agreement/{name}", labeler.quality.agreement
    for arm, measured in evaluation.arms.items():
        if measured.labeler not in (None, arm):  # arms with the same labeler share its measurements
            yield f"agreement/{arm}", evaluation.labelers[measured.labeler or ""].quality.agreement
    for arm, measured in evaluation.arms.items():
        if measured.reward is not None:
            yield f"reward_accuracy/{arm}", measured.reward.accuracy_gold
            yield f"reward_accuracy_own_labels/{arm}", measured.reward.accuracy_labeler
            yield f"reward_gain/{arm}", measured.reward.gain
    for policy, metrics in evaluation.policies.items():
        for metric, estimate in metrics.items():
            yield f"policies/{policy}/{metric}", estimate
