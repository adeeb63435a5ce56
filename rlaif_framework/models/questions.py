"""Render questions for a chat model: with a fixed date, and with the thought closed that a template opens."""

from __future__ import annotations

import datetime
import hashlib
import re

from transformers import PreTrainedTokenizerBase

DIRECTIVES = ("-d", "-m", "-I", "-H", *"aAbBcdHIjmMpSUwWxXyYZ")
"""Directives of `strftime` that templates may use."""

_OPENED = re.compile(r"<(think|thinking|thought|reasoning)>(?!.*</\1>)", re.DOTALL)

_PROBE = "rlaif-probe"


class QuestionTemplate:
    """Renders a user's message and the start of the assistant's turn by a tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date) -> None:
        self.tokenizer = tokenizer
        self.template = fix_date(tokenizer.get_chat_template(), date)
        start = self._render(_PROBE).rpartition(_PROBE)[2]  # the text can hold any tag, but not before the answer
        opened = _OPENED.search(start)
        self.closing = "" if opened is None else _close(start, opened[1])
        """The end of the thought that the template opens, or nothing."""
        self.thought_closed = (
            bool(self.closing) or re.search(r"</(think|thinking|thought|reasoning)>", start) is not None
        )
        """True if the answer follows an empty thought."""

    @property
    def template_hash(self) -> str:
        """A hash of what questions are rendered by: the template, its date, and the closed thought."""
        return hashlib.sha256(f"{self.template}{self.closing}".encode()).hexdigest()[:16]

    def render(self, text: str) -> str:
        """Return the model's input up to the answer."""
        return self._render(text) + self.closing

    def _render(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        # Templates of models that can think or not read `enable_thinking`; others ignore it.
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        )


def _close(start: str, tag: str) -> str:
    # As templates write an empty thought: `<think>\n\n</think>\n\n`.
    return f"{'' if start.endswith(chr(10)) else chr(10)}\n</{tag}>\n\n"


def fix_date(template: str, date: datetime.date) -> str:
    """Replace the date of today in a chat template by a fixed one, so that prompts do not change from day to day.

    Templates get today's date by the function `strftime_now`. transformers passes no functions to templates, so a macro
    of this name is put before the template, which hides the function.
    """
    if "strftime_now" not in template:
        return template
    noon = datetime.datetime.combine(date, datetime.time(12))
    filters = "".join(f" | replace('%{name}', '{noon.strftime(f'%{name}')}')" for name in DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}{template}"
