"""Draw the charts of the reports as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from rlaif_framework.metrics.calibration import Calibration, LengthBin
from rlaif_framework.metrics.evaluation import MeasuredArm
from rlaif_framework.metrics.wins import WinRate

CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("reward", ("reward", "objective")),
    ("KL from the baseline", ("kl_k1", "kl_k3")),
    ("tokens of a response", ("tokens",)),
    ("EOS rate, copy rate", ("eos_rate", "task/copy_rate")),
)
"""Panels of an arm's training curves: the title and the logged metrics."""
COLOURS = ("#2563eb", "#ea580c")
"""Colours of the first and the second metric of a panel."""


def draw_curves(arm: MeasuredArm) -> Markup:
    """Draw the loss of the reward model, and the policy's training metrics by step."""
    losses = [row for row in (arm.reward.loss if arm.reward else []) if "loss" in row]
    panels: list[tuple[str, tuple[str, ...], list[dict[str, float]]]] = []
    if losses:
        panels.append(("reward model: loss, accuracy", ("loss", "accuracy"), losses))
    panels += [(title, keys, arm.curve) for title, keys in CURVES if any(k in r for r in arm.curve for k in keys)]
    if not panels:
        return Markup("")
    rows_of_panels = -(-len(panels) // 3)  # rounded up
    figure = _new_figure(10, 2.5 * rows_of_panels)
    for index, (title, keys, rows) in enumerate(panels, 1):
        axes = figure.add_subplot(rows_of_panels, 3, index)
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


def draw_wins(wins: Sequence[WinRate]) -> Markup:
    """Draw win rates with their intervals, against one half."""
    rows = [(win, win.rate) for win in wins if win.rate]
    if not rows:
        return Markup("")
    figure = _new_figure(7, 0.7 + 0.4 * len(rows))
    axes = figure.add_subplot()
    # Heights grow upwards: the first win rate comes last.
    for height, (_, rate) in enumerate(reversed(rows)):
        axes.plot([rate.low, rate.high], [height, height], color=COLOURS[0], linewidth=2)
        axes.plot([rate.value], [height], "o", color=COLOURS[0])
    axes.axvline(0.5, color="#888888", linewidth=1, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    several = len({win.judge for win in wins}) > 1
    names = [
        f"{win.first} against {win.second}" + (f", by {win.judge}" if several else "") for win, _ in reversed(rows)
    ]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xlabel("win rate of the first", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _to_svg(figure)


def draw_reliability(calibrations: Mapping[str, Calibration | None]) -> Markup:
    """Draw a reliability diagram for each labeler or reward model: accuracy against stated probability."""
    measured = {name: found.bins for name, found in calibrations.items() if found}
    if not measured:
        return Markup("")
    figure, panels = _panels(measured, 3.3)
    for axes, bins in zip(panels, measured.values(), strict=True):
        most = max(b.accuracy.count for b in bins)
        # The preferred response has a probability of at least one half.
        axes.plot([0.5, 1], [0.5, 1], color="#888888", linewidth=1, linestyle="--")
        for b in bins:
            axes.plot([b.confidence] * 2, [b.accuracy.low, b.accuracy.high], color=COLOURS[0], linewidth=1)
        sizes = [10 + 90 * b.accuracy.count / most for b in bins]
        axes.scatter([b.confidence for b in bins], [b.accuracy.value for b in bins], sizes, COLOURS[0], zorder=3)
        axes.set_xlim(0.47, 1.03)
        axes.set_ylim(-0.04, 1.06)
        axes.set_xlabel("stated probability", fontsize=8)
    panels[0].set_ylabel("accuracy", fontsize=8)
    return _to_svg(figure)


def draw_lengths(lengths: Mapping[str, Sequence[LengthBin]]) -> Markup:
    """Draw the agreement of each labeler or reward model by the length difference between better and worse response."""
    measured = {name: bins for name, bins in lengths.items() if bins}
    if not measured:
        return Markup("")
    figure, panels = _panels(measured, 2.8)
    for axes, bins in zip(panels, measured.values(), strict=True):
        places = range(len(bins))
        for place, b in zip(places, bins, strict=True):
            axes.plot([place] * 2, [b.agreement.low, b.agreement.high], color=COLOURS[0], linewidth=2)
        axes.plot(places, [b.agreement.value for b in bins], "o", color=COLOURS[0])
        axes.axhline(0.5, color="#888888", linewidth=1, linestyle="--")
        axes.set_ylim(-0.06, 1.06)
        axes.set_xlim(-0.5, len(bins) - 0.5)
        axes.set_xticks(places, [f"{b.low:+d}\nto {b.high:+d}" for b in bins], fontsize=7)
        axes.set_xlabel("characters that the better response is longer", fontsize=8)
    panels[0].set_ylabel("agreement", fontsize=8)
    return _to_svg(figure)


def _panels(names: Iterable[str], height: float) -> tuple[Figure, list[Any]]:
    """Create a figure with a titled panel for each name, three in a row."""
    names = list(names)
    rows = -(-len(names) // 3)  # rounded up
    figure = _new_figure(min(len(names), 3) * 3.4 + 0.2, height * rows)
    panels = []
    for index, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, min(len(names), 3), index)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        panels.append(axes)
    return figure, panels


def _new_figure(width: float, height: float) -> Figure:
    # Not by pyplot, which would keep every figure in a global list.
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor("white")  # charts have dark text, also on a page in dark mode
    return figure


def _to_svg(figure: Figure) -> Markup:
    stream = io.StringIO()
    # Equal data draw equal files: no date, and ids by a fixed salt. Text stays text, which is smaller than paths.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlaif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    # HTML allows no XML declaration before the element.
    return Markup(text[text.index("<svg") :])
