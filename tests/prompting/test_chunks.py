"""Chunks of labels: the same whether or not a run was interrupted, and counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, Evidence, LabelerConfig, Preference, Prompt, RlaifError
from rlaif_framework.prompting.chunks import MIN_CHUNK, LabelCounts, label_in_chunks

COMPARISONS = [Comparison(str(i), Prompt(str(i), "p", "p"), ("one\u2028two\x85three", "b")) for i in range(150)]


class Labeler:
    """Prefers the first response, until it has labelled so many chunks."""

    def __init__(self, chunks: int = 1000) -> None:
        self.chunks = chunks
        self.sizes: list[int] = []

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        if len(self.sizes) == self.chunks:
            raise RlaifError("the server is gone")
        self.sizes.append(len(comparisons))
        for c in comparisons:
            refused = "no" if c.id == "3" else None
            yield Preference(c.id, None if refused else (1.0, 0.0), Evidence("x", prompt_tokens=2, refused=refused))


def to_row(comparison: Comparison, preference: Preference) -> Mapping[str, Any]:
    return {"id": comparison.id, "responses": comparison.responses, "probabilities": preference.probabilities}


def label(rows: Path, labeler: Labeler, counts: LabelCounts) -> LabelCounts:
    remaining = COMPARISONS[counts.comparisons :]
    last = counts
    for last in label_in_chunks(labeler, LabelerConfig(kind="x"), remaining, rows, to_row, counts):
        last.save(rows.with_suffix(".json"))
    return last


def test_an_interrupted_run_labels_only_the_missing_chunks_and_gives_the_same_file(tmp_path: Path) -> None:
    rows, saved = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    with pytest.raises(RlaifError, match="the server is gone"):
        label(rows, Labeler(chunks=1), LabelCounts())
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"id": "64"}\n{"cut off')  # a kill before the chunk was counted
    counts = LabelCounts.load(saved, rows)
    assert counts.comparisons == MIN_CHUNK

    resumed, whole = Labeler(), Labeler()
    counts = label(rows, resumed, counts)
    expected = label(tmp_path / "whole.jsonl", whole, LabelCounts())
    assert (resumed.sizes, whole.sizes) == ([64, 22], [64, 64, 22])
    assert rows.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [json.loads(line)["id"] for line in rows.read_bytes().split(b"\n")[:-1]] == [c.id for c in COMPARISONS]
    assert replace(counts, seconds=0) == replace(expected, seconds=0)
    assert (counts.refused, counts.first_refusal, counts.unparsed, counts.prompt_tokens) == (1, "no", 0, 300)


def test_counts_without_their_rows_are_not_used(tmp_path: Path) -> None:
    rows, saved = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    assert LabelCounts.load(saved, rows) == LabelCounts()
    label(rows, Labeler(), LabelCounts())
    assert LabelCounts.load(saved, rows).comparisons == 150
    rows.write_text("{}\n")
    assert LabelCounts.load(saved, rows) == LabelCounts()
    saved.write_text('{"comparisons": 3}')  # written by another version
    assert LabelCounts.load(saved, rows) == LabelCounts()
