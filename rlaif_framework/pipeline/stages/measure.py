"""Measure the responses of a policy with a metric of the evaluation."""

from __future__ import annotations

from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.pipeline.recipes import MeasureRecipe
from rlaif_framework.pipeline.stages.respond import read_responses
from rlaif_framework.records.jsonl import read_rows, write_rows

MEASURED = "measured.jsonl"


def measure_responses(stage: Stage, context: Context, recipe: MeasureRecipe) -> None:
    """Write `measured.jsonl`: the numbers that apply to each response."""
    step = recipe.responses
    texts = [p.reference or "" for p in recipe.prompts] if step is None else read_responses(stage.artefact(step))
    # All at once: a metric with a model needs batches.
    rows = context.build_metrics([recipe.metric]).measure(recipe.prompts, texts)
    numbered = zip(recipe.prompts, rows, strict=True)
    write_rows(stage.folder / MEASURED, ({"prompt": prompt.id, "metrics": row} for prompt, row in numbered))


def read_measured(folder: Path) -> list[dict[str, float]]:
    """Read the numbers of each response, in the order of the prompts."""
    return [row["metrics"] for _, row in read_rows(folder / MEASURED)]
