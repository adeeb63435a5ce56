"""Set the results of a publication beside those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlaif_framework.contracts.panels import Panel
from rlaif_framework.contracts.tracking import Table
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.page import number, percent
from rlaif_framework.report.results import list_estimates

RATES = ("win_rate", "agreement/", "same_position/", "reward_accuracy")
"""Beginnings of the names of results that are rates."""


def explain_published(source: str) -> str:
    """Return what to keep in mind when published results are read beside those of a run."""
    return f"Published: {source}. Its models and data are not those of this run, so only directions can be compared."


def compare_published(spec: Mapping[str, Any], evaluation: Evaluation) -> Iterator[Panel]:
    """Yield a panel with each published result of the spec and the same result of the run.

    Args:
        spec: The resolved spec as plain JSON. Without `published`, there is no panel.
        evaluation: The measurements of the run.
    """
    published = spec.get("published")
    if not published or not published["results"]:
        return
    measured = dict(list_estimates(evaluation))
    rows = [
        (_describe(name), show_published(name, value), _show_measured(name, measured.get(name)))
        for name, value in published["results"].items()
    ]
    table = Table("published", ("result", "published", "measured here"), rows)
    yield Panel("Published results", explain_published(published["source"]), table)


def show_published(name: str, value: float) -> str:
    """Format a published result: `71 %` for a rate."""
    return f"{100 * value:.3g} %" if _is_rate(name) else f"{value:.3g}"


def _show_measured(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "not measured"
    return percent(estimate) if _is_rate(name) else number(estimate)


def _is_rate(name: str) -> bool:
    return name.startswith(RATES) or name.endswith("_rate")


def _describe(name: str) -> str:
    """Describe a result by its name: `win rate, length adjusted: rlaif against sft`."""
    kind, _, rest = name.partition("/")
    for shared in ("win_rate", "reward_accuracy"):
        kind = kind.replace(f"{shared}_", f"{shared}, ")
    kind = kind.replace("_", " ")
    *more, last = rest.split("/")
    return f"{kind}: {', '.join([*more, last.replace('-vs-', ' against ').replace('_', ' ')])}"
