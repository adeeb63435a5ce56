"""What is sent to a server and what is read from its answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_framework import Question
from rlaif_framework.data import escape_control_tokens
from rlaif_plugins.backends.openai import OpenAIConfig

SMALLER_TOP = {20: 5, 5: 0}
"""How many log-probabilities to ask for after so many were refused: 20 is most servers' limit, 5 that of some."""
PREFILL_WORDS = ("continue_final_message", "add_generation_prompt", "assistant", "prefill")
OPTIONAL = ("top_k", "top_p", "seed")
LIMIT = re.compile(r"(?:context (?:length|window|size)|max_model_len|must be <=)\D{0,30}?(\d+)")
PROMPT = (
    re.compile(r"(\d+) (?:input tokens|inputs tokens|prompt tokens|inputs and|tokens from the input)"),
    re.compile(r"(\d+) in (?:the|your) (?:messages|prompt)"),
    re.compile(r"(?:resulted in|requested|requested tokens|input|request) \(?(\d+)"),
)
"""How servers state the tokens of a prompt that is too long; the last may count the answer in."""
TOO_LONG = ("context length", "context window", "context size", "context_length", "too long", "too many tokens")
SHORTER = 0.75
"""Share of a question to try where a server says that it is too long, and not by how much."""
SPARE = 0.97
"""Less than what would fit, as the part that is cut may have fewer tokens a byte than the rest."""
DOUBT = 0.01
"""Share of the options' probability that may be on first parts of options before the reading is not trusted."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a server."""

    text: str
    logprobs: Sequence[tuple[str, float]]
    """The first token's likeliest alternatives and their log-probabilities; empty if the server gives none."""
    prompt_tokens: int
    generated_tokens: int
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because they had been refused."""


class Dialect:
    """How requests are put so that the server takes them; what it refuses is learnt once."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.chat = config.mode == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self.prefill = config.prefill != "no"
        self.top = max(SMALLER_TOP)
        self.saw_logprobs: bool | None = None
        """Whether any answer had log-probabilities; None before the first."""
        self.refused: set[str] = set()

    @property
    def gives_logprobs(self) -> bool:
        """Whether it is worth asking for log-probabilities."""
        return self.top > 0 and self.saw_logprobs is not False

    def body(
        self, question: Question, max_tokens: int, temperature: float, seed: int, top_k: int = 0, logprobs: bool = False
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The request for one answer, and which of its settings are left out because they were refused."""
        length = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        body = self._question(question) | {
            "model": self.config.model,
            length: max_tokens,
            "temperature": temperature,
            "seed": seed % 2**31,  # what every server's integer holds
        }
        if temperature > 0:
            body["top_p"] = 1.0  # some servers take another default from the model's folder
        if top_k > 0:
            body["top_k"] = top_k
        if logprobs and self.top:
            body |= {"logprobs": True, "top_logprobs": self.top} if self.chat else {"logprobs": self.top}
        kept = {key: value for key, value in body.items() if key not in self.refused}
        dropped = [key for key in body if key not in kept]
        if self.chat and question.prefill and not self.prefill and self.config.prefill == "auto":
            dropped.append("prefill")
        return kept, tuple(dropped)

    def _question(self, question: Question) -> dict[str, Any]:
        question = Question(escape_control_tokens(question.text), escape_control_tokens(question.prefill))
        whole = f"{question.text}\n\n{question.prefill}" if question.prefill else question.text
        if not self.chat:
            return {"prompt": whole}
        if not (self.prefill and question.prefill):
            return {"messages": [{"role": "user", "content": whole}]}
        messages = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.prefill}]
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}

    def learn(self, body: Mapping[str, Any], message: str) -> bool:
        """Learn from a refusal; True if the request can be put in another way."""
        named = message.lower()
        learnt = {name for name in OPTIONAL if name in body and name in named}
        if "temperature" in body and "temperature" in named and "support" in named:
            learnt.add("temperature")
        if "max_tokens" in body and "max_completion_tokens" in named and "unsupported" in named:
            learnt.add("max_tokens")
        self.refused |= learnt
        if "logprobs" in body and "logprobs" in named:
            asked = body["top_logprobs"] if self.chat else body["logprobs"]
            self.top = min(self.top, SMALLER_TOP[asked])
            learnt.add("logprobs")
        guessed = self.config.prefill == "auto" and "continue_final_message" in body
        if guessed and any(word in named for word in PREFILL_WORDS):
            self.prefill = False
            learnt.add("prefill")
        return bool(learnt)

    def read(self, data: Any, body: Mapping[str, Any]) -> Completion:
        """Read an answer.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: It is not what the API promises.
        """
        choice = data["choices"][0]
        text = (choice["message"]["content"] if self.chat else choice["text"]) or ""
        if not isinstance(text, str):
            raise TypeError("the text is not a string")
        usage = data.get("usage") or {}
        return Completion(
            text,
            _read_logprobs(choice.get("logprobs") or {}, self.chat),
            int(usage.get("prompt_tokens") or estimate_prompt(body)),
            int(usage.get("completion_tokens") or estimate_tokens(text)),
        )


def _read_logprobs(logprobs: Mapping[str, Any], chat: bool) -> list[tuple[str, float]]:
    """Alternatives of the first token."""
    if chat:
        tokens = logprobs.get("content") or []
        pairs = [(top["token"], top["logprob"]) for top in (tokens[0].get("top_logprobs") or [])] if tokens else []
    else:
        tokens = logprobs.get("top_logprobs") or []
        pairs = list((tokens[0] or {}).items()) if tokens else []
    return [(str(token), float(logprob)) for token, logprob in pairs]


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: one for four ASCII characters, and for two bytes of any others.

    So 1.5 for a Chinese character and 2 for an emoji, which is what vocabularies made for English take.
    """
    size = len(text.encode(errors="replace"))
    ascii_ = sum(map(str.isascii, text)) if size > len(text) else size
    return math.ceil(ascii_ / 4 + (size - ascii_) / 2)


def estimate_prompt(body: Mapping[str, Any]) -> int:
    """About how many tokens a request's prompt has."""
    texts = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
    return sum(map(estimate_tokens, texts))


def states_limit(message: str) -> bool:
    """Whether a refusal says how long the model's context is."""
    return LIMIT.search(message.lower()) is not None


def read_overlong(message: str, body: Mapping[str, Any], listed: int | None) -> float | None:
    """The share of a refused request's question that would fit, below 1; None if it was not refused as too long.

    A server that counts the prompt says exactly how much there is to cut, in its own tokens; else it is estimated.

    Args:
        message: The server's.
        body: The request.
        listed: Length of the model's context, for a message that does not say it.
    """
    said = message.lower()
    stated = LIMIT.search(said)
    limit = int(stated[1]) if stated else listed
    estimate = estimate_prompt(body)
    found = next((found for pattern in PROMPT if (found := pattern.search(said))), None) if stated else None
    counted = int(found[1]) if found else estimate
    share = None if limit is None or not counted else SPARE * (limit - answer_tokens(body)) / counted
    if not stated and not any(words in said for words in TOO_LONG) and (share is None or share >= SPARE):
        return None
    return share if share is not None and share < SPARE else SHORTER


def read_context(data: Any, model: str) -> int | None:
    """The context that a server's list of models (`/v1/models`) states for one of them, as vLLM's does."""
    try:
        lengths = [entry["max_model_len"] for entry in data["data"] if entry["id"] == model]
        return int(lengths[0]) if lengths else None
    except (LookupError, TypeError, ValueError):
        return None


def answer_tokens(body: Mapping[str, Any]) -> int:
    """Length at most of the answer that a request asks for."""
    return int(body.get("max_tokens", body.get("max_completion_tokens", 0)))


def weigh_options(options: Sequence[str], logprobs: Sequence[tuple[str, float]]) -> tuple[float, ...] | None:
    """Probability of each option as the next token, over the whole vocabulary; None if that cannot be told.

    An option that is not among the likeliest tokens counts 0, unless a likely token is only its first part (`1` of
    `10`): then the next token does not tell the options apart.
    """
    words = [option.strip() for option in options]
    weights = dict.fromkeys(words, 0.0)
    parts = 0.0
    heard = {token.strip() for token, _ in logprobs}
    for token, logprob in logprobs:
        word = token.strip()
        if word in weights:
            weights[word] += math.exp(min(0.0, logprob))
        if word and any(o not in heard and o.startswith(word) for o in words):
            parts += math.exp(min(0.0, logprob))
    mass = sum(weights.values())
    if not mass > 0 or parts > DOUBT * mass:
        return None
    return tuple(weights[word] for word in words)


def last_line(question: Question) -> str:
    """The ending that a model sees last, and may repeat."""
    return (question.prefill or question.text).strip().rpartition("\n")[2].strip()


def read_option(options: Sequence[str], text: str, ending: str) -> int | None:
    """Index of the option a sampled answer starts with; None if with none of them.

    An answer may repeat the ending it was given (`Preferred Summary=1`). A longer word or number is not the option:
    `15` and `1.5` are not `1`.
    """
    answer = text.strip().removeprefix(ending).strip()
    for index, option in enumerate(options):
        if re.match(rf"{re.escape(option.strip())}(?!\w|[.,]\d)", answer):
            return index
    return None
