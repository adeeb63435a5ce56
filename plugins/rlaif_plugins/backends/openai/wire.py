"""The bodies of requests, and the content of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_framework import Question
from rlaif_framework.data import escape_control_tokens
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.lengths import estimate_prompt, estimate_tokens

SMALLER_TOP = {20: 5, 5: 0}
"""Number of log-probabilities to request after a number was refused: most servers allow 20, some 5."""
PREFILL_WORDS = ("continue_final_message", "add_generation_prompt", "assistant", "prefill")
"""Words in refusals of a prefilled answer."""
OPTIONAL = ("top_k", "top_p", "seed")
"""Settings that are left out for servers that refuse them. `Answer.dropped` lists them."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer to one request."""

    text: str
    logprobs: Sequence[tuple[str, float]]
    """The most likely first tokens with their log-probabilities; empty if the server returns none."""
    prompt_tokens: int
    generated_tokens: int
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server had refused them."""


class Dialect:
    """Builds requests that the server accepts. Each unsupported setting is learned from its first refusal."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.chat = config.mode == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self.prefill = config.prefill != "no"
        self.top = max(SMALLER_TOP)
        self.saw_logprobs: bool | None = None
        """True if any answer had log-probabilities; None before the first answer."""
        self.refused: set[str] = set()

    @property
    def gives_logprobs(self) -> bool:
        """True if the server may support log-probabilities."""
        return self.top > 0 and self.saw_logprobs is not False

    def body(
        self, question: Question, max_tokens: int, temperature: float, seed: int, top_k: int = 0, logprobs: bool = False
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Build the body of a request; also return the settings that are left out because they were refused."""
        # OpenAI's reasoning models accept only the newer name.
        length = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        body = self._question(question) | {
            "model": self.config.model,
            length: max_tokens,
            "temperature": temperature,
            "seed": seed % 2**31,  # the range of integers that every server accepts
        }
        if temperature > 0:
            body["top_p"] = 1.0  # some servers read another default from the model's folder
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
        # The server tokenises the text, so data with control tokens could end the user's turn.
        question = Question(escape_control_tokens(question.text), escape_control_tokens(question.prefill))
        whole = f"{question.text}\n\n{question.prefill}" if question.prefill else question.text
        if not self.chat:
            return {"prompt": whole}
        if not (self.prefill and question.prefill):
            return {"messages": [{"role": "user", "content": whole}]}
        messages = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.prefill}]
        # Parameters of vLLM and SGLang, with which the answer continues the last message.
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}

    def learn(self, body: Mapping[str, Any], message: str) -> bool:
        """Learn from a refusal; return True if the request can be sent with other settings."""
        named = message.lower()
        learnt = {name for name in OPTIONAL if name in body and name in named}
        # A message may name a setting for another reason, e.g. a value out of range, so more words are required.
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
        """Parse a response.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: It does not conform to the API.
        """
        choice = data["choices"][0]
        text = (choice["message"]["content"] if self.chat else choice["text"]) or ""
        if not isinstance(text, str):
            raise TypeError("the text is not a string")
        usage = data.get("usage") or {}  # optional on some servers; estimated if missing
        return Completion(
            text,
            _read_logprobs(choice.get("logprobs") or {}, self.chat),
            int(usage.get("prompt_tokens") or estimate_prompt(body)),
            int(usage.get("completion_tokens") or estimate_tokens(text)),
        )


def _read_logprobs(logprobs: Mapping[str, Any], chat: bool) -> list[tuple[str, float]]:
    """Return the most likely first tokens with their log-probabilities."""
    # The two endpoints have different formats. Only the first generated token matters.
    if chat:
        tokens = logprobs.get("content") or []
        pairs = [(top["token"], top["logprob"]) for top in (tokens[0].get("top_logprobs") or [])] if tokens else []
    else:
        tokens = logprobs.get("top_logprobs") or []
        pairs = list((tokens[0] or {}).items()) if tokens else []
    return [(str(token), float(logprob)) for token, logprob in pairs]
