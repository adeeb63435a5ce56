"""The report of a run: `report.json`, and `report.html` that any browser opens without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from rlaif_framework.report.charts import draw_curves, draw_wins
from rlaif_framework.report.findings import find_warnings, summarise

if TYPE_CHECKING:
    from rlaif_framework.engine import Run


def write_report(run: Run) -> None:
    """Write both files into the run folder, whole or not at all."""
    evaluation = json.loads((run.folder / "evaluation/summary/evaluation.json").read_text(encoding="utf-8"))
    steps = []
    for step in run.steps:
        manifest = run.store.manifest(step.stage, step.key)
        wanted = {key: manifest[key] for key in ("seconds", "peak_memory_bytes", "facts")}
        steps.append({"name": step.name, "reused": run.reused[step.name], **wanted})
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    report = build_report(evaluation, steps, environment, run.spec.model_dump(mode="json"))
    _replace(run.folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    _replace(run.folder / "report.html", render_html(report))


def build_report(
    evaluation: dict[str, Any], steps: list[dict[str, Any]], environment: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    """Everything the report says, as plain JSON: the measurements, and the findings drawn from them."""
    return {
        "spec": spec,
        "summary": summarise(evaluation),
        "warnings": find_warnings(evaluation, spec),
        "evaluation": evaluation,
        "steps": steps,
        "environment": environment,
    }


def render_html(report: dict[str, Any]) -> str:
    """One page without scripts or outside requests."""
    environment = Environment(loader=PackageLoader("rlaif_framework.report", "."), autoescape=True)
    environment.filters["percent"] = _percent
    environment.filters["number"] = _number
    evaluation = report["evaluation"]
    charts = {arm: draw_curves(measured) for arm, measured in evaluation["arms"].items()}
    return environment.get_template("report.html.j2").render(
        **report, charts=charts, wins_chart=draw_wins(evaluation["wins"])
    )


def read_summary(folder: Path) -> list[str]:
    """The findings of a finished run as lines for a terminal."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [*report["summary"], *(f"warning: {text}" for text in report["warnings"])]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _percent(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "-"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{100 * estimate['value']:.1f} % [{low:.0f}, {high:.0f}] n={estimate['count']}"


def _number(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate['value']:.3g} [{estimate['low']:.3g}, {estimate['high']:.3g}]"
