"""Render and encode dialogues by the chat templates of models.

transformers renders them in a sandbox too, but without a bound on their work. `rlaif_framework.data.templates` has one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

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
    control = find_control_tokens(tokenizer)
    marked = [Turn(turn.role, _mark(turn.content, control)) for turn in turns]
    first, *rest = re.split(
        f"{START}({control.pattern}){END}|[{START}{END}]", render_chat(tokenizer, marked, continued)
    )
    return _encode(tokenizer, first) + _encode_pieces(tokenizer, rest)


def encode_content(tokenizer: PreTrainedTokenizerBase, before: str, lead: str, text: str) -> list[int]:
    """Return the token ids of the content of a turn, in which control tokens are encoded as text.

    Args:
        tokenizer: A tokenizer with a chat template.
        before: Text of the template before the content, which is encoded on its own: its last token does not merge
            with the content.
        lead: Ordinary text of the template that is encoded with the content, such as a space.
        text: The content.
    """
    first, *rest = re.split(f"({find_control_tokens(tokenizer).pattern})", text)
    prefix, whole = _encode(tokenizer, before), _encode(tokenizer, before + lead + first)
    fits = whole[: len(prefix)] == prefix
    ids = whole[len(prefix) :] if fits else encode_after(tokenizer, lead + first)
    return ids + _encode_pieces(tokenizer, rest)


def _encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str | None]) -> list[int]:
    """Encode pairs of a control token, which becomes text, or None for a lone mark, and the text after it."""
    ids: list[int] = []
    for token, text in zip(pieces[::2], pieces[1::2], strict=True):
        ids += encode_after(tokenizer, token or "", as_text=True) + encode_after(tokenizer, text or "")
    return ids


def _compile(tokenizer: PreTrainedTokenizerBase) -> Template:
    return _compile_source(str(tokenizer.chat_template), tokenizer.name_or_path)


@lru_cache(maxsize=32)
def _compile_source(source: str, name: str) -> Template:
    return Template(f"the chat template of '{name}'", source, chat=True)


def _mark(text: str, control: re.Pattern[str]) -> str:
    plain = text.replace(START, "").replace(END, "")  # no text can imitate a marked token
    return control.sub(f"{START}\\g<0>{END}", plain)


def find_control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
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
    if as_text and isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = tokenizer.backend_tokenizer
        # `split_special_tokens` leaves added tokens that are not special, such as `<think>`, in one piece.
        normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        splits = (
            [normal]
            if backend.pre_tokenizer is None
            else [split for split, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
        )
        return [token.id for split in splits for token in backend.model.tokenize(split)]
    # A tokenizer keeps the last value of `split_special_tokens`, so both are stated.
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)["input_ids"]
    return ids


def encode_after(tokenizer: PreTrainedTokenizerBase, text: str, as_text: bool = False) -> list[int]:
    """Encode a piece from the middle of a text, before which some tokenizers would put a space.

    Args:
        tokenizer: A tokenizer.
        text: The piece.
        as_text: If True, added tokens in it are encoded as ordinary text.
    """
    if not text:
        return []
    line_break = _encode(tokenizer, "\n", as_text)
    ids = _encode(tokenizer, f"\n{text}", as_text)
    return ids[len(line_break) :] if ids[: len(line_break)] == line_break else _encode(tokenizer, text, as_text)
