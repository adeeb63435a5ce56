"""The OpenAI backend: answer requests with OpenAI-compatible servers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing

from anyio.from_thread import start_blocking_portal

from rlaif_framework import Answer, Context, Question, Request
from rlaif_framework.prompting import Journal
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.exchange import Exchange
from rlaif_plugins.backends.openai.lengths import estimate_question
from rlaif_plugins.backends.openai.service import Service


class OpenAIBackend:
    """A model behind one or several servers."""

    def __init__(self, config: OpenAIConfig, context: Context) -> None:
        self.config = config
        self.service = Service(config)

    def identity(self) -> str:
        """Return the model and the settings that affect answers. Servers are left out: all serve the same model."""
        c = self.config
        return f"openai {c.model} {c.mode} prefill={c.prefill} samples={c.samples}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Estimate whether a question and an answer fit into `context_tokens`."""
        limit = self.config.context_tokens
        return limit is None or estimate_question(question) + new_tokens <= limit

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer as soon as it arrives. If a server refuses a request, the answer has the reason.

        Raises:
            ModelError: A server refuses even a short question, or there is no usable answer after all retries.
            RlaifError: The budget is used up.
        """
        # The event loop has a thread of its own, since the caller's thread may run one already, as in a notebook. The
        # portal cancels requests in flight if the caller stops, e.g. by Ctrl-C; only then may the journal be closed.
        with closing(Journal()) as journal, start_blocking_portal() as portal:
            exchange = portal.call(Exchange, self.service, requests, journal)
            while (arrived := portal.call(exchange.next)) is not None:
                yield arrived
                portal.call(exchange.forget, arrived[0])  # the caller has stored the answer
        # All answers have arrived and are paid for, so this is no error.
        if self.service.budget.is_exceeded:
            reached = self.service.budget.reached()
            warnings.warn(f"backend 'openai' exceeded its {reached}: answers took more than estimated", stacklevel=2)
