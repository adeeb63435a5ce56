"""Requests to a backend and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for a backend: what is asked, and the words its answer must begin with."""

    text: str
    prefill: str = ""
    """Put at the start of the answer (the assistant's turn of a chat model), e.g. `Preferred Summary=`."""


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask for the probabilities of the options as the next token."""

    question: Question
    options: tuple[str, ...]
    """Texts of one token or more; one may begin another, as `1` begins `10`."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for text. `temperature` 0 is greedy decoding."""

    question: Question
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


Request = Choose | Generate


Asked = Request | Sequence[Request]
"""What a coroutine yields: one request, or several to be answered together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A backend's reply to one request."""

    probabilities: tuple[float, ...] = ()
    """Of each option, normalised over the options; empty for `Generate`, and for a choice nobody could read."""
    mass: float | None = None
    """Sum of the options' probabilities over the whole vocabulary; None where a server does not tell."""
    text: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    sampled: int = 0
    """How many sampled answers the probabilities are counted from; 0 if they are the model's own."""
    cost: float = 0.0
    """US dollars, of backends that know their prices."""
    refused: str | None = None
    """Why this request, and not the set-up, is refused: then this is no answer, and the coroutine that asked ends."""
    fitting: float | None = None
    """Where it is refused as too long: about the share of its question that would fit, below 1."""
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server does not take them."""


Reply = Answer | Sequence[Answer]
"""What a coroutine receives: the answer to its request, or the answers to its requests, in order."""
