"""State of a backend that persists between calls: key, limits, budget, servers, and which settings servers support."""

from __future__ import annotations

import os

from rlaif_framework import ModelError
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.budget import Budget
from rlaif_plugins.backends.openai.label_tokens import LabelTokens
from rlaif_plugins.backends.openai.limits import Server, TokenBucket
from rlaif_plugins.backends.openai.redaction import Redactor
from rlaif_plugins.backends.openai.wire import Dialect


class Service:
    """The servers of one backend, with their limits, usage and supported settings."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.key = _read_key(config.api_key_env)
        self.redactor = Redactor(self.key)
        self.dialect = Dialect(config)
        self.budget = Budget(config)
        self.requests = TokenBucket(config.requests_per_minute)
        self.tokens = TokenBucket(config.tokens_per_minute)
        self.servers = [Server(url) for url in config.base_urls]
        self.label_tokens: dict[tuple[str, tuple[str, ...]], LabelTokens | None] = {}
        """The tokens of options after the ending of a question, by both; None if they cannot be read exactly."""

    def advise(self, status: int) -> str:
        """Return advice for an HTTP status that is not transient."""
        variable = self.config.api_key_env
        if status in (401, 403):
            return f"check the key in ${variable}" if self.key else f"${variable} is not set; put the key there"
        if status == 402:
            return f"the account of the key in ${variable} has no credit"
        if status == 407:
            return "check the user and the password of the proxy in the environment"
        if status in (301, 302, 303, 307, 308, 404, 405):
            return f"check that the base URL is whole (most end with /v1) and that it serves '{self.config.model}'"
        if self.config.prefill == "yes" and self.dialect.chat:
            return "check the model and the lengths; if it does not support a prefilled answer, set prefill: no"
        return "check the model and the lengths of prompt and answer"


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):  # checked here, since an error of the HTTP library would show the key
        raise ModelError(
            f"backend 'openai': the key in ${variable} has characters that an HTTP header cannot contain; set it again"
        )
    return key
