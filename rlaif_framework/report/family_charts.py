"""Training curves of a family: the mean over seeds of each arm, with a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rlaif_framework.report.charts import (
    CURVE,
    MAX_POINTS,
    ZOOM,
    Chart,
    curve_channels,
    finish,
    thin,
    tip,
)
from rlaif_framework.report.run_charts import LoggedMetric

MOST_ROWS = 8 * MAX_POINTS
"""Maximum number of points of a chart, of all its curves together."""

SeedValues = dict[float, list[float]]
"""The values of all seeds that have logged a step, by step."""


def draw_family(variants: Mapping[str, str], curves: Mapping[str, Sequence[LoggedMetric]]) -> Iterator[Chart]:
    """Draw each training metric, with one curve for each arm of each variant.

    Args:
        variants: The variant of each member by its name.
        curves: The training metrics of each finished member, by its name.
    """
    several_variants = len(set(variants.values())) > 1
    several_arms = len({arm for metrics in curves.values() for metric in metrics for arm in metric.points}) > 1
    titles: dict[str, str] = {}
    found: dict[str, dict[str, SeedValues]] = {}
    for member, metrics in curves.items():
        for metric in metrics:
            titles[metric.id] = metric.title
            for arm, points in metric.points.items():
                variant = variants[member]
                name = (f"{variant}: {arm}" if several_arms else variant) if several_variants else arm
                seeds = found.setdefault(metric.id, {}).setdefault(name, {})
                for step, value in points:
                    seeds.setdefault(step, []).append(value)
    names = list(dict.fromkeys(name for series in found.values() for name in series))
    for identity, title in titles.items():
        yield _draw_bands(identity, title, found[identity], names)


def _draw_bands(identity: str, title: str, series: Mapping[str, SeedValues], names: Sequence[str]) -> Chart:
    most = max(2, MOST_ROWS // len(series))
    rows: list[dict[str, Any]] = [
        {
            "arm": name,
            "step": step,
            "value": fmean(values),
            "low": min(values),
            "high": max(values),
            "seeds": len(values),
        }
        for name, steps in series.items()
        for step, values in thin(sorted(steps.items()), most)
    ]
    channels = curve_channels(series, names)
    low = {**channels["y"], "field": "low"}
    tips = [
        tip("arm"),
        tip("step"),
        tip("value", ".4g", "mean"),
        tip("low", ".4g", "lowest seed"),
        tip("high", ".4g", "highest seed"),
        tip("seeds", title="seeds at this step"),
    ]
    band = {"x": channels["x"], "y": low, "y2": {"field": "high"}, "color": channels["color"]}
    spec = {
        "data": {"values": rows},
        "height": 190,
        "layer": [
            {"mark": {"type": "area", "fillOpacity": 0.2, "clip": True}, "params": [ZOOM], "encoding": band},
            {"mark": CURVE, "encoding": {**channels, "tooltip": tips}},
        ],
    }
    ends = "; ".join(_describe_end(name, steps) for name, steps in series.items())
    text = f"{title} by training step, mean over seeds, with a band from the lowest to the highest seed. Last: {ends}."
    return Chart(identity, title, text, finish(spec))


def _describe_end(name: str, steps: SeedValues) -> str:
    last = max(steps)
    values = steps[last]
    return f"{name} {fmean(values):.3g} [{min(values):.3g}, {max(values):.3g}] at step {last:g}"
