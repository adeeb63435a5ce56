"""Charts of win rates: outcomes of each matchup, and a matrix of all policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.report.charts import Chart, Rows, finish

OUTCOMES = ("wins", "ties", "losses")
OUTCOME_COLOURS = ("#0072b2", "#bdbdbd", "#e69f00")
TEXTS = {"wins": "win", "ties": "tie", "losses": "loss"}
"""Names of the outcomes in the filter of the sample browser."""


def draw_outcomes(identity: str, title: str, wins: Sequence[WinRate]) -> Chart | None:
    """Draw wins, ties and losses of each matchup as a bar, with the win rate and its interval on it."""
    measured = [(win, win.rate) for win in wins if win.rate is not None]
    if not measured:
        return None
    bars = [row for win, rate in measured for row in _list_outcomes(win, rate)]
    rates = [
        {**_list_names(win), "value": 100 * rate.value, "low": 100 * rate.low, "high": 100 * rate.high}
        for win, rate in measured
    ]
    y: dict[str, Any] = {"field": "matchup", "type": "nominal", "sort": None, "title": None}
    x: dict[str, Any] = {"type": "quantitative", "title": "share of pairs (%)", "scale": {"domain": [0, 100]}}
    colour = {
        "field": "outcome",
        "type": "nominal",
        "title": "of the first",
        "scale": {"domain": list(OUTCOMES), "range": list(OUTCOME_COLOURS)},
        "legend": {"orient": "top"},
    }
    tips = [{"field": key, "type": "nominal"} for key in ("matchup", "outcome", "count")]
    over = {"color": "var(--ink)", "cursor": "pointer"}
    bar = {"y": y, "x": {**x, "field": "start"}, "x2": {"field": "end"}, "color": colour, "tooltip": tips}
    interval = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    point = {"y": y, "x": {**x, "field": "value"}}
    layers: list[tuple[Rows, dict[str, Any], dict[str, Any]]] = [
        (bars, {"type": "bar", "cursor": "pointer", "height": {"band": 0.72}}, bar),
        ([{}], {"type": "rule", "strokeDash": [4, 4], "color": "var(--ink)"}, {"x": {"datum": 50}}),
        (rates, {"type": "rule", "strokeWidth": 2, **over}, interval),
        (rates, {"type": "point", "shape": "diamond", "filled": True, "size": 80, **over}, point),
    ]
    spec = {
        "height": 30 * len(measured),
        "layer": [{"data": {"values": rows}, "mark": mark, "encoding": encoding} for rows, mark, encoding in layers],
    }
    text = "; ".join(f"{_name(win)} {100 * rate.value:.1f} % of {rate.count}" for win, rate in measured)
    return Chart(identity, title, f"Wins, ties and losses of each matchup: {text}.", finish(spec))


def draw_matrix(identity: str, title: str, wins: Sequence[WinRate]) -> Chart | None:
    """Draw the win rate of each policy in the rows against each one in the columns."""
    rows: Rows = []
    for win in wins:
        if win.rate is not None:
            turned = win.rate.flip()
            rows += [_cell(win.first, win.second, win, win.rate), _cell(win.second, win.first, win, turned)]
    names = list(dict.fromkeys(row["first"] for row in rows))
    if len(names) < 3:
        return None  # the bars show it all
    last = [name for name in ("sft", "reference") if name in names]
    order = [*(name for name in names if name not in last), *last]
    spec = {
        "data": {"values": rows},
        "height": 46 * len(names),
        "encoding": {
            "y": {"field": "first", "type": "nominal", "sort": order, "title": None},
            "x": {
                "field": "second",
                "type": "nominal",
                "sort": order,
                "title": None,
                "axis": {"orient": "top", "labelAngle": -40},
            },
        },
        "layer": _draw_cells(),
    }
    text = "; ".join(f"{row['first']} against {row['second']} {row['text']} % [{row['bounds']}]" for row in rows)
    return Chart(identity, title, f"Win rates of the rows against the columns: {text}.", finish(spec))


def _draw_cells() -> list[dict[str, Any]]:
    """Return the layers of a matrix: coloured cells, and two lines of text in each."""
    titles = {"first": "first", "second": "against", "text": "win rate %", "bounds": "95 % interval"}
    tips = [{"field": key, "type": "nominal", "title": title} for key, title in titles.items()]
    scale = {"domain": [0, 50, 100], "range": ["#d55e00", "#f2f2f2", "#0072b2"], "type": "linear"}
    colour = {"field": "value", "type": "quantitative", "scale": scale, "legend": None}
    # White has the contrast only on the darkest blue.
    ink = {"condition": {"test": "datum.value > 92", "value": "#ffffff"}, "value": "#1a1a1a"}
    cell = {"type": "rect", "stroke": "var(--page)", "strokeWidth": 2, "cursor": "pointer"}
    text = {"type": "text", "cursor": "pointer"}
    marks = (
        (cell, {"color": colour}),
        ({**text, "dy": -6, "fontSize": 13, "fontWeight": "bold"}, {"text": {"field": "text"}, "color": ink}),
        ({**text, "dy": 9, "fontSize": 10}, {"text": {"field": "bounds"}, "color": ink}),
    )
    return [{"mark": mark, "encoding": {**encoding, "tooltip": tips}} for mark, encoding in marks]


def _cell(first: str, second: str, win: WinRate, rate: Estimate) -> dict[str, Any]:
    low, high = 100 * rate.low, 100 * rate.high
    text = f"{100 * rate.value:.0f}{'*' if rate.low > 0.5 or rate.high < 0.5 else ''}"
    bounds = f"{low:.0f}–{high:.0f}"
    names = {"first": first, "second": second, "judge": win.judge}
    return {**names, "value": 100 * rate.value, "text": text, "bounds": bounds}


def _list_outcomes(win: WinRate, rate: Estimate) -> list[dict[str, Any]]:
    won = round(rate.value * rate.count - win.ties / 2)
    start, rows = 0, []
    for outcome, count in zip(OUTCOMES, (won, win.ties, rate.count - won - win.ties), strict=True):
        row = {
            **_list_names(win),
            "outcome": outcome,
            "filter": TEXTS[outcome],
            "count": count,
            "start": round(100 * start / rate.count, 4),
            "end": round(100 * (start + count) / rate.count, 4),
        }
        rows.append(row)
        start += count
    return rows


def _list_names(win: WinRate) -> dict[str, str]:
    """Return what the sample browser finds the pairs of a matchup by."""
    return {"matchup": _name(win), "first": win.first, "second": win.second, "judge": win.judge}


def _name(win: WinRate) -> str:
    return f"{win.first} against {win.second}"
