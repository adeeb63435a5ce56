"""Label comparisons in chunks of fixed size, so that an interrupted run resumes at the first missing chunk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif_framework.contracts.protocols import Labeler
from rlaif_framework.files import read_json, write_atomic
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.records.jsonl import dump_row
from rlaif_framework.records.preferences import Comparison, Preference

MIN_CHUNK = 64
"""Minimum number of comparisons per chunk. Rows are written after each chunk."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts over the labels that have been written so far."""

    comparisons: int = 0
    """Comparisons in finished chunks."""
    file_size: int = 0
    """Bytes of their rows."""
    unparsed: int = 0
    """Comparisons without a label because an answer could not be read."""
    source_truncated: int = 0
    """Comparisons whose source was truncated to fit into the model's context."""
    responses_truncated: int = 0
    """Comparisons with a response that was truncated because it alone exceeds the model's context."""
    inconsistent: int = 0
    """Comparisons whose label was withheld because the two orders disagree."""
    refused: int = 0
    """Comparisons without a label because the backend refused to answer."""
    first_refusal: str | None = None
    """Reason of the first refusal."""
    unanswered: int = 0
    """Requests that were sent without an answer. The provider may have charged for them."""
    seconds: float = 0.0
    """Time spent in the labeler. Loading a model before the first chunk is not included."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, for backends with known prices."""

    def add(self, preferences: Iterable[Preference], seconds: float, file_size: int) -> LabelCounts:
        """Return the counts after one more chunk."""
        new = list(preferences)
        evidence = [preference.evidence for preference in new]
        refusals = [e.refused for e in evidence if e.refused is not None]
        return replace(
            self,
            comparisons=self.comparisons + len(new),
            file_size=self.file_size + file_size,
            unparsed=self.unparsed + sum(p.unparsed for p in new),
            source_truncated=self.source_truncated + sum(e.source_truncated for e in evidence),
            responses_truncated=self.responses_truncated + sum(e.responses_truncated > 0 for e in evidence),
            # An ensemble may have a label although one of its members was inconsistent.
            inconsistent=self.inconsistent + sum(p.evidence.inconsistent and p.probabilities is None for p in new),
            refused=self.refused + len(refusals),
            first_refusal=self.first_refusal or next(iter(refusals), None),
            unanswered=self.unanswered + sum(e.unanswered for e in evidence),
            seconds=self.seconds + seconds,
            prompt_tokens=self.prompt_tokens + sum(e.prompt_tokens for e in evidence),
            generated_tokens=self.generated_tokens + sum(e.generated_tokens for e in evidence),
            cost=self.cost + sum(e.cost for e in evidence),
        )

    def save(self, path: Path) -> None:
        """Write the counts as JSON."""
        write_atomic(path, json.dumps(asdict(self), ensure_ascii=False))

    @classmethod
    def load(cls, path: Path, rows: Path) -> LabelCounts:
        """Read the counts of an interrupted run; zero if there are none or if their rows are missing."""
        found = read_json(path)
        # Another version of this class may have written other fields.
        if not isinstance(found, dict) or found.keys() != {field.name for field in fields(cls)}:
            return cls()
        counts = cls(**found)
        return counts if rows.exists() and rows.stat().st_size >= counts.file_size else cls()


def chunk_size(config: LabelerConfig) -> int:
    """Return the number of comparisons to label together, e.g. the number of requests a server takes at once."""
    return max(MIN_CHUNK, config.preferred_chunk_size())


def label_in_chunks(
    labeler: Labeler,
    config: LabelerConfig,
    comparisons: Iterable[Comparison],
    rows: Path,
    to_row: Callable[[Comparison, Preference], Mapping[str, Any]],
    counts: LabelCounts,
) -> Iterator[LabelCounts]:
    """Label comparisons chunk by chunk and append one row for each to a file.

    A chunk is written as a whole. Whatever an interruption left behind the last counted chunk is dropped, so that a
    resumed run has the same chunks, and hence the same batches, as an uninterrupted one. Memory does not grow with the
    number of comparisons.

    Args:
        labeler: Labels each chunk.
        config: The labeler's config. It determines the chunk size.
        comparisons: The comparisons that `counts` does not include yet, in order.
        rows: The JSON Lines file to append to.
        to_row: Converts a comparison and its preference to a row.
        counts: Counts of the chunks that are already in the file.

    Yields:
        The counts after each chunk. The caller saves them.
    """
    remaining, size = iter(comparisons), chunk_size(config)
    with rows.open("ab") as file:  # binary, since `file_size` counts bytes
        file.truncate(counts.file_size)
        while chunk := list(islice(remaining, size)):
            start = time.monotonic()
            # All preferences of the chunk are there, and checked, before any of its rows is written.
            preferences = list(labeler.label(chunk))
            seconds = time.monotonic() - start
            text = "".join(map(dump_row, map(to_row, chunk, preferences))).encode()
            file.write(text)
            file.flush()  # the caller saves the counts next, which must not include rows that are not in the file
            counts = counts.add(preferences, seconds, len(text))
            yield counts
