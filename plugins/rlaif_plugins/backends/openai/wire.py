"""The bodies of requests, from what is asked and from the settings that the servers support."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rlaif_framework import Question
from rlaif_framework.data import escape_control_tokens
from rlaif_framework.prompting import Journal
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.classification import Read
from rlaif_plugins.backends.openai.label_tokens import LOGPROB_TOKEN_IDS
from rlaif_plugins.backends.openai.reading import read_completion, read_scores

TOPS = (20, 10, 5, 2, 1)
"""Numbers of log-probabilities to request, in this order until one is accepted: most servers allow 20, some 5."""
OPTIONAL = ("temperature", "top_k", "top_p", "seed", LOGPROB_TOKEN_IDS)
"""Settings that are left out for servers that refuse them. `Answer.dropped` lists them."""
PREFILL_WORDS = ("continue_final_message", "add_generation_prompt", "assistant", "prefill")
"""Words in refusals that suggest to try without a prefilled answer."""
LOGPROB_WORDS = ("logprobs", "top_n_tokens")
"""Words in refusals that suggest to try fewer log-probabilities. text-generation-inference uses its own name."""
MISSING = 2
"""Number of answers without log-probabilities after which none are requested, unless any answer had them: a single
answer may have lost them."""
CONTENTS = (
    *("messages", "prompt", "seed", "max_tokens", "max_completion_tokens", LOGPROB_TOKEN_IDS),
    *("query", "items", "label_token_ids"),
)
"""Fields whose values differ between requests that a server otherwise treats alike."""


Shape = tuple[Any, ...]
"""What two requests have in common that differ only in their contents."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask, whatever the server supports."""

    question: Question
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    """None if nothing is sampled: a seed ends a vLLM server on a CPU."""
    top_k: int = 0
    logprobs: bool = False
    """Request the most likely first tokens."""
    token_ids: tuple[int, ...] = ()
    """Tokens whose log-probabilities to request, for servers with `logprob_token_ids`."""
    is_probe: bool = False
    """True if the answer shows only what the server accepts now, so that an earlier one is of no use."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is sent to the servers. It is reduced if they refuse it."""

    top: int = TOPS[0]
    """Number of log-probabilities."""
    prefill: bool = True
    """Send the start of the answer as the assistant's message."""
    dropped: frozenset[str] = frozenset()
    """Fields that are not sent. In place of `max_tokens`, `max_completion_tokens` is."""


@dataclass(frozen=True)
class Call:
    """A request to a server."""

    path: str
    """Path after the base URL."""
    body: dict[str, Any]
    settings: Settings
    """The settings from which the body was built."""
    dropped: tuple[str, ...] = ()
    """Settings that are left out because they were refused."""
    read: Read = read_completion
    """Reads the response to a body."""
    identity: tuple[Any, ...] = ()
    """What distinguishes this request from another one with the same body, such as a seed that is not sent."""
    is_probe: bool = False
    """As in `Ask`."""

    @cached_property
    def key(self) -> bytes:
        """The key of the request in the journal."""
        return Journal.key([self.path, self.body, *self.identity])

    @property
    def shape(self) -> Shape:
        """The path and the settings, without the content: what a server accepts for one request, it does for others."""
        return self.path, *sorted((name, None if name in CONTENTS else value) for name, value in self.body.items())


@dataclass(frozen=True, slots=True)
class Scoring:
    """A request for the probabilities of the next token, for SGLang's `/score`."""

    prompt: str | list[int]
    """Text or token ids."""
    token_ids: Sequence[int]
    """Tokens whose probabilities to request."""


class Dialect:
    """Builds requests, and knows which settings servers accept."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.chat = config.mode == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self.settings = Settings(prefill=config.prefill != "no")
        self.longest = 0
        """Estimated number of tokens of the longest prompt that was answered."""
        self.has_logprobs = False
        """True if any answer had log-probabilities."""
        self.without_logprobs = 0
        """Number of answers without the log-probabilities that were requested."""
        self.unusable: set[str] = set()
        """Methods to read label tokens that do not work although the server describes them."""

    @property
    def gives_logprobs(self) -> bool:
        """True if the server may support log-probabilities."""
        return self.settings.top > 0 and (self.has_logprobs or self.without_logprobs < MISSING)

    def note_logprobs(self, are_there: bool) -> None:
        """Note whether an answer has the log-probabilities that were requested."""
        self.has_logprobs = self.has_logprobs or are_there
        self.without_logprobs += not are_there

    def continues(self, question: Question) -> bool:
        """Return True if the answer continues the question's ending, rather than being a new turn."""
        return not self.chat or (self.settings.prefill and bool(question.prefill))

    def question(self, question: Question, settings: Settings | None = None) -> dict[str, Any]:
        """Return a question as the part of a body."""
        settings = settings or self.settings
        # The server tokenises the text, so data with control tokens could end the user's turn.
        question = Question(escape_control_tokens(question.text), escape_control_tokens(question.prefill))
        whole = f"{question.text}\n\n{question.prefill}" if question.prefill else question.text
        if not self.chat:
            return {"prompt": whole}
        if not (settings.prefill and question.prefill):
            return {"messages": [{"role": "user", "content": whole}]}
        messages = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.prefill}]
        # Parameters of vLLM and SGLang, with which the answer continues the last message.
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}

    def build(self, ask: Ask | Scoring, settings: Settings | None = None) -> Call:
        """Build a request, with the settings that are known to be accepted or with others to try."""
        settings = settings or self.settings
        if isinstance(ask, Scoring):
            item: str | list[int] = "" if isinstance(ask.prompt, str) else []
            tokens = {"label_token_ids": list(ask.token_ids), "apply_softmax": False}
            scored = {"model": self.config.model, "query": ask.prompt, "items": [item], **tokens}
            return Call("/score", scored, settings, (), read_scores)
        body = self.question(ask.question, settings) | self._options(ask, settings)
        kept = {name: value for name, value in body.items() if name not in settings.dropped}
        # OpenAI's reasoning models accept only the newer name.
        kept["max_tokens" if "max_tokens" in kept else "max_completion_tokens"] = ask.max_tokens
        dropped = [name for name in body if name not in kept and name != "max_tokens"]
        if self.chat and ask.question.prefill and not settings.prefill and self.config.prefill == "auto":
            dropped.append("prefill")
        identity = (ask.seed, ask.top_k, ask.temperature)
        return Call(self.path, kept, settings, tuple(dropped), identity=identity, is_probe=ask.is_probe)

    def _options(self, ask: Ask, settings: Settings) -> dict[str, Any]:
        options: dict[str, Any] = {
            "model": self.config.model,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
        }
        if ask.seed is not None:
            options["seed"] = ask.seed % 2**31  # the range of integers that every server accepts
        if ask.temperature > 0:
            options["top_p"] = 1.0  # some servers read another default from the model's folder
        if ask.top_k > 0:
            options["top_k"] = ask.top_k
        if ask.logprobs and settings.top:
            options |= {"logprobs": True, "top_logprobs": settings.top} if self.chat else {"logprobs": settings.top}
        # The tokens are those after the question's ending. A prefilled answer may have been refused since.
        continues = not self.chat or (settings.prefill and ask.question.prefill)
        if ask.token_ids and continues and LOGPROB_TOKEN_IDS not in settings.dropped:
            # By their ids, as the texts of two tokens can be equal.
            options |= {LOGPROB_TOKEN_IDS: list(ask.token_ids), "return_tokens_as_token_ids": True}
        return options

    # Settings to try

    def suggest(self, call: Call, message: str) -> Settings | None:
        """Return the settings that the message of a refusal suggests to try; None if it suggests none."""
        settings, body, named = call.settings, call.body, message.lower()
        dropped = {name for name in OPTIONAL if name in body and name in named}
        if "max_tokens" in body and "max_completion_tokens" in named:
            dropped.add("max_tokens")
        tried = replace(settings, dropped=settings.dropped | dropped)
        if "logprobs" in body and any(word in named for word in LOGPROB_WORDS):
            tried = replace(tried, top=_smaller_top(settings.top, named))
        guessed = self.config.prefill == "auto" and "continue_final_message" in body
        if guessed and any(word in named for word in PREFILL_WORDS):
            tried = replace(tried, prefill=False)
        return None if tried == settings else tried

    def basics(self) -> Iterator[Settings]:
        """Yield the settings with the fewest fields, with each name of the maximum length."""
        dropped = self.settings.dropped | frozenset(OPTIONAL)
        fewest = replace(self.settings, top=0, dropped=dropped)
        if self.config.prefill == "auto":
            fewest = replace(fewest, prefill=False)
        yield fewest
        yield replace(fewest, dropped=dropped ^ {"max_tokens"})

    def restorations(self, settings: Settings, name: str) -> Iterator[Settings]:
        """Yield settings with one more field, in the order in which to try them.

        Args:
            settings: Settings that are accepted.
            name: `prefill`, `logprobs`, or a name in `OPTIONAL`.
        """
        wanted = self.settings
        if name == "prefill":
            yield replace(settings, prefill=wanted.prefill)
        elif name == "logprobs":
            yield from (replace(settings, top=top) for top in TOPS if top <= wanted.top)
        elif name not in wanted.dropped:
            yield replace(settings, dropped=settings.dropped - {name})


def _smaller_top(top: int, message: str) -> int:
    """Return the next number of log-probabilities to try: one that the message names, or the next smaller one."""
    named = [int(number) for number in re.findall(r"\b[0-9]{1,2}\b", message)]
    smaller = [number for number in named if 0 < number < top] or [number for number in TOPS if number < top]
    return max(smaller, default=0)
