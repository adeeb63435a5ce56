"""Read dialogues that data sets store as lists of messages, and check their turns."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Sequence
from itertools import pairwise
from reprlib import repr as short
from typing import Any

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.transcripts import ASSISTANT_CUE, SPEAKERS, join_transcript, split_transcript, strip_cue
from rlaif_framework.records.preferences import Role, Turn

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",  # ShareGPT
    "prompter": "user",  # OpenAssistant
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
"""Roles of messages in published data sets."""

_LOOKS_LIKE_MESSAGES = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content|from|value)['\"]\s*:")
_JOINED = re.compile(r"['\"]\s+['\"]")
# Line breaks are matched from the first one only: from each, a long row of them would take the square of its length.
_TURN_MARK = re.compile(r"(?<!\n)\n*<extra_id_1>(User|Assistant)\n")
_NEXT_TURN = re.compile(r"\n\n(?:Human|Assistant):")


def is_messages(value: object) -> bool:
    """Return True for a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and _role(m) for m in value)


def decode(value: Any) -> Any:
    """Decode a list or object that a data set stores as text, in JSON or as Python prints it; else return the value."""
    if not (isinstance(value, str) and value.strip()[:1] in ("[", "{") and value.strip()[-1:] in ("]", "}")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings(action="ignore"):  # about escapes and numbers in the text
                found = ast.literal_eval(value.strip())  # CSV files that pandas wrote
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return value
        if has_joined_strings(value):
            return value
    if not isinstance(found, list | dict):
        return value
    try:
        json.dumps(found, ensure_ascii=False, default=str).encode()
    except UnicodeError:  # lone surrogates cannot be written
        raise RowFault("a text has a lone surrogate, which is not valid text") from None
    except (ValueError, TypeError, RecursionError):
        return value
    return found


def has_joined_strings(literal: str) -> bool:
    """Return True if a Python literal has two strings in a row without a comma, as numpy prints lists."""
    if not _JOINED.search(literal):  # the tokenizer is slow
        return False
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(literal.strip()).readline))
    except (tokenize.TokenError, SyntaxError):
        return False
    kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)]
    return any(kind == other == tokenize.STRING for kind, other in pairwise(kinds))


def decode_messages(value: Any, name: str) -> Any:
    """Decode a list of messages that is stored as text; a single message becomes a list, and other texts are unchanged.

    Raises:
        RowFault: The text looks like a list of messages, but cannot be decoded.
    """
    if isinstance(value, dict) and _role(value):
        return [value]
    if not isinstance(value, str) or not _LOOKS_LIKE_MESSAGES.match(value):
        return value
    found = decode(value)
    if not is_messages(found):
        raise RowFault(f"'{name}' looks like a list of messages, but is neither JSON nor a Python literal")
    return found


def read_messages(value: Sequence[Any], name: str) -> list[Turn]:
    """Convert a list of messages to turns. Contents keep their surrounding white space.

    Raises:
        RowFault: A message has another role or no text.
    """
    turns = []
    for message in value:
        role = _role(message)
        if role not in ROLES:
            raise RowFault(f"'{name}' has a message of role {short(role)}; known roles: {', '.join(ROLES)}")
        turns.append(Turn(ROLES[role], _content(message, name)))
    if any(role == "system" for role, _ in turns[1:]):
        raise RowFault(f"'{name}' has a system message after its first message")
    return turns


def read_dialogue(value: Any, name: str) -> list[Turn]:
    """Read a dialogue from a column: a list of messages, also stored as text, or a transcript without its cue.

    Raises:
        RowFault: It is neither.
    """
    value = decode_messages(value, name)
    if is_messages(value):
        return strip_turns(read_messages(value, name))
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault(f"'{name}' is missing or empty")
    if not isinstance(value, str):
        raise RowFault(f"'{name}' is {short(value)}, not a dialogue", kind=f"'{name}' is not a dialogue")
    return split_transcript(value)


def check_dialogue(turns: Sequence[Turn]) -> None:
    """Check that a dialogue waits for an answer of the assistant.

    Raises:
        RowFault: It is empty, ends with a turn of the assistant, or has two turns of one speaker in a row.
    """
    if not turns or all(role == "system" or not text.strip() for role, text in turns):
        raise RowFault("'prompt' is empty")
    for (role, _), (other, _) in pairwise(turns):
        if role == other:
            raise RowFault(f"the dialogue has two turns of {SPEAKERS[role]} in a row")
    if turns[-1][0] == "assistant":
        raise RowFault("the prompt ends with a turn of Assistant, so there is nothing to answer")


def strip_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Remove surrounding white space from the contents of turns."""
    return [Turn(turn.role, turn.content.strip()) for turn in turns]


def to_prompt(turns: Sequence[Turn]) -> str:
    """Return the text of a prompt: a single question as it is, other dialogues as a transcript with a cue."""
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return join_transcript(turns) + ASSISTANT_CUE


def drop_system(text: str) -> str:
    """Return the text of a prompt as it is without a system prompt; texts without one are returned unchanged."""
    turns = split_transcript(text)
    if not turns or turns[0].role != "system":
        return text
    has_cue = strip_cue(text) != text
    return to_prompt(turns[1:]) if has_cue else join_transcript(turns[1:])


def is_transcript(text: str) -> bool:
    """Return True if a prompt is a dialogue in the format of Anthropic's HH data."""
    begins = text.lstrip().startswith(("Human:", "Assistant:"))
    has_system = text.lstrip().startswith("System:") and len(split_transcript(text)) > 1
    return (begins or has_system) and (text.rstrip().endswith(ASSISTANT_CUE) or len(split_transcript(text)) > 1)


def has_turn(text: str) -> bool:
    """Return True if a response goes on with another turn."""
    return _NEXT_TURN.search(f"\n\n{text.strip()}") is not None


def convert_marks(text: str) -> str:
    """Convert a prompt with the turn marks of NVIDIA's HelpSteer data to a transcript; return other texts unchanged."""
    first, *rest = _TURN_MARK.split(text)
    if not rest:
        return text
    turns = [Turn("user", first)] if first.strip() else []
    turns += [
        Turn("user" if speaker == "User" else "assistant", content)
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    ]
    if turns[-1][0] == "assistant" and not turns[-1][1].strip():
        turns.pop()  # the cue
    return to_prompt(turns)


def _role(message: dict[str, Any]) -> str | None:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else None


def _content(message: dict[str, Any], name: str) -> str:
    content = message.get("content", message.get("value"))
    if isinstance(content, list):  # parts, of which only texts can be judged
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    if not isinstance(content, str):
        raise RowFault(f"'{name}' has a message without text", kind="a message without text")
    return content
