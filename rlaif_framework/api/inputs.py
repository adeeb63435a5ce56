"""Read the prompts and responses that a caller gives: texts, lists of messages, or prompts of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.messages import check_dialogue, is_messages, is_transcript, read_messages, to_prompt
from rlaif_framework.data.pair_forms import hash_texts
from rlaif_framework.data.transcripts import split_transcript, strip_cue
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Prompt, Turn

PromptLike = str | Prompt | Sequence[Mapping[str, Any]]
"""A text, a prompt of a task, or a list of messages with `role` and `content`."""

CompletionLike = str | Sequence[Mapping[str, Any]]
"""A text, or a list of messages that ends with the assistant's."""


def read_prompts(
    given: PromptLike | Sequence[PromptLike], references: Sequence[str | None] | None = None
) -> list[Prompt]:
    """Convert prompts.

    Args:
        given: The prompts, or one of them.
        references: A reference response to each, for rewards and labelers that need one.

    Raises:
        DataError: One is not a prompt, or the number of references is another one.
    """
    items: list[Any] = [given] if isinstance(given, str | Prompt) or is_messages(given) else [*given]
    prompts = []
    for number, item in enumerate(items, 1):
        try:
            prompts.append(_read_prompt(item))
        except RowFault as error:
            raise DataError(f"prompt {number}: {error}") from error
    if references is None:
        return prompts
    check_lengths(prompts=prompts, references=references)
    return [replace(prompt, reference=text) for prompt, text in zip(prompts, references, strict=True)]


def add_columns(prompts: Sequence[Prompt], columns: Mapping[str, Any]) -> list[Prompt]:
    """Set the columns of prompts.

    Args:
        prompts: The prompts.
        columns: A value for each prompt, by name of the column.

    Raises:
        DataError: A column has another number of values.
    """
    check_lengths(prompts=prompts, **columns)
    names = [*columns]
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{}] * len(prompts)
    return [replace(prompt, columns={**prompt.columns, **own}) for prompt, own in zip(prompts, values, strict=True)]


def read_completions(given: Sequence[CompletionLike], name: str = "completion") -> list[str]:
    """Convert responses to texts.

    Raises:
        DataError: One is neither a text nor a list of messages, or all of them are one text.
    """
    if isinstance(given, str):
        raise DataError(f"the {name}s are one text; give a list of texts")
    texts = []
    for number, item in enumerate(given, 1):
        value = list(item) if isinstance(item, Sequence) and not isinstance(item, str) else item
        if is_messages(value):
            try:
                value = read_messages(value, name)[-1].content
            except RowFault as error:
                raise DataError(f"{name} {number}: {error}") from error
        if not isinstance(value, str):
            raise DataError(f"{name} {number} is a {type(item).__name__}, neither a text nor a list of messages")
        texts.append(value)
    return texts


def check_lengths(**lists: Sequence[object]) -> None:
    """Check that lists have equal lengths.

    Raises:
        DataError: They do not.
    """
    if len({len(items) for items in lists.values()}) > 1:
        counts = " and ".join(f"{len(items)} {name.replace('_', ' ')}" for name, items in lists.items())
        raise DataError(f"there are {counts}; their numbers must be equal")


def _read_prompt(value: Any) -> Prompt:
    if isinstance(value, Prompt):
        return value
    turns: tuple[Turn, ...] = ()
    if isinstance(value, Sequence) and is_messages(list(value)):
        turns = tuple(read_messages(value, "prompt"))
        check_dialogue(turns)
        text = to_prompt(turns)
    elif isinstance(value, str):
        text = value
        if is_transcript(text):
            turns = tuple(split_transcript(strip_cue(text)))
    else:
        raise RowFault(f"expected a text, a list of messages or a Prompt, got {type(value).__name__}")
    source = strip_cue(text).strip()
    if not source:
        raise RowFault("it is empty")
    return Prompt(hash_texts(text), text, source, turns=turns)
