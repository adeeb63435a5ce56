"""The dialogue task: dialogues as prompts, the assistant's next turn as the response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, ResponseMetrics, Split, Turn
from rlaif_framework.data import (
    ASSISTANT_CUE,
    AnnotatorPrompts,
    Divider,
    PairRow,
    Row,
    TaskData,
    join_transcript,
    make_comparison,
    split_transcript,
)
from rlaif_plugins.tasks.dialogue import DialogueConfig

# The speaker stays at the start of each turn.
TURN = re.compile(r"\n\n(?=Human:|Assistant:)")


class DialogueTask:
    """A task to write the assistant's next turn of a dialogue."""

    def __init__(self, config: DialogueConfig, context: Context) -> None:
        self.config = config
        self._context = context
        self._annotator_prompts = AnnotatorPrompts.load(
            Path(__file__).with_name(f"annotator_prompts-{config.quality}.yaml"), config.annotator_prompts
        )

    @cached_property
    def _metrics(self) -> ResponseMetrics:
        return self._context.build_metrics(self.config.metrics)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return each dialogue once. Its reference is the answer that raters preferred, if there is one."""
        found: dict[str, Prompt] = {}
        for comparison in self._comparisons[split]:
            better = None
            if comparison.preference not in (None, 0.5):
                better = comparison.responses[0 if (comparison.preference or 0) > 0.5 else 1]
            # A dialogue may have several pairs, of which the first provides the reference.
            found.setdefault(comparison.prompt.text, replace(comparison.prompt, reference=better))
        return list(found.values())

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return pairs of answers with the preference of human raters."""
        return self._comparisons[split]

    def data_notes(self) -> Sequence[str]:
        """Describe rows of the data that are left out."""
        return self._data[1]

    @property
    def _comparisons(self) -> dict[Split, list[Comparison]]:
        return self._data[0]

    @cached_property
    def _data(self) -> tuple[dict[Split, list[Comparison]], list[str]]:
        config = self.config
        if config.data is None:
            raise DataError(
                "task.data is missing: set it to a file or folder of pairs, e.g. a folder of Anthropic's hh-rlhf"
            )
        reader = TaskData(config.fields, config.skip_invalid)
        pairs = reader.read_pairs(config.data, self._compare)
        reader.check("set task.skip_invalid: true to skip them")
        divider = Divider((config.validation_fraction, config.test_fraction), pairs)
        return divider.divide(pairs, "comparisons"), [*reader.notes, *divider.notes]

    def _compare(self, pair: PairRow, row: Row) -> Comparison:
        comparison = make_comparison(pair, row.values)
        # A bare question becomes the first turn.
        source = join_transcript(split_transcript(comparison.prompt.source))
        # Only `rlaif label` writes responses back unchanged.
        return replace(comparison, prompt=self._with_cue(comparison.prompt, source), raw_responses=None)

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Drop the oldest turns until the prompt fits, then the beginning of the last turn. Responses are kept."""
        # The end of a dialogue matters most: it is what the response answers.
        turns = TURN.split(prompt.source)
        # Chat templates want a user's turn first.
        starts = [i for i in range(1, len(turns)) if turns[i].startswith("Human:")]
        words = turns[-1].split(" ")
        for source in chain(
            ("\n\n".join(turns[start:]) for start in starts),
            (" ".join(words[start:]) for start in range(1, len(words))),
        ):
            shorter = self._with_cue(prompt, source)
            if fits(shorter):
                return shorter
        raise DataError(f"prompt '{prompt.id}': not even one word of the dialogue fits; raise policy.max_prompt_tokens")

    def _with_cue(self, prompt: Prompt, source: str) -> Prompt:
        """Return the prompt for a dialogue: with a cue for the answer, and as turns."""
        turns = split_transcript(source)
        if self.config.system and turns[0].role != "system":
            turns.insert(0, Turn("system", self.config.system))
        return replace(prompt, source=source, text=source + ASSISTANT_CUE, turns=tuple(turns))

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompts for annotators. They have the structure of the paper's prompts, but not their wording."""
        return self._annotator_prompts

    def clean(self, response: str) -> str:
        """Drop everything after the assistant's turn."""
        # Policies trained on transcripts often continue with the user's next turn.
        return re.split(r"\n\n(?:Human|Assistant):", response)[0].strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the numbers of the metrics that apply to the response."""
        return self._metrics.measure([prompt], [response])[0]
