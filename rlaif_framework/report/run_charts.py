"""The charts of a run, by section of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rlaif_framework.metrics.evaluation import Curve, Evaluation
from rlaif_framework.report.charts import (
    Chart,
    draw_curve,
    draw_lengths,
    draw_rates,
    draw_reliability,
    draw_trade,
)
from rlaif_framework.report.checkpoint_charts import draw_checkpoints
from rlaif_framework.report.leaderboard import BASELINE, find_kl, name_judge
from rlaif_framework.report.page import metric_name
from rlaif_framework.report.win_charts import draw_matrix, draw_outcomes

CURVES = {
    "reward": "reward",
    "objective": "objective",
    "kl_k1": "KL from the baseline",
    "tokens": "tokens of a response",
    "eos_rate": "EOS rate",
    "task/copy_rate": "copy rate",
}
"""Training metrics that are shown first, with their titles."""
REWARD_CURVES = {"loss": "reward model: loss", "accuracy": "reward model: accuracy"}
MAX_OTHER = 24
"""Maximum number of other training metrics that are shown."""


def draw_run(evaluation: Evaluation) -> dict[str, list[Chart]]:
    """Draw the charts of a run, by section."""
    rewards = {name: arm.reward for name, arm in evaluation.arms.items() if arm.reward is not None}
    labelers = evaluation.labelers
    biases = {name: x.quality.same_position for name, x in labelers.items()}
    agreements = {name: x.quality.agreement for name, x in labelers.items()}
    quality = [
        draw_rates("agreement", "Agreement with gold preferences", agreements, "agreement (%)", 0.5),
        draw_rates("bias", "Same position preferred in both orders", biases, "of pairs shown in both orders (%)", 0.0),
    ]
    return {
        "wins": list(_draw_wins(evaluation)),
        "training": list(_draw_training(evaluation)),
        "other training": list(_draw_others(evaluation)),
        "labelers": [chart for chart in quality if chart is not None],
        "calibration": draw_reliability({name: x.calibration for name, x in labelers.items()}, "labeler"),
        "reliability": draw_reliability({name: reward.calibration for name, reward in rewards.items()}, "reward"),
        "lengths": draw_lengths({name: reward.lengths for name, reward in rewards.items()}, "reward"),
    }


def _draw_wins(evaluation: Evaluation) -> Iterator[Chart]:
    """Draw the win rates by each judge, and those of the first one against KL."""
    for number, judge in enumerate(evaluation.judges):
        wins = [win for win in evaluation.wins if win.judge == judge]
        title = f"by {name_judge(evaluation, judge)}"
        drawn = (
            draw_outcomes(f"outcomes-{number}", f"Outcomes {title}", wins),
            draw_matrix(f"matrix-{number}", f"Win rates {title}", wins),
        )
        yield from (chart for chart in drawn if chart is not None)
    judge = evaluation.main_judge or ""
    points = {}
    for name, arm in evaluation.arms.items():
        win, kl = evaluation.find_win(judge, name, BASELINE), find_kl(arm)
        if win is not None and win.rate is not None and kl is not None:
            points[name] = (kl, win.rate)
    if points:
        yield draw_trade(points, list(evaluation.arms))


class LoggedMetric(NamedTuple):
    """A training metric of several arms."""

    id: str
    """Id of its chart."""
    title: str
    points: dict[str, list[tuple[float, float]]]
    """Step and value of each arm that has it."""


def list_training(evaluation: Evaluation) -> Iterator[LoggedMetric]:
    """Yield the main training metrics of the reward models and the policies."""
    losses = {name: arm.reward.loss for name, arm in evaluation.arms.items() if arm.reward is not None}
    curves = {name: arm.curve for name, arm in evaluation.arms.items()}
    for key, title in REWARD_CURVES.items():
        yield from _read(f"reward-{key}", title, key, losses)
    for key, title in CURVES.items():
        yield from _read(f"curve-{key.replace('/', '-')}", title, key, curves)


def _draw_training(evaluation: Evaluation) -> Iterator[Chart]:
    """Draw the training of the reward models and the policies, all arms in one chart for each metric."""
    arms = list(evaluation.arms)
    for metric in list_training(evaluation):
        yield draw_curve(*metric, arms)
    comparable = {n: arm.checkpoints if arm.starts_at_baseline else [] for n, arm in evaluation.arms.items()}
    yield from draw_checkpoints(comparable)


def _draw_others(evaluation: Evaluation) -> Iterator[Chart]:
    """Draw the other training metrics of the policies, and of the baseline."""
    for metric in _read("sft-loss", "loss of the baseline", "loss", {BASELINE: evaluation.sft_loss}):
        yield draw_curve(*metric, [BASELINE])
    curves = {name: arm.curve for name, arm in evaluation.arms.items()}
    keys = dict.fromkeys(key for curve in curves.values() for row in curve for key in row)
    others = [key for key in keys if key not in CURVES and key != "step"]
    for number, key in enumerate(others[:MAX_OTHER]):
        for metric in _read(f"other-{number}", metric_name(key), key, curves):
            yield draw_curve(*metric, list(curves))


def _read(identity: str, title: str, key: str, curves: Mapping[str, Curve]) -> Iterator[LoggedMetric]:
    """Yield a metric if it was logged."""
    points = {
        name: [(row["step"], row[key]) for row in curve if key in row and "step" in row]
        for name, curve in curves.items()
    }
    measured = {name: found for name, found in points.items() if found}
    if measured:
        yield LoggedMetric(identity, title, measured)
