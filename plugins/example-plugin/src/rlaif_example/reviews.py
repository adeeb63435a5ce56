"""The task: a prompt is the beginning of a review, a response its continuation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from rlaif_example import ReviewsConfig
from rlaif_framework import Comparison, Context, DataError, Prompt, ResponseMetrics, Split, Turn
from rlaif_framework.data import AnnotatorPrompts
from rlaif_framework.records import read_rows

FOLDER = Path(__file__).parent
SPLITS: tuple[Split, ...] = get_args(Split)

Rows = Mapping[Split, Sequence[Mapping[str, Any]]]


class ReviewsTask:
    """Beginnings of reviews with one continuation each, or for validation with a positive and a negative one."""

    def __init__(self, config: ReviewsConfig, context: Context) -> None:
        self.config = config
        self._context = context

    @cached_property
    def _metrics(self) -> ResponseMetrics:
        return self._context.build_metrics(self.config.metrics)

    @cached_property
    def rows(self) -> Rows:
        """The rows of the data by split.

        Raises:
            DataError: The file cannot be read, or a row lacks a column or has another type in it.
        """
        path = self.config.data or FOLDER / "reviews.jsonl"
        rows: dict[Split, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for number, row in read_rows(path):
            if row.get("split") not in SPLITS:
                raise DataError(f"{path}, line {number}: 'split' must be one of {', '.join(SPLITS)}")
            texts = ("positive", "negative") if row["split"] == "validation" else ("continuation",)
            for name in ("id", "beginning", *texts):
                if not isinstance(row.get(name), str) or not row[name].strip():
                    raise DataError(f"{path}, line {number}: '{name}' must be a text that is not empty")
            rows[row["split"]].append(row)
        return rows

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the beginnings of a split; the reference is the continuation of the data, of any tone."""
        return [self._prompt(row) for row in self.rows[split]]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return a positive and a negative continuation of each beginning; only the validation split has them."""
        found = []
        for number, row in enumerate(self.rows[split] if split == "validation" else ()):
            positive_first = number % 2 == 0
            pair = (row["positive"], row["negative"])
            responses = pair if positive_first else (pair[1], pair[0])
            found.append(Comparison(row["id"], self._prompt(row), responses, float(positive_first), "synthetic"))
        return found

    def _prompt(self, row: Mapping[str, Any]) -> Prompt:
        return self._with_source(Prompt(row["id"], "", "", row.get("continuation")), row["beginning"])

    def _with_source(self, prompt: Prompt, source: str) -> Prompt:
        """Return the prompt for a beginning: the text itself, and a request to continue it for chat models."""
        turns = (Turn("user", f"{self.config.instruction}\n\n{source}"),)
        return replace(prompt, text=source, source=source, turns=turns)

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Drop words at the start until the prompt fits, because a continuation follows the last words.

        Raises:
            DataError: Not even the last word fits.
        """
        words = prompt.source.split(" ")
        for start in range(1, len(words)):
            shorter = self._with_source(prompt, " ".join(words[start:]))
            if fits(shorter):
                return shorter
        raise DataError(f"prompt '{prompt.id}': not even its last word fits; raise policy.max_prompt_tokens")

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompts for labelers that ask a language model, such as `llm`."""
        return AnnotatorPrompts.load(FOLDER / "annotator_prompts.yaml")

    def clean(self, response: str) -> str:
        """Keep the first line: a continuation is one paragraph."""
        return response.strip().partition("\n")[0].strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the numbers of the metrics that apply to the response."""
        return self._metrics.measure([prompt], [response])[0]
