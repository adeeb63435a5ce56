"""Label a file of pairs in constant memory, with a record beside the labels from which an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import describe_component, describe_task, without_metrics
from rlaif_framework.data.pairs_file import PairsFile
from rlaif_framework.files import write_atomic
from rlaif_framework.labelling.rows import to_row
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.progress import Progress
from rlaif_framework.prompting.chunks import LabelCounts, chunk_size, label_in_chunks
from rlaif_framework.store import hash_content


class LabelRecord(BaseModel):
    """The content of `labels.meta.json`: what was labelled, by which labeler, and the counts so far."""

    key: str
    """Hash of everything that determines the labels. If it changes, the comparisons are labelled again."""
    pairs: str
    """The file of pairs, or another name of the data."""
    comparisons: int
    """Number of comparisons to label."""
    labeler: dict[str, Any]
    """The labeler's settings, models and versions."""
    task: dict[str, Any]
    """The task's settings and annotator prompts."""
    seed: int
    counts: LabelCounts = LabelCounts()
    """Counts over the labels written so far."""
    made: list[str] = []
    """Paths of reports and preference data sets that were written from these labels. A later run may replace them."""

    @property
    def complete(self) -> bool:
        """True if all comparisons are labelled."""
        return self.counts.comparisons == self.comparisons

    @classmethod
    def create(cls, pairs: PairsFile, config: LabelerConfig, context: Context, made: Iterable[str] = ()) -> LabelRecord:
        """Create the record of labels that have yet to be written."""
        labeler, seed = describe_component(config, context), context.seed
        task = describe_task(without_metrics(context.task_config), context)
        return cls(
            # Without `batch_tokens`, which changes labels only by rounding.
            key=hash_content({"pairs": pairs.digest, "labeler": labeler, "task": task, "seed": seed}),
            pairs=pairs.name,
            comparisons=pairs.count,
            labeler=labeler,
            task=task,
            seed=seed,
            made=list(made),
        )

    def save(self, out: Path) -> None:
        """Write the record beside the labels."""
        write_atomic(record_path(out), self.model_dump_json(indent=1))


def label_pairs(
    pairs: PairsFile, config: LabelerConfig, context: Context, out: Path, progress: Progress, title: str = ""
) -> LabelRecord:
    """Write one row per comparison to `out`, in the order of the pairs.

    Finished chunks are appended to `out` with the suffix `.partial`, which is renamed once all are written. If `out` is
    already complete and neither pairs nor labeler nor task nor seed have changed, nothing is done.

    Args:
        pairs: The comparisons.
        config: The labeler.
        context: Its context.
        out: File for the labels.
        progress: Where to print.
        title: Name of the labels in messages; by default their path.

    Raises:
        RlaifError: The labeler cannot be built, or fails.
    """
    partial, title = out.with_name(f"{out.name}.partial"), title or str(out)
    previous = read_record(out)
    record = LabelRecord.create(pairs, config, context, previous.made if previous else ())
    if previous is not None and previous.key == record.key:
        if previous.complete and _size(out) == previous.counts.file_size:
            progress.print(f"{title}: already complete")
            return previous
        if _size(partial) >= previous.counts.file_size:  # else its rows were removed, and are labelled again
            record = previous
    elif previous is not None:
        # The new record keeps `made`: the report and the export of the old labels may be replaced.
        progress.print(f"{title}: starting over, because the pairs, the labeler, the task or the seed have changed")
    done, size = record.counts.comparisons, chunk_size(config)
    if done:
        progress.print(f"{title}: resuming after {done} of {record.comparisons} comparisons")
    out.parent.mkdir(parents=True, exist_ok=True)
    chunks = label_in_chunks(context.build_labeler(config), config, pairs.read(done), partial, to_row, record.counts)
    text = f"labelling with {config.kind}, {size} at a time"
    for counts in progress.track(chunks, -(-record.comparisons // size), text, done // size):
        # Saved after the rows of the chunk: if an interruption falls between the two, the chunk is labelled again.
        record.counts = counts
        record.save(out)
    partial.replace(out)  # only now, so that a file under the final name is always complete
    return record


def read_record(out: Path) -> LabelRecord | None:
    """Read the record beside labels; None if there is none, or if the file has another format."""
    try:
        return LabelRecord.model_validate_json(record_path(out).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def record_path(out: Path) -> Path:
    """Return the path of the record of labels."""
    return out.with_suffix(".meta.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
