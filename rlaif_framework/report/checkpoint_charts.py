"""Charts of the checkpoints of a training: what the arms gain by their distance from the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlaif_framework.metrics.equal_kl import Checkpoint
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.report.charts import COLOURS, DASHES, Chart, by_arm, draw_intervals, finish

Paths = Mapping[str, Sequence[tuple[Checkpoint, float, Estimate]]]
"""For each arm, its checkpoints with their KL and the measured number."""

NAMES = {"kl": "KL", "value": "value", "low": "95 % from", "high": "to"}


def draw_checkpoints(arms: Mapping[str, Sequence[Checkpoint]]) -> Iterator[Chart]:
    """Draw the win rate against the baseline and the reward of checkpoints by their KL, one line for each arm.

    Args:
        arms: The checkpoints of each arm, on validation prompts.
    """
    wins = {name: [(c, c.kl.value, c.win_rate) for c in found if c.kl and c.win_rate] for name, found in arms.items()}
    if any(wins.values()):
        judges = sorted({c.judge for found in wins.values() for c, _, _ in found if c.judge})
        title = f"Win rate against sft during training, by {' and '.join(judges)}"
        yield _draw("checkpoint-wins", title, {k: v for k, v in wins.items() if v}, list(arms), is_rate=True)
    rewards = {name: [(c, c.kl.value, c.reward) for c in found if c.kl and c.reward] for name, found in arms.items()}
    if any(rewards.values()):
        title = "Reward on validation prompts during training"
        yield _draw("checkpoint-rewards", title, {k: v for k, v in rewards.items() if v}, list(arms), is_rate=False)


def _draw(identity: str, title: str, paths: Paths, arms: Sequence[str], is_rate: bool) -> Chart:
    scale = 100 if is_rate else 1
    rows = [
        {
            "arm": arm,
            "step": checkpoint.step,
            "kl": kl,
            **{end: scale * getattr(estimate, end) for end in ("value", "low", "high")},
        }
        for arm, path in paths.items()
        for checkpoint, kl, estimate in path
    ]
    axis: dict[str, Any] = {"type": "quantitative", "title": "win rate (%)" if is_rate else "reward"}
    axis["scale"] = {"domain": [0, 100]} if is_rate else {"zero": False}
    tips: list[dict[str, Any]] = [
        {"field": "arm", "type": "nominal"},
        {"field": "step", "type": "quantitative"},
        *({"field": k, "type": "quantitative", "format": ".3~g", "title": v} for k, v in NAMES.items()),
    ]
    shared = {
        "x": {"field": "kl", "type": "quantitative", "title": "KL from the baseline (nats)"},
        "color": by_arm(paths, arms, COLOURS, {}),
        "tooltip": tips,
    }
    value = {**axis, "field": "value"}
    dash = by_arm(paths, arms, DASHES, {})
    layers: list[dict[str, Any]] = [
        # In the order of steps, since the KL may fall again.
        {"mark": "line", "encoding": {**shared, "y": value, "strokeDash": dash, "order": {"field": "step"}}},
        *draw_intervals("y", value, shared, tips, {"type": "circle"}),
    ]
    text = "; ".join(
        f"{arm} {', '.join(f'{scale * estimate.value:.3g} at KL {kl:.3g}' for _, kl, estimate in path)}"
        for arm, path in paths.items()
    )
    return Chart(
        identity, title, f"{title}: {text}.", finish({"data": {"values": rows}, "height": 240, "layer": layers})
    )
