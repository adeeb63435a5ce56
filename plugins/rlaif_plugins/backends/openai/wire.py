"""The bodies of requests, from the settings that the servers support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_framework import Question
from rlaif_framework.data import escape_control_tokens
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.label_tokens import LOGPROB_TOKEN_IDS
from rlaif_plugins.backends.openai.reading import Completion, read_completion, read_scores

SMALLER_TOP = {20: 5, 5: 0}
"""Number of log-probabilities to request after a number was refused: most servers allow 20, some 5."""
PREFILL_WORDS = ("continue_final_message", "add_generation_prompt", "assistant", "prefill")
"""Words in refusals of a prefilled answer."""
LOGPROB_WORDS = ("logprobs", "top_n_tokens")
"""Words in refusals of log-probabilities. text-generation-inference uses its own name for them."""
ABOVE_ZERO = ("positive", "greater", "at least", "> 0", ">0")
"""Words in refusals of temperature 0, of servers without greedy decoding."""
OPTIONAL = ("top_k", "top_p", "seed")
"""Settings that are left out for servers that refuse them. `Answer.dropped` lists them."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a server."""

    path: str
    """Path after the base URL."""
    body: dict[str, Any]
    dropped: tuple[str, ...] = ()
    """Settings that are left out because they were refused."""
    read: Callable[[Any, Mapping[str, Any]], Completion] = read_completion
    """Parses the response to a body."""


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

    def ask_text(self, question: Question, max_tokens: int, temperature: float, seed: int, top_k: int = 0) -> Call:
        """Build a request for text."""
        # The range of integers that every server accepts.
        body = self._body(question, max_tokens) | {"temperature": temperature, "seed": seed % 2**31}
        if temperature > 0:
            body["top_p"] = 1.0  # some servers read another default from the model's folder
        if top_k > 0:
            body["top_k"] = top_k
        return self._call(question, body)

    def ask_next(self, question: Question, token_ids: Sequence[int] = ()) -> Call:
        """Build a request for the log-probabilities of the next token.

        Nothing is sampled, so there is no seed: it ends a vLLM server on a CPU.

        Args:
            question: Its answer begins with the token.
            token_ids: Tokens whose log-probabilities to request, for servers with `logprob_token_ids`; otherwise those
                of the most likely tokens.
        """
        body = self._body(question, 1) | {"temperature": 0.0}
        if self.top:
            body |= {"logprobs": True, "top_logprobs": self.top} if self.chat else {"logprobs": self.top}
        # The tokens are those after the question's ending. A prefilled answer may have been refused since.
        if token_ids and self.continues(question) and LOGPROB_TOKEN_IDS not in self.refused:
            # By their ids, as the texts of two tokens can be equal.
            body |= {LOGPROB_TOKEN_IDS: list(token_ids), "return_tokens_as_token_ids": True}
        return self._call(question, body)

    def ask_scores(self, prompt: str | list[int], token_ids: Sequence[int]) -> Call:
        """Build a request for the probabilities of the next token, for SGLang's `/score`.

        Args:
            prompt: Text or token ids.
            token_ids: Tokens whose probabilities to request.
        """
        item: str | list[int] = "" if isinstance(prompt, str) else []
        body = {"query": prompt, "items": [item], "label_token_ids": list(token_ids), "apply_softmax": False}
        return Call("/score", {"model": self.config.model, **body}, read=read_scores)

    def continues(self, question: Question) -> bool:
        """Return True if the answer continues the question's ending, rather than being a new turn."""
        return not self.chat or (self.prefill and bool(question.prefill))

    def question(self, question: Question) -> dict[str, Any]:
        """Return a question as the part of a body."""
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

    def _body(self, question: Question, max_tokens: int) -> dict[str, Any]:
        # OpenAI's reasoning models accept only the newer name.
        length = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        return self.question(question) | {"model": self.config.model, length: max_tokens}

    def _call(self, question: Question, body: dict[str, Any]) -> Call:
        kept = {key: value for key, value in body.items() if key not in self.refused}
        dropped = [key for key in body if key not in kept]
        if self.chat and question.prefill and not self.prefill and self.config.prefill == "auto":
            dropped.append("prefill")
        return Call(self.path, kept, tuple(dropped))

    def learn(self, body: Mapping[str, Any], message: str) -> bool:
        """Learn from a refusal; return True if the request can be sent with other settings."""
        named = message.lower()
        learnt = {name for name in (*OPTIONAL, LOGPROB_TOKEN_IDS) if name in body and name in named}
        # A message may name a setting for another reason, e.g. a value out of range, so more words are required.
        says_unsupported = "support" in named or (body.get("temperature") == 0 and any(w in named for w in ABOVE_ZERO))
        if "temperature" in body and "temperature" in named and says_unsupported:
            learnt.add("temperature")
        if "max_tokens" in body and "max_completion_tokens" in named and "unsupported" in named:
            learnt.add("max_tokens")
        self.refused |= learnt
        if "logprobs" in body and any(word in named for word in LOGPROB_WORDS):
            asked = body["top_logprobs"] if self.chat else body["logprobs"]
            self.top = min(self.top, SMALLER_TOP[asked])
            learnt.add("logprobs")
        guessed = self.config.prefill == "auto" and "continue_final_message" in body
        if guessed and any(word in named for word in PREFILL_WORDS):
            self.prefill = False
            learnt.add("prefill")
        return bool(learnt)
