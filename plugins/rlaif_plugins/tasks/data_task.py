"""The base of tasks whose prompts and comparisons are rows of data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, ResponseMetrics, Split
from rlaif_framework.data import AnnotatorPrompts, Divider, Placed, Row, TaskData, hash_texts
from rlaif_plugins.tasks.config import DataTaskConfig


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """The data of a task, by split."""

    prompts: Mapping[Split, Sequence[Prompt]]
    comparisons: Mapping[Split, Sequence[Comparison]]
    notes: Sequence[str]
    """One sentence for each group of rows that were left out."""


class DataTask(ABC):
    """A task that reads its data when they are first needed, all at once.

    Args:
        config: The settings.
        annotator_prompts: The file of the task's annotator prompts.
        context: The context of the run.
    """

    def __init__(self, config: DataTaskConfig, annotator_prompts: Path, context: Context) -> None:
        self._context, self._metric_configs = context, config.metrics
        self.fractions = (config.validation_fraction, config.test_fraction)
        self._annotator_prompts = AnnotatorPrompts.load(annotator_prompts, config.annotator_prompts)

    @abstractmethod
    def read_data(self) -> TaskSplits:
        """Read all data.

        Raises:
            DataError: A data set cannot be read, or has invalid rows.
        """

    @cached_property
    def data(self) -> TaskSplits:
        """The data, read on first use."""
        return self.read_data()

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the prompts of a split with their references."""
        return self.data.prompts[split]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return the comparisons of a split; empty if there are none."""
        return self.data.comparisons[split]

    def data_notes(self) -> Sequence[str]:
        """Describe rows of the data that are left out."""
        return self.data.notes

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompts for annotators. They have the structure of the paper's prompts, but not their wording."""
        return self._annotator_prompts

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the numbers of the metrics that apply to the response."""
        return self._metrics.measure([prompt], [response])[0]

    @cached_property
    def _metrics(self) -> ResponseMetrics:
        return self._context.build_metrics(self._metric_configs)

    def divide(
        self,
        reader: TaskData,
        prompts: Sequence[Placed[tuple[Row, Prompt]]] | None,
        comparisons: Sequence[Placed[Comparison]],
    ) -> TaskSplits:
        """Divide what was read into splits that share no text.

        Args:
            reader: Its notes are kept.
            prompts: The prompts, each with its row. If None, they are those of the comparisons.
            comparisons: The comparisons.

        Raises:
            DataError: Two different prompts in one file, or in one split, have the same id.
        """
        divider = Divider(self.fractions, [*(prompts or ()), *comparisons])
        # Two prompts with one id are reported even if one of them is dropped.
        identified = None if prompts is None else make_ids_unique(prompts)
        divided = None if identified is None else divider.divide(identified, "prompts")
        pairs = divider.divide(comparisons, "comparisons")
        if divided is None:
            divided = {split: collect_prompts(found) for split, found in pairs.items()}
        return TaskSplits(divided, pairs, [*reader.notes, *divider.notes])


def collect_prompts(comparisons: Iterable[Comparison]) -> list[Prompt]:
    """Return each prompt of comparisons once. Its reference is the response that raters preferred, if there is one."""
    found: dict[str, Prompt] = {}
    for comparison in comparisons:
        better = comparison.prompt.reference
        if better is None and comparison.preference not in (None, 0.5):
            better = comparison.responses[0 if (comparison.preference or 0) > 0.5 else 1]
        # A prompt may have several pairs, of which the first that has one provides the reference.
        text = comparison.prompt.text
        if text not in found:
            found[text] = replace(comparison.prompt, reference=better)
        elif found[text].reference is None:
            found[text] = replace(found[text], reference=better)
    return list(found.values())


def make_ids_unique(prompts: Sequence[Placed[tuple[Row, Prompt]]]) -> list[Placed[Prompt]]:
    """Make the ids of prompts unique: results are looked up by id.

    Raises:
        DataError: Two different prompts in one file, or in one split, have the same id.
    """
    seen: dict[tuple[str, str], Row] = {}
    found: list[Placed[Prompt]] = []
    for placed in prompts:
        row, prompt = placed.item
        scopes = (row.file, placed.split or "")
        first = next((seen[scope, prompt.id] for scope in scopes if (scope, prompt.id) in seen), None)
        if first is not None and prompt.id != hash_texts(prompt.text):
            raise DataError(f"{row.where}: the id '{prompt.id}' is already used in {first.where}; ids must be unique")
        if first is not None:  # the same text again, without an id of its own
            prompt = replace(prompt, id=f"{prompt.id}-{len(seen)}")
        seen |= {(scope, prompt.id): row for scope in scopes}
        found.append(Placed(prompt, placed.text, placed.split))
    return found
