"""Label a file of pairs chunk by chunk, in constant memory, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import describe_component, describe_task
from rlaif_framework.contracts.protocols import Labeler
from rlaif_framework.contracts.validation import check_preferences
from rlaif_framework.data.pairs import PairsFile
from rlaif_framework.labelling.rows import to_row
from rlaif_framework.pipeline.stages.label import chunk_size
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.records.jsonl import dump_row
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.spec.model import PolicyConfig
from rlaif_framework.store import hash_content

NO_POLICY = "(rlaif label has no policy)"


@dataclass
class Record:
    """What was labelled with what, how far it is, and what it took: `labels.meta.json` beside the labels."""

    key: str
    """Hash of all that determines the labels; labels of another key are made anew."""
    pairs: str
    comparisons: int
    labeler: dict[str, Any]
    task: dict[str, Any]
    seed: int = 0
    done: int = 0
    """Comparisons labelled and written, whole chunks."""
    size: int = 0
    """Bytes of their rows."""
    unparsed: int = 0
    source_truncated: int = 0
    """Comparisons whose source was cut to fit into the model's context."""
    responses_truncated: int = 0
    """Comparisons with a response that was cut because it alone is longer than the model's context."""
    inconsistent: int = 0
    """Comparisons whose label was withheld because both orders disagree."""
    refused: int = 0
    """Comparisons without a label because the backend would not answer."""
    refusal: str | None = None
    """Why, for the first of them."""
    seconds: float = 0.0
    """In the labeler, from the first chunk on: loading a model does not count."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, of backends that know their prices."""
    made: list[str] = field(default_factory=list)
    """Reports and preference sets made of these labels, which may be made again."""

    @property
    def complete(self) -> bool:
        """Whether all comparisons are labelled."""
        return self.done == self.comparisons

    def add(self, preferences: Iterable[Preference], seconds: float, size: int) -> None:
        """Count a finished chunk."""
        self.seconds += seconds
        self.size += size
        for preference in preferences:
            evidence = preference.evidence
            self.done += 1
            self.unparsed += preference.unparsed
            self.source_truncated += evidence.source_truncated
            self.refused += evidence.refused is not None
            self.refusal = self.refusal or evidence.refused
            self.responses_truncated += evidence.responses_truncated > 0
            self.inconsistent += evidence.inconsistent and preference.probabilities is None
            self.prompt_tokens += evidence.prompt_tokens
            self.generated_tokens += evidence.generated_tokens
            self.cost += evidence.cost


def label_context(task: TaskConfig, manager: PluginManager, seed: int = 0, batch_tokens: int | None = None) -> Context:
    """What labelers are given where there is a task and no policy."""
    policy = PolicyConfig(model=NO_POLICY)
    if batch_tokens is not None:
        policy = policy.model_copy(update={"batch_tokens": batch_tokens})
    return Context(task, policy, seed, manager)


def label_pairs(pairs: PairsFile, config: LabelerConfig, context: Context, out: Path, progress: Progress) -> Record:
    """Write one row a comparison into `out`, in the order of the pairs.

    Chunks go to `out` with `.partial` behind its name as they are finished; the file gets its name when it is whole.
    If it is there already and neither pairs nor labeler nor task have changed, nothing is done.

    Raises:
        RlaifError: The labeler cannot be built, or fails.
    """
    record, found = _open_record(pairs, config, context, out)
    partial = out.with_name(f"{out.name}.partial")
    if record.complete and _size(out) == record.size:
        progress.print(f"{out}: labelled before")
        return record
    if _size(partial) < record.size:
        record = _new_record(pairs, config, context, record.made)  # whoever removed the rows wants them again
    if found and record.done == 0:
        progress.print(f"{out}: starting anew, as pairs, labeler, task or seed changed")
    elif record.done:
        progress.print(f"{out}: going on after {record.done} of {record.comparisons} comparisons")
    out.parent.mkdir(parents=True, exist_ok=True)
    labeler = context.build_labeler(config)
    with partial.open("ab") as file:
        file.truncate(record.size)  # what an interruption cut off
        size = chunk_size(config)
        chunks = _cut_chunks(islice(pairs.read(), record.done, None), size)
        text = f"labelling by {config.kind}, {size} at a time"
        for chunk in progress.track(chunks, -(-record.comparisons // size), text, record.done // size):
            _label_chunk(labeler, chunk, config.kind, record, file)
            save_record(record, out)
    partial.replace(out)
    return record


def _cut_chunks(comparisons: Iterator[Comparison], size: int) -> Iterator[list[Comparison]]:
    while chunk := list(islice(comparisons, size)):
        yield chunk


def _label_chunk(labeler: Labeler, chunk: list[Comparison], kind: str, record: Record, file: BinaryIO) -> None:
    start = time.monotonic()
    preferences = list(check_preferences(iter(labeler.label(chunk)), chunk, kind))
    seconds = time.monotonic() - start
    text = "".join(map(dump_row, map(to_row, chunk, preferences))).encode()
    file.write(text)
    file.flush()
    record.add(preferences, seconds, len(text))


def _new_record(pairs: PairsFile, config: LabelerConfig, context: Context, made: Iterable[str] = ()) -> Record:
    labeler, task = describe_component(config, context), describe_task(context)
    seed = context.seed
    key = hash_content({"pairs": pairs.digest, "labeler": labeler, "task": task, "seed": seed})
    return Record(key, str(pairs.path), pairs.count, labeler, task, seed, made=list(made))


def _open_record(pairs: PairsFile, config: LabelerConfig, context: Context, out: Path) -> tuple[Record, bool]:
    """The record to go on with, and whether there was one at all."""
    known = read_record(out)
    new = _new_record(pairs, config, context, known.made if known else ())
    return (known if known and known.key == new.key else new), known is not None


def read_record(out: Path) -> Record | None:
    """The record beside labels; None if there is none, or another program's file stands in its place."""
    try:
        found = json.loads(record_path(out).read_text(encoding="utf-8"))
        # Of another version, some may be missing and some not known any more.
        return Record(**{name: found[name] for name in (f.name for f in fields(Record)) if name in found})
    except (FileNotFoundError, TypeError, ValueError, AttributeError):
        return None


def save_record(record: Record, out: Path) -> None:
    """Write the record beside labels."""
    path = record_path(out)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def record_path(out: Path) -> Path:
    """Where the record of labels is kept."""
    return out.with_suffix(".meta.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
