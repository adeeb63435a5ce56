"""Choose the task whose annotator prompts fit a user's pairs, by the form of their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rlaif_framework.data.messages import is_transcript
from rlaif_framework.records.preferences import Comparison

GENERAL = "text"
"""The task for responses of any kind."""

SUMMARY = "tldr"
DIALOGUE = "dialogue"

_SUMMARY_CUE = "TL;DR:"
_POST_COLUMNS = frozenset({"post", "subreddit"})


@dataclass
class FormCounts:
    """Number of pairs that have the form of each task."""

    pairs: int = 0
    summaries: int = 0
    dialogues: int = 0

    def add(self, columns: Iterable[object], comparison: Comparison) -> None:
        """Count a pair.

        Args:
            columns: The names of the columns of its row, also before they were renamed.
            comparison: The pair.
        """
        self.pairs += 1
        if is_transcript(comparison.prompt.text):
            self.dialogues += 1
        elif has_summaries(columns, comparison):
            self.summaries += 1

    def choose(self) -> str:
        """Return the kind of the task that more than half of the pairs have the form of, else the general one."""
        if 2 * self.dialogues > self.pairs:
            return DIALOGUE
        return SUMMARY if 2 * self.summaries > self.pairs else GENERAL

    def describe(self) -> str:
        """Return one line with the choice, its reason, and how to make another one."""
        kind = self.choose()
        if kind == GENERAL:
            return (
                f"annotator prompts: those of task '{GENERAL}', for responses of any kind; use --task {SUMMARY} for "
                f"summaries, --task {DIALOGUE} for dialogues, or --task FILE for your own"
            )
        count, what = (self.dialogues, "dialogues") if kind == DIALOGUE else (self.summaries, "summaries")
        return (
            f"annotator prompts: those of task '{kind}', since {count} of {self.pairs} pairs are {what}; use --task to "
            "choose others"
        )


def has_summaries(columns: Iterable[object], comparison: Comparison) -> bool:
    """Return True if the responses are summaries: by the names of columns, or by the cue of the prompt."""
    names = {str(column).lower() for column in columns}
    return (
        bool(names & _POST_COLUMNS)
        or any("summar" in name for name in names)
        or comparison.prompt.text.rstrip().endswith(_SUMMARY_CUE)
    )
