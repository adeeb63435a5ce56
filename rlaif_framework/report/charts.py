"""Charts as inline SVG."""

from __future__ import annotations

import io
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("reward", ("reward", "objective")),
    ("KL from the baseline", ("kl_k1", "kl_k3")),
    ("tokens of a response", ("tokens",)),
    ("share ended, copy rate", ("ended", "task/copy_rate")),
)
COLOURS = ("#2563eb", "#ea580c")


def draw_curves(arm: dict[str, Any]) -> Markup:
    """Loss of the reward model, and the policy's curves by step."""
    losses = [row for row in arm["loss"] if "loss" in row]
    panels: list[tuple[str, tuple[str, ...], list[dict[str, float]]]] = []
    if losses:
        panels.append(("reward model: loss, accuracy", ("loss", "accuracy"), losses))
    panels += [(title, keys, arm["curve"]) for title, keys in CURVES if any(k in r for r in arm["curve"] for k in keys)]
    if not panels:
        return Markup("")
    figure = _new_figure(10, 2.5 * -(-len(panels) // 3))
    for index, (title, keys, rows) in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // 3), 3, index)
        for colour, key in zip(COLOURS, keys, strict=False):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=key.removeprefix("task/"))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return _to_svg(figure)


def draw_wins(wins: list[dict[str, Any]]) -> Markup:
    """Win rates with their intervals, against one half."""
    rows = [win for win in wins if win["rate"]]
    if not rows:
        return Markup("")
    figure = _new_figure(7, 0.7 + 0.4 * len(rows))
    axes = figure.add_subplot()
    for height, win in enumerate(reversed(rows)):
        rate = win["rate"]
        axes.plot([rate["low"], rate["high"]], [height, height], color=COLOURS[0], linewidth=2)
        axes.plot([rate["value"]], [height], "o", color=COLOURS[0])
    axes.axvline(0.5, color="#888888", linewidth=1, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [f"{w['first']} against {w['second']}" for w in reversed(rows)], fontsize=8)
    axes.set_xlabel("win rate of the first", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _to_svg(figure)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor("white")
    return figure


def _to_svg(figure: Figure) -> Markup:
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlaif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return Markup(text[text.index("<svg") :])
