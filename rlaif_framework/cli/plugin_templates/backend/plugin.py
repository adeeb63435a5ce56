"""The backend `acme/ngram`: a language model of characters, counted from a text file."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field
from rlaif_framework import (
    Answer,
    BackendConfig,
    Choose,
    Component,
    Context,
    DataError,
    Generate,
    Question,
    Request,
    SpecPath,
    hookimpl,
)

END = ""
"""Stands for the end of the text."""


class NgramConfig(BackendConfig):
    """A language model of characters, counted from a text file."""

    kind: Literal["acme/ngram"] = "acme/ngram"
    file: SpecPath
    """The text file. Each line is one text."""
    order: int = Field(4, ge=1, le=20)
    """Number of preceding characters that determine the probabilities of the next one."""


class NgramBackend:
    """Answers requests with relative frequencies; one count is added for every character of the file."""

    def __init__(self, config: NgramConfig, context: Context) -> None:
        self.order = config.order
        try:
            text = config.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"backend 'acme/ngram': cannot read {config.file}: {error}") from error
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        for line in text.splitlines():
            for place in range(len(line) + 1):
                self.counts[line[max(0, place - self.order) : place]][line[place : place + 1] or END] += 1
        self.alphabet = [*sorted(set(text) - {"\n"}), END]

    def identity(self) -> str:
        """Return everything that determines the answers: they are cached under it."""
        return f"acme/ngram {self.digest} order {self.order}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Return True: the model only looks at the last characters."""
        return True

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        """Yield each answer as soon as it is there, with the index of its request."""
        for index, request in enumerate(requests):
            yield index, self._choose(request) if isinstance(request, Choose) else self._generate(request)

    def _choose(self, request: Choose) -> Answer:
        """Compute the probability of each option as the continuation of the question."""
        text = render(request.question)
        weights = []
        for option in request.options:
            weight = 1.0
            for place, character in enumerate(option):
                weight *= self._next(text + option[:place]).get(character, 0.0)
            weights.append(weight)
        mass = sum(weights)
        probabilities = tuple(weight / mass for weight in weights) if mass else ()  # () means unreadable
        return Answer(probabilities, mass=min(mass, 1.0), prompt_tokens=len(text))

    def _generate(self, request: Generate) -> Answer:
        """Write text. It depends on the request alone, as its seed is part of it."""
        text, written, stream = render(request.question), "", random.Random(request.seed)
        for _ in range(request.max_new_tokens):
            known = self._next(text + written)
            if request.temperature == 0:
                character = max(known, key=known.__getitem__)
            else:
                likely = sorted(known, key=known.__getitem__, reverse=True)[: request.top_k or None]
                weights = [known[character] ** (1 / request.temperature) for character in likely]
                (character,) = stream.choices(likely, weights)
            if character == END:
                break
            written += character
        return Answer(text=written, prompt_tokens=len(text), generated_tokens=len(written))

    def _next(self, text: str) -> Mapping[str, float]:
        """Return the probabilities of the next character; one that is not in the file has none."""
        counts = self.counts.get(text[-self.order :], Counter[str]())
        total = counts.total() + len(self.alphabet)
        return {character: (counts[character] + 1) / total for character in self.alphabet}


def render(question: Question) -> str:
    """Return the text that the model continues: the question, and the start of the answer."""
    return f"{question.text}\n{question.prefill}"


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `acme/ngram`."""
    yield Component("acme/ngram", NgramConfig, "rlaif_acme:NgramBackend")
