"""The report of a run: `report.json`, and `report.html` that any browser opens without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_framework.report.charts import draw_curves, draw_lengths, draw_reliability, draw_wins
from rlaif_framework.report.findings import find_warnings, summarise
from rlaif_framework.report.page import render_page
from rlaif_framework.store import write_atomic

if TYPE_CHECKING:
    from rlaif_framework.pipeline.engine import Run


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
    write_atomic(run.folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    write_atomic(run.folder / "report.html", render_html(report))


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
    evaluation = report["evaluation"]
    charts = {arm: draw_curves(measured) for arm, measured in evaluation["arms"].items()}
    rewards = {arm: measured for arm, measured in evaluation["arms"].items() if measured["reward_gain"]}
    return render_page(
        "report.html.j2",
        **report,
        charts=charts,
        wins_chart=draw_wins(evaluation["wins"]),
        reliability_chart=draw_reliability({arm: measured["calibration"] for arm, measured in rewards.items()}),
        lengths_chart=draw_lengths({arm: measured["lengths"] for arm, measured in rewards.items()}),
    )


def read_summary(folder: Path) -> list[str]:
    """The findings of a finished run as lines for a terminal."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [*report["summary"], *(f"warning: {text}" for text in report["warnings"])]
