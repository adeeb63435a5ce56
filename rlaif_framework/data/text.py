"""Measure and truncate texts, and escape control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable

SEQUENCE_WORDS = 5
"""Length of the word sequences that the copy rate counts."""

MAX_WORD_LENGTH = 50
"""A longer sequence of characters without a space is regarded as text in a script without spaces."""

_WORD = re.compile(r"\w+")


# The length limit and the ban on spaces keep ordinary text such as `a <| b |> c` unchanged.
_CONTROL = re.compile(
    r"<[|\uff5c][^<>\s]{1,40}[|\uff5c]>"  # <|im_end|>, <|eot_id|>, DeepSeek's full-width bars
    r"|</?s>|<(?:bos|eos)>|<(?:start|end)_of_turn>|<</?SYS>>"  # Llama 2, Gemma
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"  # Mistral
)


def escape_control_tokens(text: str) -> str:
    """Put a space into chat-control tokens, so that data with `<|im_end|>` or `[/INST]` cannot end a question.

    Tokens are recognised by their form: a server's tokenizer is not available, and in some templates they are not
    single tokens.
    """
    return _CONTROL.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def copy_rate(source: str, response: str, length: int = SEQUENCE_WORDS) -> float:
    """Return the fraction of a response's word sequences that occur in the source.

    A response shorter than `length` words is one sequence. An empty response has copy rate 0.
    """
    words, source_words = _WORD.findall(response.lower()), _WORD.findall(source.lower())
    if not words:
        return 0.0
    size = min(length, len(words))
    copied = {tuple(source_words[i : i + size]) for i in range(len(source_words) - size + 1)}
    sequences = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return sum(s in copied for s in sequences) / len(sequences)


def truncate_text(text: str, fits: Callable[[str], bool]) -> str:
    """Remove the last lines of a text until it fits; if only one line is left, remove its last words.

    OpenAI's summarisation data was truncated in this way (Huang et al. 2024, detail 1). Text in scripts without spaces,
    such as Chinese and Japanese, is truncated between characters.
    """
    while not fits(text) and "\n" in text:
        text = text[: text.rindex("\n")].rstrip()
    if fits(text):
        return text
    words = text.split(" ")
    # `fits` tokenises the text, so it is called as rarely as possible.
    kept = _largest_fitting(len(words), lambda count: fits(" ".join(words[:count])))
    whole = " ".join(words[:kept])
    if words[kept].isascii() or len(words[kept]) <= MAX_WORD_LENGTH:  # a longer ASCII word is a link
        return whole
    start = len(whole) + (kept > 0)
    return text[: start + _largest_fitting(len(words[kept]), lambda count: fits(text[: start + count]))].rstrip(" ")


def _largest_fitting(count: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number below `count` that fits, by binary search; 0 if none fits."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
