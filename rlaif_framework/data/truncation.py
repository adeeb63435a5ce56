"""Truncate prompts that are too long: texts at their end, dialogues at their beginning."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from rlaif_framework.data.text import truncate_text
from rlaif_framework.data.transcripts import ASSISTANT_CUE, split_transcript
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Prompt, Turn

# The speaker stays at the start of each turn.
_TURN = re.compile(r"\n\n(?=Human:|Assistant:)")


def truncate_passage(prompt: Prompt, fits: Callable[[Prompt], bool], what: str = "text") -> Prompt:
    """Truncate the part of a prompt that may be truncated at its last lines, then its last words (Huang et al. 2024).

    Args:
        prompt: The prompt. Everything outside `prompt.passage` stays as it is.
        fits: Returns True if a prompt is short enough.
        what: Description of the passage, for errors.

    Raises:
        DataError: The prompt does not fit even without the passage.
    """
    passage = truncate_text(prompt.passage, lambda text: fits(prompt.replace_passage(text)))
    if not passage.strip():
        raise _too_long(prompt, what)
    return prompt.replace_passage(passage)


def truncate_dialogue(prompt: Prompt, fits: Callable[[Prompt], bool], system: str | None = None) -> Prompt:
    """Drop the oldest turns of a dialogue until it fits, then the beginning of the last turn.

    The end of a dialogue matters most: it is what the response answers.

    Args:
        prompt: The prompt. Its source is a transcript.
        fits: Returns True if a prompt is short enough.
        system: System prompt, which stays.

    Raises:
        DataError: Not even one word fits.
    """
    turns = _TURN.split(prompt.source)
    # A system prompt of the dialogue itself stays, too.
    own = f"{turns.pop(0)}\n\n" if len(turns) > 1 and turns[0].startswith("System:") else ""
    speaker = "Human: " if own else ""  # which ends the system prompt
    # Chat templates want a user's turn first.
    starts = [i for i in range(1, len(turns)) if turns[i].startswith("Human:")]
    words = turns[-1].split(" ")
    for source in chain(
        ("\n\n".join(turns[start:]) for start in starts),
        (speaker + " ".join(words[start:]) for start in range(1, len(words))),
    ):
        shorter = with_dialogue(prompt, own + source, system)
        if fits(shorter):
            return shorter
    raise _too_long(prompt, "dialogue")


def with_dialogue(prompt: Prompt, source: str, system: str | None = None) -> Prompt:
    """Return a prompt whose source is a transcript: its text ends with a cue for the answer, and it has turns.

    Args:
        prompt: Has the id and the reference.
        source: The transcript, without a cue.
        system: System prompt. One in the transcript takes precedence.
    """
    turns = split_transcript(source)
    if system and turns[0].role != "system":
        turns.insert(0, Turn("system", system))
    return replace(prompt, source=source, text=source + ASSISTANT_CUE, turns=tuple(turns), truncatable=None)


def _too_long(prompt: Prompt, what: str) -> DataError:
    return DataError(f"prompt '{prompt.id}': not even one word of the {what} fits; raise policy.max_prompt_tokens")
