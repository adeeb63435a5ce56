"""Pages without scripts or outside requests, from the templates beside this module."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader


def render_page(template: str, **values: Any) -> str:
    """Fill in a template; texts are escaped."""
    environment = Environment(loader=PackageLoader("rlaif_framework.report.run_report", "."), autoescape=True)
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    return environment.get_template(template).render(**values)


def percent(estimate: dict[str, float] | None) -> str:
    """A rate in per cent with its interval and count."""
    if estimate is None:
        return "-"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{100 * estimate['value']:.1f} % [{low:.0f}, {high:.0f}] n={estimate['count']}"


def number(estimate: dict[str, float] | None) -> str:
    """A mean with its interval."""
    if estimate is None:
        return "-"
    return f"{estimate['value']:.3g} [{estimate['low']:.3g}, {estimate['high']:.3g}]"
