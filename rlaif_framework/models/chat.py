"""Encode prompts and responses in the format of a policy: its chat template, or plain text.

A tokenizer with a chat template makes a policy a chat model: prompts are its turns, and a response is the assistant's
turn with the template's own end. `load_policy_tokenizer` removes the template for `policy.chat: plain`, so the
tokenizer alone determines the format, here and wherever the saved folder is used.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.data.templates import TemplateFault
from rlaif_framework.errors import ModelError
from rlaif_framework.models.chat_templates import encode_after, encode_chat, encode_content, render_chat
from rlaif_framework.records.preferences import Prompt, Turn

PROBE = "Zebra"
"""Content of the messages from which the format of the assistant's turn is read."""

DATE = datetime.date(2025, 1, 1)
"""Date for chat templates that print the date of today."""

_DIRECTIVES = (*(f"-{name}" for name in "dmyHIMSj"), *"aAbBcCdDeFgGhHIjklmMpPrRSTuUVwWxXyYzZ")
"""Directives of `strftime` that templates may use."""

NO_THOUGHT = "{%- if add_generation_prompt %}{% set enable_thinking = false %}{% endif -%}"
"""What `complete_prompt` puts before a template that can turn thoughts off."""

_FIXED_DATE = re.compile(
    rf"\A({re.escape(NO_THOUGHT)})?(?:{{%- macro strftime_now\(format\) -%}}.*?{{%- endmacro -%}})+", re.DOTALL
)
"""What `fix_date` puts before a template."""

_OPENED = re.compile(r"<(think|thinking|thought|reasoning)>(?!.*</\1>)", re.DOTALL)


def fix_date(template: str, date: datetime.date = DATE) -> str:
    """Replace the date of today in a chat template by a fixed one, so that prompts do not change from day to day.

    Templates get today's date by the function `strftime_now`. transformers passes no functions to templates, so a macro
    of this name is put before the template, which hides the function.
    """
    template = _FIXED_DATE.sub(r"\1", template)  # that of a saved policy
    if "strftime_now" not in template:
        return template
    noon = datetime.datetime.combine(date, datetime.time(12))
    filters = "".join(f" | replace('%{name}', '{noon.strftime(f'%{name}')}')" for name in _DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}{template}"


def complete_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the generation prompt of a chat template end where the answer begins.

    Some templates write more before the assistant's text than their generation prompt has, such as an empty thought
    (Qwen3, GLM-4.5) or a channel (gpt-oss), and others open a thought in it (DeepSeek-R1). Thoughts are turned off if
    the template can do that. What is missing then is appended to the template, so that it is part of the prompt here
    and wherever the saved tokenizer is used. Dialogues without a generation prompt are rendered as before.
    """
    template = str(tokenizer.chat_template)
    if "enable_thinking" in template and NO_THOUGHT not in template:
        template = tokenizer.chat_template = NO_THOUGHT + template
    try:
        start, lead, _ = _read_answer(tokenizer)
    except (TemplateFault, ModelError):  # an error when the template is used
        return
    missing = lead.rstrip(" ") if lead.strip() else ""  # a space belongs to the first token of the text
    opened = _OPENED.search(f"{start}{missing}".rpartition(PROBE)[2])
    if opened is not None:  # closed as templates write an empty thought: `<think>\n\n</think>\n\n`
        missing += f"{'' if f'{start}{missing}'.endswith(chr(10)) else chr(10)}\n</{opened[1]}>\n\n"
    if missing:
        body = template.removesuffix("\n")  # which Jinja drops
        text = json.dumps(missing, ensure_ascii=False)
        tokenizer.chat_template = f"{body}{{%+ if add_generation_prompt %}}{{{{ {text} }}}}{{% endif %}}"


def _read_answer(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """Render a question with its answer.

    Returns:
        The question with the generation prompt; what the template writes between it and the text of the answer; and
        what it writes after the text.

    Raises:
        ModelError: The template does not write the texts.
    """
    question = [Turn("user", PROBE)]
    start = render_chat(tokenizer, question, continued=True)
    whole = render_chat(tokenizer, [*question, Turn("assistant", PROBE)], enable_thinking=False)
    if whole.count(PROBE) < 2:
        raise ModelError(f"the chat template of '{tokenizer.name_or_path}' does not write the content of messages")
    before, _, after = whole.rpartition(PROBE)
    # A generation prompt may have more than the history shows, such as an empty thought.
    return start, before.removeprefix(start) if before.startswith(start) else "", after


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | str) -> list[int]:
    """Return the token ids of a prompt, up to the point where the response begins.

    With a chat template, they are its turns and the start of the assistant's turn, as `transformers.pipeline` encodes
    messages. Control tokens that occur in the texts are encoded as ordinary text.

    Args:
        tokenizer: Tokenizer of the policy.
        prompt: A prompt, or a text, which is one user turn of a chat.

    Raises:
        ModelError: The chat template cannot render the turns.
    """
    if tokenizer.chat_template is None:
        return encode_text(tokenizer, prompt if isinstance(prompt, str) else prompt.text)
    turns = [Turn("user", prompt)] if isinstance(prompt, str) else prompt.conversation
    return encode_turns(tokenizer, turns, continued=True)


def encode_turns(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], continued: bool) -> list[int]:
    """Return the token ids of a dialogue in the chat template.

    A system turn becomes part of the first user turn if the template has no place for it.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: The dialogue.
        continued: If True, the start of the assistant's next turn is appended.

    Raises:
        ModelError: The chat template cannot render the turns.
    """
    try:
        try:
            if turns[0].role == "system" and not _writes_system(tokenizer, str(tokenizer.chat_template)):
                turns = _merge_system(turns)
            return encode_chat(tokenizer, turns, continued)
        except TemplateFault:
            merged = _merge_system(turns)
            if merged == list(turns):
                raise
            return encode_chat(tokenizer, merged, continued)
    except TemplateFault as fault:
        roles = ", ".join(turn.role for turn in turns)
        raise ModelError(
            f"the chat template of '{tokenizer.name_or_path}' cannot render the turns {roles}: {fault.reason}; "
            "set policy.chat: plain, or change the dialogue"
        ) from fault


@lru_cache(maxsize=16)
def _writes_system(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Return False if a template ignores system turns; True also if it refuses them."""
    try:
        return PROBE in render_chat(tokenizer, [Turn("system", PROBE), Turn("user", "Hello")])
    except TemplateFault:
        return True


def _merge_system(turns: Sequence[Turn]) -> list[Turn]:
    """Prepend the system turn to the first user turn, for templates without system turns, such as Gemma's."""
    if len(turns) < 2 or turns[0].role != "system":
        return list(turns)
    first = Turn(turns[1].role, f"{turns[0].content}\n\n{turns[1].content}")
    return [first, *turns[2:]]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text to be continued, with the tokenizer's start token, if it has one, exactly once.

    Other control tokens in the text are encoded as ordinary text.
    """
    start = tokenizer.bos_token
    if start and text.startswith(start):  # written by the template of a task
        text = text[len(start) :]
    ids: list[int] = tokenizer(text, split_special_tokens=True)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text
        ids = ids[:-1]
    return ids


def encode_response(
    tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None = None, finished: bool = True
) -> list[int]:
    """Return the token ids of a response, as they follow those of `encode_prompt`, with its end.

    The end is the template's end of turn or, without a chat template, the EOS token; the text then follows a space
    (Huang et al. 2024). Control tokens in the text are encoded as ordinary text.

    Args:
        tokenizer: Tokenizer of the policy.
        text: The response.
        max_tokens: More tokens than this are truncated.
        finished: If False, the end is left out.
    """
    if tokenizer.chat_template is None:
        ids, end = _split(tokenizer, " " + text.strip()), [int(tokenizer.eos_token_id)]
    else:
        turn = _read_turn(tokenizer)
        ids, end = encode_content(tokenizer, turn.before, turn.lead, text.strip()), list(turn.end)
    return (ids + end if finished else ids)[:max_tokens]


def encode_continuation(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a continuation of plain text: a space, the text and the EOS token."""
    return [*_split(tokenizer, " " + text.strip()), tokenizer.eos_token_id]


def _split(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a text that follows another one, in which control tokens are encoded as text."""
    line_break, after = (_encode_plain(tokenizer, piece) for piece in ("\n", f"\n{text}"))
    # Tokenizers such as Llama 2's put a space before every text, and the text already begins with one.
    return after[len(line_break) :] if after[: len(line_break)] == line_break else _encode_plain(tokenizer, text)


def _encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


@dataclass(frozen=True, slots=True)
class _AssistantTurn:
    """The format of the assistant's turn in a chat template."""

    before: str
    """The end of the prompt, from its last control token on, e.g. `<|im_start|>assistant` and a line break."""
    lead: str
    """Ordinary text that the template writes between the prompt and the response, such as a space."""
    end: tuple[int, ...]
    """Tokens that end the turn; the last one is a control token."""


@lru_cache(maxsize=16)
def _read_turn(tokenizer: PreTrainedTokenizerBase) -> _AssistantTurn:
    """Read the format of the assistant's turn from a rendered dialogue."""
    start, lead, after = _read_answer(tokenizer)
    control = max((start.rfind(token) for token in tokenizer.get_added_vocab() if token), default=-1)
    ids = encode_after(tokenizer, after)
    known = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    stop = next((index for index, token in enumerate(ids) if token in known), None)
    # Some templates, such as GLM's, end a turn by the start of the next one: the EOS token then ends it.
    end = (tokenizer.eos_token_id,) if stop is None else tuple(ids[: stop + 1])
    return _AssistantTurn(start[max(control, 0) :], lead, end)


def find_stop_ids(tokenizer: PreTrainedTokenizerBase, model: nn.Module | None = None) -> list[int]:
    """Return the tokens that end a response, in ascending order.

    They are the EOS token of the tokenizer, those of the model's generation config (several chat models have more than
    one), and the last token of the chat template's end of turn.
    """
    listed: int | Iterable[int] | None = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = [listed] if isinstance(listed, int) else list(listed or [])
    turn = [_read_turn(tokenizer).end[-1]] if tokenizer.chat_template is not None else []
    return sorted({int(tokenizer.eos_token_id), *more, *turn})
