"""Render and encode dialogues by the chat templates of models.

transformers renders them in a sandbox too, but without a bound on their work. `rlaif_framework.data.templates` has one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlaif_framework.data.templates import Template
from rlaif_framework.records.preferences import Turn

START, END = "\U000f0000", "\U000f0001"
"""Private-use characters around control tokens in the content of messages."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], continued: bool = False, **options: Any
) -> str:
    """Render a dialogue by the chat template of a tokenizer.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: The dialogue.
        continued: If True, the start of the assistant's next turn is appended.
        options: Other variables of the template, such as `enable_thinking`.

    Raises:
        TemplateFault: The template is invalid, refuses the turns, or takes too much work.
    """
    return _compile(tokenizer).render(
        messages=[{"role": turn.role, "content": turn.content} for turn in turns],
        tools=None,
        documents=None,
        add_generation_prompt=continued,
        **{**tokenizer.special_tokens_map, **options},
    )


def encode_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], continued: bool) -> list[int]:
    """Return the token ids of a rendered dialogue. Control tokens in the content of turns are encoded as text.

    Raises:
        TemplateFault: The template is invalid, refuses the turns, or takes too much work.
    """
    control = _find_control_tokens(tokenizer)
    marked = [Turn(turn.role, _mark(turn.content, control)) for turn in turns]
    first, *rest = re.split(
        f"{START}({control.pattern}){END}|[{START}{END}]", render_chat(tokenizer, marked, continued)
    )
    ids = _encode(tokenizer, first)
    # Pairs of a control token, None for a lone mark, and the text after it.
    for token, text in zip(rest[::2], rest[1::2], strict=True):
        ids += _encode_after(tokenizer, token or "", as_text=True) + _encode_after(tokenizer, text)
    return ids


def _compile(tokenizer: PreTrainedTokenizerBase) -> Template:
    return _compile_source(str(tokenizer.chat_template), tokenizer.name_or_path)


@lru_cache(maxsize=32)
def _compile_source(source: str, name: str) -> Template:
    return Template(f"the chat template of '{name}'", source, chat=True)


def _mark(text: str, control: re.Pattern[str]) -> str:
    plain = text.replace(START, "").replace(END, "")  # no text can imitate a marked token
    return control.sub(f"{START}\\g<0>{END}", plain)


def _find_control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return a pattern of a tokenizer's control tokens.

    They are its special tokens, and the added tokens that its chat template writes, such as `<think>`.
    """
    written = _compile(tokenizer).texts
    tokens = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in written and not token.content.isspace())
    ]
    return _match_any(tuple(tokens))


@lru_cache(maxsize=32)
def _match_any(tokens: tuple[str, ...]) -> re.Pattern[str]:
    # The longest first: a token may contain another. `(?!)` matches nothing.
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, as_text: bool = False) -> list[int]:
    # A tokenizer keeps the last value of `split_special_tokens`, so both are stated.
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)["input_ids"]
    return ids


def _encode_after(tokenizer: PreTrainedTokenizerBase, text: str, as_text: bool = False) -> list[int]:
    """Encode a piece from the middle of a text, before which some tokenizers would put a space."""
    if not text:
        return []
    line_break = _encode(tokenizer, "\n")
    ids = _encode(tokenizer, f"\n{text}", as_text)
    return ids[len(line_break) :] if ids[: len(line_break)] == line_break else _encode(tokenizer, text, as_text)
