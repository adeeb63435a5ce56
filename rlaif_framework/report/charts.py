"""Charts of the reports, as Vega-Lite specs: plain JSON that the page draws.

Colours are those of the style sheet (`var(--...)`), so that charts follow light, dark and print. Field names are fixed
and texts are only in the data: a name cannot change a chart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_framework.metrics.calibration import Calibration, LengthBin
from rlaif_framework.metrics.estimates import Estimate

Rows = list[dict[str, Any]]
JsonDict = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Colours of arms: the palette of Okabe and Ito, which colour-blind people can tell apart."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
MAX_POINTS = 400
"""Maximum number of points of a curve."""
INTERVAL = "#0072b2"


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


def by_arm(names: Sequence[str], title: str | None = None) -> JsonDict:
    """Return the colour channel of arms, in an order that all charts share."""
    scale = {"domain": list(names), "range": [COLOURS[i % len(COLOURS)] for i in range(len(names))]}
    return {"field": "arm", "type": "nominal", "title": title, "scale": scale, "legend": LEGEND}


LEGEND: JsonDict = {"orient": "bottom", "columns": 3, "symbolStrokeWidth": 3}


def draw_curve(identity: str, title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    """Draw a logged metric of all arms by step.

    Args:
        identity: Id of the chart.
        title: Name of the metric.
        curves: (step, value) of each arm.
    """
    rows = [
        {"arm": arm, "step": step, "value": value} for arm, points in curves.items() for step, value in thin(points)
    ]
    names = list(curves)
    colour = by_arm(names)
    # Arms differ by their dashes too, not by their colour only.
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [10, 4], [3, 5], [1, 3]]
    dash = {"domain": names, "range": [dashes[i % len(dashes)] for i in range(len(names))]}
    encoding = {
        "x": {"field": "step", "type": "quantitative", "title": "step", "axis": {"tickMinStep": 1}},
        "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}},
        "color": colour,
        "strokeDash": {"field": "arm", "type": "nominal", "scale": dash, "legend": LEGEND, "title": None},
        "tooltip": [_tip("arm"), _tip("step"), _tip("value", ".4g")],
    }
    spec = {
        "data": {"values": rows},
        "height": 190,
        # Shift and the wheel zoom, so that the page scrolls over a chart.
        "params": [
            {
                "name": "zoom",
                "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
                "bind": "scales",
            }
        ],
        "mark": {"type": "line", "point": {"size": 18, "filled": True}, "strokeWidth": 2, "clip": True},
        "encoding": encoding,
    }
    lengths = ", ".join(f"{arm} {len(points)} steps" for arm, points in curves.items())
    return Chart(identity, title, f"{title} by training step: {lengths}.", finish(spec))


def thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Keep evenly spaced points, with the first and the last one."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def draw_trade(points: Mapping[str, tuple[float, Estimate]]) -> Chart:
    """Draw the win rate against sft by the KL divergence, one point for each arm."""
    rows = [{"arm": arm, "kl": kl, **_bounds(win, 100)} for arm, (kl, win) in points.items()]
    x = {"field": "kl", "type": "quantitative", "title": "KL from the baseline (nats)"}
    y = {"field": "value", "type": "quantitative", "title": "wins against sft (%)", "scale": {"domain": [0, 100]}}
    colour = by_arm(list(points))
    shapes = {"domain": list(points), "range": [SHAPES[i % len(SHAPES)] for i in range(len(points))]}
    shape = {"field": "arm", "type": "nominal", "legend": LEGEND, "title": None, "scale": shapes}
    tips = [_tip("arm"), _tip("kl", ".3g", "KL"), *_interval_tips("win rate %")]
    spec = {
        "data": {"values": rows},
        "height": 240,
        "layer": [
            _reference_line("y", 50),
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}},
            {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1}, "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tips}},
        ],
    }  # fmt: skip
    return Chart("win-kl", "Win rate against KL", _read(rows, "arm", "%"), finish(spec))


def draw_reliability(calibrations: Mapping[str, Calibration | None], prefix: str) -> list[Chart]:
    """Draw a reliability diagram for each labeler or reward model: accuracy by stated probability."""
    return [
        _draw_reliability(f"{prefix}-reliability-{number}", name, found)
        for number, (name, found) in enumerate(calibrations.items())
        if found is not None
    ]


def _draw_reliability(identity: str, name: str, found: Calibration) -> Chart:
    rows = [{"stated": 100 * b.confidence, "count": b.accuracy.count, **_bounds(b.accuracy, 100)} for b in found.bins]
    x = {"field": "stated", "type": "quantitative", "title": "stated probability (%)", "scale": {"domain": [48, 102], "nice": False}}  # fmt: skip
    y = {"field": "value", "type": "quantitative", "title": "accuracy (%)", "scale": {"domain": [0, 100]}}
    size = {"field": "count", "type": "quantitative", "legend": None, "scale": {"range": [20, 140]}}
    tips = [_tip("stated", ".1f", "stated %"), *_interval_tips("accuracy %"), _tip("count")]
    diagonal = {"values": [{"stated": 50, "value": 50}, {"stated": 100, "value": 100}]}
    spec = {
        "data": {"values": rows},
        "height": 200,
        "layer": [
            {"data": diagonal, "mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--soft)"}, "encoding": {"x": x, "y": y}},
            {"mark": {"type": "rule", "color": INTERVAL}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "circle", "color": INTERVAL, "opacity": 1}, "encoding": {"x": x, "y": y, "size": size, "tooltip": tips}},
        ],
    }  # fmt: skip
    text = f"Accuracy of {name} by stated probability: expected calibration error {found.ece:.3f}."
    return Chart(identity, name, text, finish(spec))


def draw_lengths(lengths: Mapping[str, Sequence[LengthBin]], prefix: str) -> list[Chart]:
    """Draw the agreement of each labeler or reward model by how much longer the better response is."""
    return [
        _draw_lengths(f"{prefix}-lengths-{number}", name, bins)
        for number, (name, bins) in enumerate(lengths.items())
        if bins
    ]


def _draw_lengths(identity: str, name: str, bins: Sequence[LengthBin]) -> Chart:
    rows = [{"bin": f"{b.low:+d} to {b.high:+d}", "count": b.agreement.count, **_bounds(b.agreement, 100)} for b in bins]
    x = {"field": "bin", "type": "ordinal", "sort": None, "title": "characters that the better response is longer", "axis": {"labelAngle": -30}}  # fmt: skip
    y = {"field": "value", "type": "quantitative", "title": "agreement (%)", "scale": {"domain": [0, 100]}}
    tips = [_tip("bin", title="longer by"), *_interval_tips("agreement %"), _tip("count")]
    spec = {
        "data": {"values": rows},
        "height": 200,
        "layer": [
            _reference_line("y", 50),
            {"mark": {"type": "rule", "strokeWidth": 2, "color": INTERVAL}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "circle", "size": 70, "color": INTERVAL, "opacity": 1}, "encoding": {"x": x, "y": y, "tooltip": tips}},
        ],
    }  # fmt: skip
    return Chart(identity, name, f"Agreement of {name} by length difference. {_read(rows, 'bin', '%')}", finish(spec))


def draw_rates(identity: str, title: str, rates: Mapping[str, Estimate | None], axis: str, at: float) -> Chart | None:
    """Draw rates with their intervals, one row for each name, beside a reference value."""
    rows = [{"name": name, **_bounds(rate, 100)} for name, rate in rates.items() if rate is not None]
    if not rows:
        return None
    x = {"field": "value", "type": "quantitative", "title": axis, "scale": {"domain": [0, 100]}}
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    spec = {
        "data": {"values": rows},
        "height": 26 * len(rows),
        "layer": [
            _reference_line("x", 100 * at),
            {"mark": {"type": "rule", "strokeWidth": 2, "color": INTERVAL}, "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
            {"mark": {"type": "circle", "size": 70, "color": INTERVAL, "opacity": 1}, "encoding": {"y": y, "x": x, "tooltip": [_tip("name"), *_interval_tips(axis)]}},
        ],
    }  # fmt: skip
    return Chart(identity, title, _read(rows, "name", "%"), finish(spec))


def finish(spec: JsonDict) -> JsonDict:
    """Add what all charts have in common."""
    text = {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontSize": 12}
    axis = {**text, "titleFontWeight": "normal", "gridColor": "var(--line)", "domainColor": "var(--line)"}
    config = {
        "background": "transparent",
        "font": "system-ui, sans-serif",  # not `inherit`: texts are measured before they are drawn
        "view": {"stroke": None},
        "axis": {**axis, "tickColor": "var(--line)", "labelLimit": 220},
        "legend": text,
        "title": {"color": "var(--ink)"},
    }
    return {"$schema": SCHEMA, "width": "container", **spec, "config": config}


def _reference_line(axis: str, at: float) -> JsonDict:
    mark = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {axis: {"datum": at}}}


def _bounds(estimate: Estimate, factor: float = 1) -> dict[str, float]:
    return {key: round(factor * getattr(estimate, key), 4) for key in ("value", "low", "high")}


def _tip(field: str, form: str = "", title: str | None = None) -> JsonDict:
    channel = {"field": field, "title": title or field}
    return {**channel, "type": "quantitative", "format": form} if form else {**channel, "type": "nominal"}


def _interval_tips(title: str) -> list[JsonDict]:
    return [_tip("value", ".1f", title), _tip("low", ".1f", "95 % from"), _tip("high", ".1f", "to")]


def _read(rows: Rows, key: str, unit: str) -> str:
    """Read the points of a chart out."""

    def points() -> Iterator[str]:
        for row in rows:
            yield f"{row[key]} {row['value']:.1f} {unit} [{row['low']:.1f}, {row['high']:.1f}]"

    return f"{'; '.join(points())}."
