"""The dialogue task: dialogues as prompts, the assistant's next turn as the response."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt
from rlaif_framework.data import (
    PairRow,
    Row,
    TaskData,
    check_dialogue,
    hash_texts,
    join_transcript,
    make_comparison,
    split_transcript,
    truncate_dialogue,
    with_dialogue,
)
from rlaif_plugins.tasks.data_task import DataTask, TaskSplits
from rlaif_plugins.tasks.dialogue import DialogueConfig


class DialogueTask(DataTask):
    """A task to write the assistant's next turn of a dialogue. Its prompts are those of its pairs."""

    def __init__(self, config: DialogueConfig, context: Context) -> None:
        super().__init__(config, Path(__file__).with_name(f"annotator_prompts-{config.quality}.yaml"), context)
        self.config = config

    def read_data(self) -> TaskSplits:
        """Read the pairs of answers with the preferences of human raters."""
        config = self.config
        if config.data is None:
            raise DataError(
                "task.data is missing: set it to a file or folder of pairs, e.g. a folder of Anthropic's hh-rlhf"
            )
        reader = TaskData(config.fields, config.skip_invalid)
        pairs = reader.read_pairs(config.data, self._compare)
        reader.check("set task.skip_invalid: true to skip them")
        return self.divide(reader, None, pairs)

    def format_prompt(self, text: str) -> Prompt:
        """Return the prompt for a question, or for a dialogue as a transcript."""
        turns = split_transcript(text)
        check_dialogue(turns)
        prompt = with_dialogue(Prompt("", "", ""), join_transcript(turns), self.config.system)
        return replace(prompt, id=hash_texts(prompt.text))

    def _compare(self, pair: PairRow, row: Row) -> Comparison:
        comparison = make_comparison(pair, row.values)
        # A bare question becomes the first turn.
        source = join_transcript(split_transcript(comparison.prompt.source))
        # Only `rlaif label` writes responses back unchanged.
        prompt = with_dialogue(comparison.prompt, source, self.config.system)
        return replace(comparison, prompt=prompt, raw_responses=None)

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Drop the oldest turns until the prompt fits, then the beginning of the last turn. Responses are kept."""
        return truncate_dialogue(prompt, fits, self.config.system)

    def clean(self, response: str) -> str:
        """Drop everything after the assistant's turn."""
        # Policies trained on transcripts often continue with the user's next turn.
        return re.split(r"\n\n(?:Human|Assistant):", response)[0].strip()
