"""Render questions for a chat model, with the thought closed that its template opens."""

from __future__ import annotations

import hashlib
import re

from transformers import PreTrainedTokenizerBase

from rlaif_framework.models.chat_templates import render_chat
from rlaif_framework.records.preferences import Turn

_OPENED = re.compile(r"<(think|thinking|thought|reasoning)>(?!.*</\1>)", re.DOTALL)

_PROBE = "rlaif-probe"


class QuestionTemplate:
    """Renders a user's message and the start of the assistant's turn by a tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
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
        return hashlib.sha256(f"{self.tokenizer.chat_template}{self.closing}".encode()).hexdigest()[:16]

    def render(self, text: str) -> str:
        """Return the model's input up to the answer."""
        return self._render(text) + self.closing

    def _render(self, text: str) -> str:
        # Templates of models that can think or not read `enable_thinking`; others ignore it.
        return render_chat(self.tokenizer, [Turn("user", text)], continued=True, enable_thinking=False)


def _close(start: str, tag: str) -> str:
    # As templates write an empty thought: `<think>\n\n</think>\n\n`.
    return f"{'' if start.endswith(chr(10)) else chr(10)}\n</{tag}>\n\n"
