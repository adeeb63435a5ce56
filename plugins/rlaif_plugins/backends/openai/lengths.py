"""Estimate the length of questions, and parse refusals of questions that are too long."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rlaif_framework import Question

# Messages of vLLM, SGLang, llama.cpp, text-generation-inference and OpenAI, in lower case.
# Longer numbers are no lengths, and Python does not convert very long ones.
NUMBER = r"(?<![0-9])([0-9]{1,9})(?![0-9])"
LIMIT = re.compile(rf"(?:context (?:length|window|size)|max_model_len|must be <=)[^0-9]{{0,30}}?{NUMBER}")
PROMPT = (
    re.compile(rf"{NUMBER} (?:input tokens|inputs tokens|prompt tokens|inputs and|tokens from the input)"),
    re.compile(rf"{NUMBER} in (?:the|your) (?:messages|prompt)"),
    re.compile(rf"(?:resulted in|requested|requested tokens|input|request) \(?{NUMBER}"),
)
"""Phrases in which servers state the number of tokens of a prompt. The last one may include the answer's."""
TOO_LONG = ("context length", "context window", "context size", "context_length", "too long", "too many tokens")
"""Phrases in refusals of prompts that are too long, for servers that state no numbers."""
DEFAULT_FRACTION = 0.75
"""Fraction of a question to try if the server does not say by how much it is too long."""
SAFETY_FACTOR = 0.97
"""Applied to the fraction that fits, as the part that is removed may have fewer tokens per byte than the rest."""


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens: one for four ASCII characters, and one for two bytes of other characters.

    That is 1.5 for a Chinese character and 2 for an emoji, as in vocabularies made for English.
    """
    size = len(text.encode(errors="replace"))
    ascii_count = sum(map(str.isascii, text)) if size > len(text) else size
    return math.ceil(ascii_count / 4 + (size - ascii_count) / 2)


def estimate_question(question: Question) -> int:
    """Estimate the number of tokens of a question."""
    return estimate_tokens(question.text) + estimate_tokens(question.prefill)


def estimate_prompt(body: Mapping[str, Any]) -> int:
    """Estimate the number of tokens of a request's prompt."""
    if "query" in body:
        return len(body["query"]) if isinstance(body["query"], list) else estimate_tokens(body["query"])
    texts = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
    return sum(map(estimate_tokens, texts))


def answer_tokens(body: Mapping[str, Any]) -> int:
    """Return the maximum length of the answer that a request asks for."""
    return int(body.get("max_tokens", body.get("max_completion_tokens", 0)))


def states_limit(message: str) -> bool:
    """Return True if a refusal states the length of the model's context."""
    return LIMIT.search(message.lower()) is not None


def read_overlong(message: str, body: Mapping[str, Any], listed: int | None) -> float | None:
    """Return the fraction of a refused question that would fit, below 1; None if it was not refused as too long.

    If the server states the number of tokens of the prompt, the fraction is exact; otherwise it is estimated.

    Args:
        message: The server's error message.
        body: The request.
        listed: Length of the model's context, for messages that do not state it.
    """
    text = message.lower()
    stated = LIMIT.search(text)
    limit = int(stated[1]) if stated else listed
    estimate = estimate_prompt(body)
    found = next((found for pattern in PROMPT if (found := pattern.search(text))), None) if stated else None
    counted = int(found[1]) if found else estimate
    fraction = None if limit is None or not counted else SAFETY_FACTOR * (limit - answer_tokens(body)) / counted
    says_too_long = stated or any(words in text for words in TOO_LONG)
    if not says_too_long and (fraction is None or fraction >= SAFETY_FACTOR):
        return None
    return fraction if fraction is not None and fraction < SAFETY_FACTOR else DEFAULT_FRACTION


def read_context(data: Any, model: str) -> int | None:
    """Return the context length of a model in a server's list of models (`/v1/models`), as in vLLM's."""
    try:
        lengths = [entry["max_model_len"] for entry in data["data"] if entry["id"] == model]
        length = int(lengths[0]) if lengths else 0
        return length if length > 0 else None
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None
