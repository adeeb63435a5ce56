"""Read tables of texts from artefacts, for trackers: labels of arms, and samples of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rlaif_framework.contracts.tracking import Table
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.pipeline.recipes import EvaluateRecipe, LabelRecipe
from rlaif_framework.pipeline.stages.sample import COMPARISONS
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.rows import load_comparisons, load_preferences

MAX_ROWS = 200
"""Maximum number of rows of a table; trackers are made for a look at texts, not for data."""


def read_tables(step: Step, artefact: Callable[[Step], Path]) -> Iterator[Table]:
    """Yield the tables of a step whose artefact is complete.

    Args:
        step: The step.
        artefact: Returns the folder of the artefact of a step.
    """
    folder = artefact(step)
    if isinstance(step.recipe, LabelRecipe):
        yield _read_labels(folder / PREFERENCES, artefact(step.recipe.sample) / COMPARISONS)
    elif isinstance(step.recipe, EvaluateRecipe):
        yield _read_responses(Evaluation.load(folder))
    elif (folder / "samples").is_dir():
        yield _read_samples(folder / "samples")


def _read_labels(preferences: Path, comparisons: Path) -> Table:
    labels = {preference.comparison: preference for preference in load_preferences(preferences)}
    rows = []
    for comparison in load_comparisons(comparisons)[:MAX_ROWS]:
        label = labels.get(comparison.id)
        first = label.probabilities[0] if label is not None and label.probabilities else None
        rows.append((comparison.id, comparison.prompt.text, *comparison.responses, first, comparison.preference))
    return Table("labels", ("comparison", "prompt", "first", "second", "probability of first", "gold"), rows)


def _read_samples(folder: Path) -> Table:
    """Read the samples of the last training step that has some: those of a policy that is trained."""
    last = max(folder.glob("step-*.jsonl"), key=lambda path: path.name, default=None)
    found = [row for _, row in read_rows(last)][:MAX_ROWS] if last is not None else []
    columns = list(dict.fromkeys(name for row in found for name in row))
    return Table("samples", columns, [[row.get(name) for name in columns] for row in found])


def _read_responses(evaluation: Evaluation) -> Table:
    policies = list(dict.fromkeys(name for sample in evaluation.samples for name in sample.responses))
    rows = [
        (sample.prompt, sample.reference, *(sample.responses.get(name) for name in policies))
        for sample in evaluation.samples
    ]
    return Table("samples", ("prompt", "reference", *policies), rows)
