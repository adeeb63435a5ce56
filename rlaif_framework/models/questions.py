"""Render questions for a chat model, up to where its answer begins."""

from __future__ import annotations

import hashlib
import re

from transformers import PreTrainedTokenizerBase

from rlaif_framework.models.chat import PROBE
from rlaif_framework.models.chat_templates import render_chat
from rlaif_framework.records.preferences import Turn

_CLOSED = re.compile(r"</(think|thinking|thought|reasoning)>")


class QuestionTemplate:
    """Renders a user's message and the start of the assistant's turn by a tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @property
    def template_hash(self) -> str:
        """A hash of what questions are rendered by: the template, with its date and the end of its prompt."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]

    @property
    def has_empty_thought(self) -> bool:
        """True if the model's input ends with a thought that is left empty."""
        return _CLOSED.search(self.render(PROBE).rpartition(PROBE)[2]) is not None

    def render(self, text: str) -> str:
        """Return the model's input up to the answer."""
        return render_chat(self.tokenizer, [Turn("user", text)], continued=True)
