"""Render HTML pages that make no external requests, from the templates in this folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.report.assets import load_assets
from rlaif_framework.report.charts import Chart
from rlaif_framework.report.sample_data import PackedSamples


def render_document(
    template: str, charts: Mapping[str, Sequence[Chart]], samples: PackedSamples | None = None, **values: Any
) -> str:
    """Render a whole page, with style sheets and scripts.

    Args:
        template: File name of the template.
        charts: The charts of each section.
        samples: What the sample browser shows.
        values: Other values of the template.
    """
    specs = {chart.id: chart.spec for section in charts.values() for chart in section}
    assets = load_assets(bool(specs), samples is not None)
    return render_page(template, charts=charts, specs=specs, samples=samples, assets=assets, **values)


def render_page(template: str, **values: Any) -> str:
    """Render a template with HTML escaping."""
    environment = Environment(
        loader=PackageLoader("rlaif_framework.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    environment.filters["points"] = points
    environment.filters["rate_cell"] = rate_cell
    environment.filters["mean_cell"] = mean_cell
    environment.filters["metric"] = metric_name
    environment.filters["markdown"] = render_markdown
    environment.filters["image"] = embed_svg
    environment.filters["pretty"] = pretty_json
    return environment.get_template(template).render(**values)


def render_markdown(text: str) -> Markup:
    """Render Markdown; HTML in it is shown as text, and images become links, because a page loads nothing."""
    from markdown_it import MarkdownIt  # only reports with panels of plugins need it

    return Markup(MarkdownIt("js-default").disable("image").render(text))


def embed_svg(text: str, title: str) -> Markup:
    """Return an SVG document as an image, in which browsers neither run scripts nor load anything."""
    data = base64.b64encode(text.encode()).decode()
    return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(title, data)


def pretty_json(value: Any) -> str:
    """Format a value as indented JSON, whose texts stay readable."""
    return json.dumps(value, indent=1, ensure_ascii=False)


def metric_name(key: str) -> str:
    """Format the name of a metric of responses: `EOS rate`, `copy rate`."""
    return "EOS rate" if key == "eos_rate" else key.replace("_", " ")


def rate(estimate: Estimate | None) -> str:
    """Format a rate for a sentence: `70.0 % [59.9, 78.5], n=90`."""
    if estimate is None:
        return "not measured"
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:.1f} % [{low:.1f}, {high:.1f}], n={_count(estimate)}"


def percent(estimate: Estimate | None) -> str:
    """Format a rate for a table cell: `70.0 % [60, 79] n=90`."""
    if estimate is None:
        return "-"
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:.1f} % [{low:.0f}, {high:.0f}] n={_count(estimate)}"


def points(estimate: Estimate) -> str:
    """Format a difference of rates for a sentence: `+8.0 points [+1.5, +14.5]`."""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def rate_cell(estimate: Estimate | None) -> Markup | str:
    """Format a rate for a cell of a wide table: value, interval and number of observations below each other."""
    if estimate is None:
        return "-"
    low, high = 100 * estimate.low, 100 * estimate.high
    return _stack(f"{100 * estimate.value:.1f} %", f"[{low:.0f}, {high:.0f}]", f"n={_count(estimate)}")


def mean_cell(estimate: Estimate | None) -> Markup | str:
    """Format a mean for a cell of a wide table: value and interval below each other."""
    return "-" if estimate is None else _stack(f"{estimate.value:.3g}", interval(estimate))


def _stack(*lines: str) -> Markup:
    first, *others = lines
    below = Markup(" ").join(Markup('<span class="interval">{}</span>').format(line) for line in others)
    return Markup('<span class="value">{}</span> ').format(first) + below


def interval(estimate: Estimate, is_rate: bool = False) -> str:
    """Format an interval: `[59.9, 78.5]` in per cent for a rate, otherwise `[-0.12, 0.37]`."""
    if is_rate:
        return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return f"[{estimate.low:.3g}, {estimate.high:.3g}]"


def short_number(value: float) -> str:
    """Format a number with three digits."""
    return f"{value:.3g}"


def _count(estimate: Estimate) -> str:
    """Format the number of observations, with that of prompts if some have several: `600 on 100 prompts`."""
    return f"{estimate.count}" if estimate.clusters is None else f"{estimate.count} on {estimate.clusters} prompts"


def number(estimate: Estimate | None) -> str:
    """Format a mean for a table cell: `0.194 [0.014, 0.373]`."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
