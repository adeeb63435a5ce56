"""Dialogues as prompts, and their answers as comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, Split
from rlaif_framework.data import AnnotatorPrompts, copy_rate, read_pair, read_splits
from rlaif_plugins.tasks.dialogue import DialogueConfig

CUE = "\n\nAssistant:"
SHOWN = 20
"""Bad rows that an error names."""
TURN = re.compile(r"\n\n(?=Human:|Assistant:)")


class DialogueTask:
    """Answer as an assistant."""

    def __init__(self, config: DialogueConfig, context: Context) -> None:
        self.config = config
        self._words = AnnotatorPrompts.load(
            Path(__file__).with_name(f"annotator_prompts-{config.quality}.yaml"), config.annotator_prompts
        )

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Each dialogue once; the better answer, where people said which, is its reference."""
        found: dict[str, Prompt] = {}
        for comparison in self._comparisons[split]:
            better = None
            if comparison.preference not in (None, 0.5):
                better = comparison.responses[0 if (comparison.preference or 0) > 0.5 else 1]
            found.setdefault(comparison.prompt.text, replace(comparison.prompt, reference=better))
        return list(found.values())

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Pairs of answers with the preference of people."""
        return self._comparisons[split]

    @cached_property
    def _comparisons(self) -> dict[Split, list[Comparison]]:
        if self.config.data is None:
            raise DataError("task.data: name the pairs, such as a folder of Anthropic's hh-rlhf with a file a split")
        rows = read_splits(self.config.data, (self.config.validation_share, self.config.test_share))
        found: dict[Split, list[Comparison]] = {split: [] for split in rows}
        bad = []
        for split, row in ((split, row) for split, own in rows.items() for row in own):
            try:
                found[split].append(_with_cue(read_pair(row.values)))
            except DataError as error:
                bad.append(f"{row.where}: {error}")
        if bad and not (self.config.skip_invalid and any(found.values())):
            more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
            advice = ["task.skip_invalid: true goes on without them"] if any(found.values()) else []
            raise DataError("\n  ".join([*bad[:SHOWN], *more, *advice]))
        return found

    def truncate(self, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt:
        """Drop the oldest turns until the prompt fits, then the beginning of the last one; never an answer."""
        turns = TURN.split(prompt.source)
        for start in range(1, len(turns)):
            source = "\n\n".join(turns[start:])
            if fits(source + CUE):
                return replace(prompt, source=source, text=source + CUE)
        words = turns[-1].split(" ")
        for start in range(1, len(words)):
            source = " ".join(words[start:])
            if fits(source + CUE):
                return replace(prompt, source=source, text=source + CUE)
        raise DataError(f"prompt '{prompt.id}': not one word of the dialogue fits; raise policy.max_prompt_tokens")

    def annotator_prompts(self) -> AnnotatorPrompts:
        """The texts for annotators: of the paper's structure, in our own words."""
        return self._words

    def clean(self, response: str) -> str:
        """Keep the assistant's turn: what follows a new turn of either side is dropped."""
        return re.split(r"\n\n(?:Human|Assistant):", response)[0].strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """AnnotatorPrompts, and the share of the response that is copied from the dialogue."""
        return {"words": float(len(response.split())), "copy_rate": copy_rate(prompt.source, response)}


def _with_cue(comparison: Comparison) -> Comparison:
    """The dialogue with the cue for an answer; a bare question is its first turn."""
    source = comparison.prompt.source
    if not source.startswith(("Human:", "Assistant:")):
        source = f"Human: {source}"
    return replace(comparison, prompt=replace(comparison.prompt, source=source, text=source + CUE), given=None)
