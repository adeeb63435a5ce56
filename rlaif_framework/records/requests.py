"""Requests to a backend and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for a backend, and the text with which the answer must begin."""

    text: str
    prefill: str = ""
    """Start of the answer (the assistant's turn of a chat model), e.g. `Preferred Summary=`."""


@dataclass(frozen=True, slots=True)
class Choose:
    """Request the probabilities of options as the continuation."""

    question: Question
    options: tuple[str, ...]
    """Texts of one or more tokens. One may be a prefix of another, as `1` of `10`."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Request text. `temperature` 0 is greedy decoding."""

    question: Question
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    """Sample from this many most likely tokens; 0 for all."""
    seed: int = 0
    """Seed of this request, so that its text does not depend on the other requests."""


Request = Choose | Generate

Asked = Request | Sequence[Request]
"""The requests that a coroutine yields: one, or several that are answered together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A backend's reply to one request."""

    probabilities: tuple[float, ...] = ()
    """Probability of each option, normalised over the options; empty for `Generate`, and if the answer to a choice
    could not be read."""
    mass: float | None = None
    """Probability mass on the options over the whole vocabulary; None if the server does not report it."""
    text: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    sampled: int = 0
    """Number of sampled answers from which the probabilities are counted; 0 if they are the model's own."""
    read_from: str = ""
    """Source of a choice's probabilities, for backends with several: e.g. `logprob_token_ids` or `samples`."""
    cost: float = 0.0
    """US dollars, for backends with known prices."""
    refused: str | None = None
    """Reason why this request is refused, although others may be answered. The coroutine that sent it is then ended."""
    fitting_fraction: float | None = None
    """If the request is refused as too long: approximate fraction of its question that would fit, below 1."""
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server does not support them."""
    unanswered: int = 0
    """Number of times that a request was sent without an answer, e.g. because the process was killed. The provider may
    have charged for it."""


Reply = Answer | Sequence[Answer]
"""The reply that a coroutine receives: the answer to its request, or the answers to its requests, in order."""
