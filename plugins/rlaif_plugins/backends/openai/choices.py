"""Answer choices: from the exact probabilities of the options, from the most likely tokens, or from sampled answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rlaif_framework import Choose, Question
from rlaif_framework.data import escape_control_tokens
from rlaif_framework.prompting import option_probabilities
from rlaif_plugins.backends.openai.label_tokens import (
    ENDING_LENGTH,
    LOGPROB_TOKEN_IDS,
    LabelTokens,
    Method,
    find_label_tokens,
)
from rlaif_plugins.backends.openai.options import last_line, option_weights, read_option, sample_tokens
from rlaif_plugins.backends.openai.reading import Completion
from rlaif_plugins.backends.openai.sending import Refused, Sender, Usage
from rlaif_plugins.backends.openai.wire import Ask, Scoring

TOP_LOGPROBS = "top_logprobs"
"""`Answer.read_from` of probabilities from the most likely tokens."""
SAMPLES = "samples"
"""`Answer.read_from` of probabilities that are counted from sampled answers."""


class Chooser:
    """Answers the choices of one call of the backend."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.service = sender.service
        self.dialect = sender.service.dialect
        self.finding = asyncio.Lock()
        """Held while the tokens of options are looked up, so that each are looked up once."""

    async def choose(self, request: Choose, usage: Usage) -> dict[str, Any]:
        """Return the fields of the answer to a choice. Completions are appended to `usage`, also if the request fails.

        The options' probabilities are read exactly if the servers return those of chosen tokens, else from the most
        likely next tokens; if that is not possible, sampled answers are counted.
        """
        if self.dialect.gives_logprobs:
            if (exact := await self._read_exactly(request, usage)) is not None:
                return exact
            done = await self.sender.complete(Ask(request.question, 1, logprobs=True), usage)
            self.dialect.note_logprobs(bool(done.logprobs))
            weights = option_weights(request.options, done.logprobs)
            if weights is not None:
                return _normalise(weights, TOP_LOGPROBS)
        return self._count(request, await self._sample(request, usage))

    async def _read_exactly(self, request: Choose, usage: Usage) -> dict[str, Any] | None:
        """Read the options' probabilities over the whole vocabulary; return None if the servers do not return them."""
        # A new turn may begin with any form of an option, such as ` 1`, whose tokens depend on the chat template.
        if not self.dialect.continues(request.question):
            return None
        method = await self.sender.lookups.find_method()
        tokens = None if method is None else await self._find_tokens(request)
        if method is None or tokens is None:
            return None
        logprobs = {}
        for path, (text, wanted) in tokens.reads.items():
            found = await self._read_next(method, tokens.place(request.question, text), wanted, usage)
            if not all(i in found for i in wanted):
                self.dialect.unusable.add(method)  # the server described more than it does
                return None
            logprobs[path] = found
        return _normalise(option_probabilities(tokens.options, logprobs), method)

    async def _find_tokens(self, request: Choose) -> LabelTokens | None:
        """Return the tokens of the options after the question's ending. Each ending is looked up once."""
        question = request.question
        ending = escape_control_tokens(question.prefill or question.text)[-ENDING_LENGTH:]
        known, key = self.service.label_tokens, (ending, request.options)
        async with self.finding:
            if key not in known:
                known[key] = await find_label_tokens(ending, request.options, self._tokenize_part)
            return known[key]

    async def _tokenize_part(self, text: str) -> list[int] | None:
        body = {"model": self.service.config.model, "prompt": text, "add_special_tokens": False}
        return await self.sender.lookups.tokenize(body)

    async def _read_next(
        self, method: Method, question: Question, wanted: Sequence[int], usage: Usage
    ) -> dict[int, float]:
        """Return the log-probabilities of tokens after a question; fewer than wanted if the server does not."""
        if method == LOGPROB_TOKEN_IDS:
            ask = Ask(question, 1, logprobs=True, token_ids=tuple(wanted))
            return dict((await self.sender.complete(ask, usage)).by_id)
        prompt = await self._render(question)
        if prompt is None:
            return {}
        try:
            done = await self.sender.complete(Scoring(prompt, wanted), usage)
        except Refused as refusal:
            if refusal.fitting_fraction is not None:  # too long, also for another endpoint
                raise
            return {}
        return dict(done.by_id)

    async def _render(self, question: Question) -> str | list[int] | None:
        """Return a question as `/score` takes it: as text, or as the token ids of the rendered chat template."""
        part = self.dialect.question(question)
        if not self.dialect.chat:
            return str(part["prompt"])
        del part["add_generation_prompt"]  # SGLang renders messages as for an answer only without it
        return await self.sender.lookups.tokenize(part | {"model": self.service.config.model})

    def _count(self, request: Choose, sampled: Sequence[Completion]) -> dict[str, Any]:
        """Count the sampled answers that begin with each option."""
        ending = last_line(request.question)
        readings = [read_option(request.options, one.text, ending) for one in sampled]
        counts = [readings.count(index) for index in range(len(request.options))]
        readable = sum(counts)
        probabilities = tuple(count / readable for count in counts) if readable else ()
        return {"probabilities": probabilities, "sampled": readable, "read_from": SAMPLES}

    async def _sample(self, request: Choose, usage: Usage) -> list[Completion]:
        length = sample_tokens(request)
        asks = [Ask(request.question, length, 1.0, seed) for seed in range(self.service.config.samples)]
        first = await self.sender.complete(asks[0], usage)  # alone: if it is refused, so are the others
        # Waits for all even if one fails, since answers in flight are paid for and must be counted in `usage`.
        rest = await asyncio.gather(*(self.sender.complete(ask, usage) for ask in asks[1:]), return_exceptions=True)
        for one in rest:
            if isinstance(one, BaseException):
                raise one
        return [first, *(one for one in rest if isinstance(one, Completion))]


def _normalise(weights: Sequence[float], read_from: str) -> dict[str, Any]:
    """Return the fields of an answer from the probabilities of the options over the whole vocabulary."""
    mass = sum(weights)  # may exceed 1 by rounding
    probabilities = tuple(weight / mass for weight in weights) if mass > 0 else ()
    return {"probabilities": probabilities, "mass": min(1.0, mass), "read_from": read_from}
