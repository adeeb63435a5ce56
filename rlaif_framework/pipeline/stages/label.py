"""Label comparisons, row by row: for training, for measuring a labeler, and for judging policies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.contracts.validation import check_preferences
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.records.jsonl import dump_row
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.records.rows import load_preferences

PREFERENCES = "preferences.jsonl"


CHUNK = 64
"""Comparisons labelled together, at least: as often are they written."""


def label_comparisons(
    stage: Stage, context: Context, config: LabelerConfig, comparisons: Sequence[Comparison]
) -> list[Preference]:
    """Write `preferences.jsonl`, one row a comparison, in their order, and give the preferences.

    Comparisons go to the labeler in chunks of fixed size, and a chunk is written when it is whole: a run that was
    stopped goes on at the first chunk that is missing and batches exactly as an uninterrupted one.
    """
    path = stage.checkpoint / PREFERENCES
    size = chunk_size(config)
    done = _finished_rows(path, size)
    preferences: list[Preference] = []
    if done < len(comparisons):
        labeler = context.build_labeler(config)
        chunks = range(done, len(comparisons), size)
        for start in stage.track(chunks, -(-len(comparisons) // size), f"labelling, {size} at a time", done // size):
            chunk = comparisons[start : start + size]
            rows = list(check_preferences(labeler.label(chunk), chunk, config.kind))
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(dump_row(asdict(row)) for row in rows))
    (stage.folder / PREFERENCES).write_bytes(path.read_bytes() if path.exists() else b"")
    preferences = load_preferences(stage.folder / PREFERENCES)
    unparsed = sum(p.unparsed for p in preferences)
    source_truncated = sum(p.evidence.source_truncated for p in preferences)
    refused = sum(p.evidence.refused is not None for p in preferences)
    inconsistent = sum(p.evidence.inconsistent and p.probabilities is None for p in preferences)
    stage.facts.update(
        comparisons=len(comparisons), unparsed=unparsed, source_truncated=source_truncated, inconsistent=inconsistent
    )
    stage.facts.update(refused=refused)
    return preferences


def chunk_size(config: LabelerConfig) -> int:
    """How many comparisons to label together: what suits a labeler, such as the requests its server takes at once."""
    return max(CHUNK, config.preferred_chunk_size())


def _finished_rows(path: Path, size: int) -> int:
    """Rows of whole chunks; what an interruption cut off after them is dropped."""
    if not path.exists():
        return 0
    rows = path.read_bytes().split(b"\n")[:-1]  # as bytes: text may hold other characters that end lines
    kept = len(rows) - len(rows) % size
    os.truncate(path, sum(len(row) + 1 for row in rows[:kept]))
    return kept
