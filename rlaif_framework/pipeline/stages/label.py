"""Label comparisons: for training, for measuring a labeler, and for judging policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.prompting.chunks import LabelCounts, chunk_size, label_in_chunks
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.records.rows import dump_evidence, load_preferences

COUNTS = "preferences.counts.json"
USAGE = ("prompt_tokens", "generated_tokens", "cost")
"""What labels took, of the counts below."""
FACTS = (
    "comparisons",
    "unparsed",
    "source_truncated",
    "responses_truncated",
    "inconsistent",
    "refused",
    "unanswered",
    *USAGE,
)
"""Counts that are recorded in the artefact's manifest."""


def label_comparisons(
    stage: Stage, context: Context, config: LabelerConfig, comparisons: Sequence[Comparison]
) -> list[Preference]:
    """Write `preferences.jsonl`, one row per comparison in their order, and return the preferences.

    Rows are written per chunk into the checkpoint folder (see `label_in_chunks`), so that an interrupted run resumes at
    the first missing chunk.
    """
    rows, saved = stage.checkpoint / PREFERENCES, stage.checkpoint / COUNTS
    counts, size = LabelCounts.load(saved, rows), chunk_size(config)
    if counts.comparisons < len(comparisons):  # otherwise no labeler is built, which may load a model
        remaining = comparisons[counts.comparisons :]
        chunks = label_in_chunks(context.build_labeler(config), config, remaining, rows, _to_row, counts)
        total, done = -(-len(comparisons) // size), counts.comparisons // size
        for counts in stage.track(chunks, total, f"labelling, {size} at a time", done):
            counts.save(saved)
    # Without comparisons, there is no file of rows.
    (stage.folder / PREFERENCES).write_bytes(rows.read_bytes() if rows.exists() else b"")
    stage.facts.update({name: getattr(counts, name) for name in FACTS})
    return load_preferences(stage.folder / PREFERENCES)


def _to_row(comparison: Comparison, preference: Preference) -> Mapping[str, Any]:
    return {**asdict(preference), "evidence": dump_evidence(preference.evidence)}
