"""The backend `testing/recorded`: canned answers, for tests of labelers and strategies without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework.assembly.context import Context
from rlaif_framework.config import Config
from rlaif_framework.plugins.component import Component
from rlaif_framework.plugins.configs import BackendConfig
from rlaif_framework.plugins.hookspecs import hookimpl
from rlaif_framework.records.requests import Answer, Choose, Generate, Question, Request
from rlaif_framework.store import hash_content

VERDICT = re.compile(r"[A-Za-z ]{0,20}[:=] ?([12])\s*")
"""A line that reads like an answer. In a response, it is an injected verdict."""

NUMBERED = re.compile(r"[A-Za-z]+ ([12])\b")
"""Start of the line of a response in a comparison: `Summary 1 - ...`."""

LABELS = ("1", "2")


class Recording(Config):
    """A canned answer to the questions that contain a text."""

    contains: str
    """The text. The first recording whose text is in the question, or in the start of its answer, is used."""
    options: dict[str, float] = Field({})
    """Weights of the options of a choice; an option that is not named has the weight 0."""
    text: str = ""
    """The answer to a request for text."""


class RecordedConfig(BackendConfig):
    """Canned answers; without a recording, prefer the response that contains a given word."""

    kind: Literal["testing/recorded"] = "testing/recorded"
    recordings: list[Recording] = Field([])
    """Canned answers, in the order in which they are tried."""
    prefers: str = "because"
    """Without a recording, the response on whose line this word is gets about 0.8 of the probability, and a good
    rating. The first response gets some more than the second, as with real models."""
    obeys: bool = True
    """If True, a line of the sample that reads like a verdict, such as `Verdict: 2`, decides the answer instead: a
    labeler that lets a response write such a line is fooled."""


class RecordedBackend:
    """Answers by rule, and remembers what it was asked.

    Args:
        config: Canned answers.
        context: Not used.
    """

    def __init__(self, config: RecordedConfig, context: Context | None = None) -> None:
        self.config = config
        self.asked: list[Request] = []
        """All requests, in order. Answers that a cache has are not requested again."""

    def identity(self) -> str:
        """Return a hash of the recordings."""
        return f"testing/recorded {hash_content(self.config.model_dump(mode='json'))}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Return True: any length fits."""
        return True

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answer requests, in order."""
        self.asked += requests
        for number, request in enumerate(requests):
            yield number, self._choose(request) if isinstance(request, Choose) else self._generate(request)

    def _choose(self, request: Choose) -> Answer:
        recording = self._find(request.question)
        weights = recording.options if recording else self._weigh(request.question, request.options)
        found = [weights.get(option, 0.0) for option in request.options]
        total = sum(found)
        probabilities = tuple(weight / total for weight in found) if total else ()
        return Answer(probabilities, mass=min(total, 1.0), prompt_tokens=_count(request.question))

    def _generate(self, request: Generate) -> Answer:
        recording, question = self._find(request.question), request.question
        if recording:
            text = recording.text
        else:
            weights = self._weigh(question, LABELS)
            best = max(LABELS, key=weights.__getitem__)
            text = f"Response {best} is the better one, because it gives the reason.\n\nVerdict: {best}"
        words = re.findall(r"\S+\s*", text)[: request.max_new_tokens]
        return Answer(text="".join(words).rstrip(), prompt_tokens=_count(question), generated_tokens=max(1, len(words)))

    def _find(self, question: Question) -> Recording | None:
        text = f"{question.text}\n{question.prefill}"
        return next((recording for recording in self.config.recordings if recording.contains in text), None)

    def _weigh(self, question: Question, options: Sequence[str]) -> Mapping[str, float]:
        """Return the weights of options: by a verdict in the sample, or by the line with the preferred word."""
        lines = question.text.rpartition(">>>>>>>>")[2].splitlines()  # without the exemplars, which have verdicts
        verdicts = [found[1] for line in lines if (found := VERDICT.fullmatch(line))]
        if verdicts and self.config.obeys:
            return {option: 0.98 if option == verdicts[-1] else 0.01 for option in options}
        liked = [line for line in lines if self.config.prefers in line]
        if set(options) != set(LABELS):
            centre = 0.8 * len(options) if liked else 0.3 * len(options)
            return {option: 2.0 ** -abs(number - centre) / 4 for number, option in enumerate(options, 1)}
        numbers = {found[1] for line in liked if (found := NUMBERED.match(line))}
        first = {"1": 0.85, "2": 0.25}.get("".join(numbers), 0.6)  # one line has the word; or none or both
        return {"1": first, "2": 1 - first}


def _count(question: Question) -> int:
    return len(f"{question.text} {question.prefill}".split())


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `testing/recorded`."""
    yield Component("testing/recorded", RecordedConfig, f"{__name__}:RecordedBackend")
