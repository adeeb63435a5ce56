"""Charts of the reports, as Vega-Lite specs: plain JSON that the page draws.

Colours are those of the style sheet (`var(--...)`), so that charts follow light, dark and print. Field names are fixed
and texts are only in the data: a name cannot change a chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlaif_framework.metrics.calibration import Calibration, LengthBin
from rlaif_framework.metrics.estimates import Estimate

Rows = list[dict[str, Any]]
JsonDict = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Colours of arms: the palette of Okabe and Ito, which colour-blind people can tell apart."""
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 1), (10, 4), (3, 5), (1, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
MAX_POINTS = 400
"""Maximum number of points of a curve."""
INTERVAL = "#0072b2"
CURVE: JsonDict = {"type": "line", "point": {"size": 18, "filled": True}, "strokeWidth": 2, "clip": True}
"""Mark of a curve."""
# Shift and the wheel zoom, so that the page scrolls over a chart.
ZOOM: JsonDict = {
    "name": "zoom",
    "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    "bind": "scales",
}
"""Parameter of a chart whose steps can be moved and zoomed."""

Point = TypeVar("Point")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of a page."""

    id: str
    """Id of its element."""
    title: str
    description: str
    """What it shows, for people who do not see it and as a caption."""
    spec: JsonDict
    """Its Vega-Lite spec."""


def by_arm(shown: Iterable[str], arms: Sequence[str], values: Sequence[Any], legend: JsonDict) -> JsonDict:
    """Return a channel of arms, in which an arm has the same value in all charts.

    Arms with the same colour have other dashes and shapes.

    Args:
        shown: The arms in the chart.
        arms: All arms of the page.
        values: Colours, shapes or dashes.
        legend: Settings of the legend.
    """
    names = list(shown)
    numbers = [arms.index(name) for name in names]
    turns = [0 if values is COLOURS else number // len(COLOURS) for number in numbers]
    chosen = [values[(number + turn) % len(values)] for number, turn in zip(numbers, turns, strict=True)]
    scale = {"domain": names, "range": chosen}
    legend = {"orient": "bottom", "columns": 3, **legend}
    return {"field": "arm", "type": "nominal", "title": None, "scale": scale, "legend": legend}


def draw_curve(
    identity: str, title: str, curves: Mapping[str, Sequence[tuple[float, float]]], arms: Sequence[str]
) -> Chart:
    """Draw a logged metric of several arms by step.

    Args:
        identity: Id of the chart.
        title: Name of the metric.
        curves: (step, value) of each arm that has it.
        arms: All arms of the page.
    """
    rows = [
        {"arm": arm, "step": step, "value": value} for arm, points in curves.items() for step, value in thin(points)
    ]
    spec = {
        "data": {"values": rows},
        "height": 190,
        "params": [ZOOM],
        "mark": CURVE,
        "encoding": {
            **curve_channels(curves, arms),
            "tooltip": [tip("arm"), tip("step"), tip("value", ".4g")],
        },
    }
    lengths = ", ".join(f"{arm} {len(points)} steps" for arm, points in curves.items())
    return Chart(identity, title, f"{title} by training step: {lengths}.", finish(spec))


def curve_channels(shown: Iterable[str], arms: Sequence[str]) -> JsonDict:
    """Return the channels of a value by training step, one line for each arm.

    Args:
        shown: The arms in the chart.
        arms: All arms of the page.
    """
    names = list(shown)
    legend = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2.5}
    return {
        "x": {"field": "step", "type": "quantitative", "title": "step", "axis": {"tickMinStep": 1}},
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": None,
            "scale": {"zero": False},
            "axis": {"format": "~g"},
        },
        "color": by_arm(names, arms, COLOURS, legend),
        # Arms differ by their dashes too, not by their colour only.
        "strokeDash": by_arm(names, arms, DASHES, legend),
    }


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> Sequence[Point]:
    """Keep evenly spaced points, at most so many, with the first and the last one."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def draw_trade(points: Mapping[str, tuple[float, Estimate]], arms: Sequence[str]) -> Chart:
    """Draw the win rate against sft by the KL divergence, one point for each arm that has both."""
    rows = [{"arm": arm, "kl": kl, **_bounds(win)} for arm, (kl, win) in points.items()]
    channels = {
        "x": {"field": "kl", "type": "quantitative", "title": "KL from the baseline (nats)"},
        "color": by_arm(points, arms, COLOURS, {}),
    }
    tips = [tip("arm"), tip("kl", ".3g", "KL"), *_interval_tips("win rate %")]
    shapes = {"shape": by_arm(points, arms, SHAPES, {})}
    layers = draw_intervals("y", _percent_axis("wins against sft (%)"), channels, tips, {"type": "point"}, shapes)
    spec = {"data": {"values": rows}, "height": 240, "layer": [_reference_line("y", 50), *layers]}
    return Chart("win-kl", "Win rate against KL", _read(rows, "arm"), finish(spec))


def draw_reliability(calibrations: Mapping[str, Calibration | None], prefix: str) -> list[Chart]:
    """Draw a reliability diagram for each labeler or reward model: accuracy by stated probability."""
    return [
        _draw_reliability(f"{prefix}-reliability-{number}", name, found)
        for number, (name, found) in enumerate(calibrations.items())
        if found is not None
    ]


def _draw_reliability(identity: str, name: str, found: Calibration) -> Chart:
    rows = [{"stated": 100 * b.confidence, "count": b.accuracy.count, **_bounds(b.accuracy)} for b in found.bins]
    scale = {"domain": [48, 102], "nice": False}  # the preferred response has a probability of at least one half
    x = {"field": "stated", "type": "quantitative", "title": "stated probability (%)", "scale": scale}
    y = _percent_axis("accuracy (%)")
    size = {"size": {"field": "count", "type": "quantitative", "legend": None, "scale": {"range": [20, 140]}}}
    tips = [tip("stated", ".1f", "stated %"), *_interval_tips("accuracy %"), tip("count")]
    diagonal = {
        "data": {"values": [{"stated": 50, "value": 50}, {"stated": 100, "value": 100}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--soft)"},
        "encoding": {"x": x, "y": y},
    }
    mark = {"type": "circle", "color": INTERVAL}
    layers = [diagonal, *draw_intervals("y", y, {"x": x}, tips, mark, size)]
    text = f"Accuracy of {name} by stated probability: expected calibration error {found.ece:.3f}."
    return Chart(identity, name, text, finish({"data": {"values": rows}, "height": 200, "layer": layers}))


def draw_lengths(lengths: Mapping[str, Sequence[LengthBin]], prefix: str) -> list[Chart]:
    """Draw the agreement of each labeler or reward model by how much longer the better response is."""
    return [
        _draw_lengths(f"{prefix}-lengths-{number}", name, bins)
        for number, (name, bins) in enumerate(lengths.items())
        if bins
    ]


def _draw_lengths(identity: str, name: str, bins: Sequence[LengthBin]) -> Chart:
    rows = [{"bin": f"{b.low:+d} to {b.high:+d}", "count": b.agreement.count, **_bounds(b.agreement)} for b in bins]
    x = {
        "field": "bin",
        "type": "ordinal",
        "sort": None,
        "title": "characters that the better response is longer",
        "axis": {"labelAngle": -30},
    }
    tips = [tip("bin", title="longer by"), *_interval_tips("agreement %"), tip("count")]
    mark = {"type": "circle", "color": INTERVAL}
    layers = [_reference_line("y", 50), *draw_intervals("y", _percent_axis("agreement (%)"), {"x": x}, tips, mark)]
    spec = {"data": {"values": rows}, "height": 200, "layer": layers}
    return Chart(identity, name, f"Agreement of {name} by length difference. {_read(rows, 'bin')}", finish(spec))


def draw_rates(identity: str, title: str, rates: Mapping[str, Estimate | None], axis: str, at: float) -> Chart | None:
    """Draw rates with their intervals, one row for each name, beside a reference value."""
    rows = [{"name": name, **_bounds(rate)} for name, rate in rates.items() if rate is not None]
    if not rows:
        return None
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    tips = [tip("name"), *_interval_tips(axis)]
    mark = {"type": "circle", "color": INTERVAL}
    layers = [_reference_line("x", 100 * at), *draw_intervals("x", _percent_axis(axis), {"y": y}, tips, mark)]
    spec = {"data": {"values": rows}, "height": 26 * len(rows), "layer": layers}
    return Chart(identity, title, _read(rows, "name"), finish(spec))


def draw_intervals(
    axis: str,
    value: JsonDict,
    channels: JsonDict,
    tips: list[JsonDict],
    mark: JsonDict,
    of_points: JsonDict | None = None,
) -> list[JsonDict]:
    """Return two layers: rules from `low` to `high`, and points at `value`.

    Args:
        axis: `x` or `y`.
        value: Channel of the value.
        channels: Other channels of both layers.
        tips: The tooltip.
        mark: Mark of the points.
        of_points: Other channels of the points.
    """
    colour = {"color": mark["color"]} if "color" in mark else {}
    rule = {**channels, axis: {**value, "field": "low"}, f"{axis}2": {"field": "high"}, "tooltip": tips}
    point = {**channels, **(of_points or {}), axis: value, "tooltip": tips}
    return [
        {"mark": {"type": "rule", "strokeWidth": 2, **colour}, "encoding": rule},
        {"mark": {"size": 80, "filled": True, "opacity": 1, **mark}, "encoding": point},
    ]


def _percent_axis(title: str) -> JsonDict:
    return {"field": "value", "type": "quantitative", "title": title, "scale": {"domain": [0, 100]}}


def finish(spec: JsonDict) -> JsonDict:
    """Add what all charts have in common."""
    text = {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontSize": 12}
    axis = {**text, "titleFontWeight": "normal", "gridColor": "var(--line)", "domainColor": "var(--line)"}
    config = {
        "background": "transparent",
        "font": "system-ui, sans-serif",  # not `inherit`: texts are measured before they are drawn
        "view": {"stroke": None},
        "axis": {**axis, "tickColor": "var(--line)", "labelLimit": 220, "labelSeparation": 5},
        # A legend above a narrow plot begins over the labels of its rows, instead of being cut off on the right.
        "legend": {**text, "layout": {"top": {"anchor": "end"}}},
        "title": {"color": "var(--ink)"},
    }
    return {"$schema": SCHEMA, "width": "container", **spec, "config": config}


def _reference_line(axis: str, at: float) -> JsonDict:
    mark = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {axis: {"datum": at}}}


def _bounds(estimate: Estimate) -> dict[str, float]:
    """Return a rate and its interval in per cent."""
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {key: round(100 * value, 4) for key, value in bounds.items()}


def tip(field: str, form: str = "", title: str | None = None) -> JsonDict:
    """Return a line of a tooltip, for a number with its format."""
    channel = {"field": field, "title": title or field}
    return {**channel, "type": "quantitative", "format": form} if form else {**channel, "type": "nominal"}


def _interval_tips(title: str) -> list[JsonDict]:
    return [tip("value", ".1f", title), tip("low", ".1f", "95 % from"), tip("high", ".1f", "to")]


def _read(rows: Rows, key: str) -> str:
    """Read the points of a chart out."""
    return "; ".join(f"{row[key]} {row['value']:.1f} % [{row['low']:.1f}, {row['high']:.1f}]" for row in rows) + "."
