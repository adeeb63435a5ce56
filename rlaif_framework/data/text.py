"""Text measures that need no model, and cutting a text to fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


SEQUENCE = 5


LONGEST_WORD = 50
"""Characters without a space, more than which are taken for a text of a script that has none."""


_WORD = re.compile(r"\w+")


_CONTROL = re.compile(
    r"<[|\uff5c][^<>\s]{1,40}[|\uff5c]>"  # <|im_end|>, <|eot_id|>, DeepSeek's full-width bars
    r"|</?s>|<(?:bos|eos)>|<(?:start|end)_of_turn>|<</?SYS>>"  # Llama 2, Gemma
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"  # Mistral
)


def escape_control_tokens(text: str) -> str:
    """Spell chat-control markers apart, so that data which holds `<|im_end|>` or `[/INST]` cannot end a question.

    Known by their shape: a server's tokenizer is not at hand, and some templates' markers are no tokens of their own.
    """
    return _CONTROL.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def copy_rate(source: str, response: str, length: int = SEQUENCE) -> float:
    """Share of a response's word sequences that stand in the source, in [0, 1].

    A response shorter than `length` words counts as one sequence; an empty one copies nothing.
    """
    words, given = _WORD.findall(response.lower()), _WORD.findall(source.lower())
    if not words:
        return 0.0
    size = min(length, len(words))
    known = {tuple(given[i : i + size]) for i in range(len(given) - size + 1)}
    sequences = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return sum(s in known for s in sequences) / len(sequences)


def truncate_text(text: str, fits: Callable[[str], bool]) -> str:
    """Cut a text at its last newline again and again until it fits; without a newline left, at its last words.

    The way OpenAI's summarisation data was cut (Huang et al. 2024, detail 1). Only what has no spaces, as Chinese and
    Japanese, is cut between characters.
    """
    while not fits(text) and "\n" in text:
        text = text[: text.rindex("\n")].rstrip()
    if fits(text):
        return text
    words = text.split(" ")
    kept = _most(len(words), lambda count: fits(" ".join(words[:count])))
    whole = " ".join(words[:kept])
    if words[kept].isascii() or len(words[kept]) <= LONGEST_WORD:  # an ASCII one is a link
        return whole
    start = len(whole) + (kept > 0)
    return text[: start + _most(len(words[kept]), lambda count: fits(text[: start + count]))].rstrip(" ")


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `count` that fits; 0 if none does."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
