"""The dialogue task: dialogues as prompts, the assistant's next turn as the response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, Split
from rlaif_framework.data import ASSISTANT_CUE, AnnotatorPrompts, Divider, TaskData, copy_rate, make_comparison
from rlaif_plugins.tasks.dialogue import DialogueConfig

# The speaker stays at the start of each turn.
TURN = re.compile(r"\n\n(?=Human:|Assistant:)")


class DialogueTask:
    """A task to write the assistant's next turn of a dialogue."""

    def __init__(self, config: DialogueConfig, context: Context) -> None:
        self.config = config
        self._annotator_prompts = AnnotatorPrompts.load(
            Path(__file__).with_name(f"annotator_prompts-{config.quality}.yaml"), config.annotator_prompts
        )

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
        pairs = reader.read_pairs(config.data, lambda pair, row: _with_cue(make_comparison(pair, row.values)))
        reader.check("set task.skip_invalid: true to skip them")
        divider = Divider((config.validation_fraction, config.test_fraction), pairs)
        return divider.divide(pairs, "comparisons"), [*reader.notes, *divider.notes]

    def truncate(self, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt:
        """Drop the oldest turns until the prompt fits, then the beginning of the last turn. Responses are kept."""
        # The end of a dialogue matters most: it is what the response answers.
        turns = TURN.split(prompt.source)
        for start in range(1, len(turns)):
            source = "\n\n".join(turns[start:])
            if fits(source + ASSISTANT_CUE):
                return replace(prompt, source=source, text=source + ASSISTANT_CUE)
        words = turns[-1].split(" ")
        for start in range(1, len(words)):
            source = " ".join(words[start:])
            if fits(source + ASSISTANT_CUE):
                return replace(prompt, source=source, text=source + ASSISTANT_CUE)
        raise DataError(f"prompt '{prompt.id}': not even one word of the dialogue fits; raise policy.max_prompt_tokens")

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompts for annotators. They have the structure of the paper's prompts, but not their wording."""
        return self._annotator_prompts

    def clean(self, response: str) -> str:
        """Drop everything after the assistant's turn."""
        # Policies trained on transcripts often continue with the user's next turn.
        return re.split(r"\n\n(?:Human|Assistant):", response)[0].strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the number of words, and the fraction of the response that is copied from the dialogue."""
        return {"words": float(len(response.split())), "copy_rate": copy_rate(prompt.source, response)}


def _with_cue(comparison: Comparison) -> Comparison:
    """Append the cue for an answer to the dialogue. A bare question becomes its first turn."""
    source = comparison.prompt.source
    if not source.startswith(("Human:", "Assistant:", "System:")):
        source = f"Human: {source}"
    prompt = replace(comparison.prompt, source=source, text=source + ASSISTANT_CUE)
    # Only `rlaif label` writes responses back unchanged.
    return replace(comparison, prompt=prompt, raw_responses=None)
