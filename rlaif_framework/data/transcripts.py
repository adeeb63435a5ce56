"""Convert between turns of a dialogue and transcripts in the format of Anthropic's HH data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif_framework.records.preferences import Role, Turn

ASSISTANT_CUE = "\n\nAssistant:"
"""Ends the prompt of a transcript."""

SPEAKERS: dict[Role, str] = {"system": "System", "user": "Human", "assistant": "Assistant"}
"""Names of the roles in a transcript."""

_ROLES = {name: role for role, name in SPEAKERS.items()}
# There is a system turn only at the start, since any text may contain "System:".
_START = re.compile(r"\s*(System|Human|Assistant):")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_IMITATED_TURN = re.compile(r"(?<!\n)\n{2,}(?=(?:Human|Assistant):)")


def split_transcript(text: str) -> list[Turn]:
    """Split a transcript into its turns. Contents are without surrounding white space.

    A cue at the end is removed, even if white space follows it. A text that does not begin with a speaker is one turn
    of the user.
    """
    text = strip_cue(text)
    start = _START.match(text)
    if start is None:
        return [Turn("user", text.strip())] if text.strip() else []
    # `split` with a group yields the first content, then the speaker and the content of each further turn.
    first, *rest = _TURN.split(text[start.end() :])
    turns = [Turn(_ROLES[start[1]], first.strip())]
    turns += [Turn(_ROLES[speaker], content.strip()) for speaker, content in zip(rest[::2], rest[1::2], strict=True)]
    if len(turns) == 1 and turns[0].role == "system":
        return [Turn("user", text.strip())]  # a text such as "System: Windows", which is not a transcript
    return turns


def join_transcript(turns: Sequence[Turn]) -> str:
    r"""Join turns to a transcript `Human: ...\n\nAssistant: ...`, without a cue at the end.

    Empty lines before a speaker's name inside a content become a line break, so that they do not begin a turn.
    """
    contents = [(SPEAKERS[turn.role], _IMITATED_TURN.sub("\n", turn.content.strip())) for turn in turns]
    return "\n\n".join(f"{speaker}: {content}".rstrip() for speaker, content in contents)


def strip_cue(text: str) -> str:
    """Remove the cue for the assistant's answer, and white space around it, from the end of a text."""
    before = text.rstrip().removesuffix("Assistant:")
    # Only a cue that has a line of its own: other texts are returned unchanged.
    is_cue = before != text.rstrip() and (not before.strip() or before.endswith("\n\n"))
    return before.rstrip() if is_cue else text
