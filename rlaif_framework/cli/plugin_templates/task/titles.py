"""Texts as prompts, titles as responses. `TaskData` reads and checks the rows, `Divider` makes the splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, Split, Turn
from rlaif_framework.data import AnnotatorPrompts, Divider, Row, TaskData, truncate_text

from rlaif_acme import TitlesConfig

CUE = "\n\nTITLE:"


class TitlesTask:
    """A title for each text. A worse one makes a comparison."""

    def __init__(self, config: TitlesConfig, context: Context) -> None:
        self.config = config

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the prompts of a split; their references are the titles."""
        return [prompt for prompt, _ in self._rows[split]]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return a comparison for each text with a worse title."""
        found = []
        for number, (prompt, worse) in enumerate(self._rows[split]):
            if worse is not None and prompt.reference is not None:
                # Not always in the same place: labelers could learn that.
                pair = (prompt.reference, worse) if number % 2 == 0 else (worse, prompt.reference)
                found.append(Comparison(prompt.id, prompt, pair, float(number % 2 == 0), "synthetic"))
        return found

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Truncate the text at its end; the cue stays."""
        source = truncate_text(prompt.source, lambda text: fits(prompt.replace_source(text)))
        shorter = prompt.replace_source(source)
        if not source or not fits(shorter):
            raise DataError(f"prompt '{prompt.id}': not even one word fits; raise policy.max_prompt_tokens")
        return shorter

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompt templates for annotators, from a file that users can override key by key."""
        return AnnotatorPrompts.load(Path(str(files("rlaif_acme") / "annotator_prompts.yaml")))

    def clean(self, response: str) -> str:
        """Keep the first line: policies often go on with another text."""
        return response.strip().partition("\n")[0].strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Count words, and the share of them that are in the text."""
        words = response.lower().split()
        known = set(prompt.source.lower().split())
        return {"words": float(len(words)), "copied": sum(word in known for word in words) / max(1, len(words))}

    @cached_property
    def _rows(self) -> Mapping[Split, Sequence[tuple[Prompt, str | None]]]:
        """The prompt and the worse title of each row, by split. Invalid rows are reported together."""
        place = self.config.data
        if place == "examples":
            place = str(files("rlaif_acme") / "titles.jsonl")
        reader = TaskData({})
        rows = reader.read(place, read_row)
        reader.check()
        fractions = (self.config.validation_fraction, self.config.test_fraction)
        return Divider(fractions, rows).divide(rows, "texts")


def read_row(row: Row) -> Iterator[tuple[str, tuple[Prompt, str | None]]]:
    """Yield the text that decides about the split, and what is made from the row.

    Raises:
        DataError: The row has no text, or a value of another type. The file and the line are added.
    """
    values = {name: row.values.get(name) for name in ("text", "title", "worse")}
    for name, value in values.items():
        if not (isinstance(value, str) and value.strip()) and not (value is None and name != "text"):
            raise DataError(f"'{name}' must be a text, got {value!r}")
    text, title, worse = (None if value is None else value.strip() for value in values.values())
    assert text is not None  # checked above
    turn = Turn("user", f"Write a title for this text.\n\n{text}")  # for policies with a chat template
    prompt = Prompt(str(row.place), f"TEXT: {text}{CUE}", source=text, reference=title, turns=(turn,))
    yield text, (prompt, worse)
