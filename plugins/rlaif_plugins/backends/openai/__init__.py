"""The remote backend: any server that speaks OpenAI's API, such as vLLM, SGLang, llama-cpp-python or OpenAI itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rlaif_framework import BackendConfig, Component, hookimpl


def _check_url(url: str) -> str:
    """Refuse what is not a base URL, without repeating it: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected the whole base URL of a server, such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a base URL holds no user, password or query; put a key into the variable of 'api_key_env'")
    return url.rstrip("/")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


ServerURL = Annotated[str, AfterValidator(_check_url)]


class OpenAIConfig(BackendConfig):
    """A model behind one or several OpenAI-compatible servers."""

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    """The model's name as the server knows it."""
    base_urls: Annotated[
        list[ServerURL], Field(min_length=1), BeforeValidator(_as_list, json_schema_input_type=str | list[str])
    ]
    """Base URL of each server, up to and with `/v1`; several serve the same model and share the load."""
    api_key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """The environment variable that holds the key; without it requests carry none."""
    mode: Literal["chat", "completion"] = "chat"
    """Put questions as a user's message, or as plain text to continue."""
    prefill: Literal["auto", "yes", "no"] = "auto"
    """Whether a chat server can be given the start of its answer; if not, the ending is the end of the user's message
    (auto: until the server refuses)."""
    samples: int = Field(8, ge=1, le=1000)
    """Sampled answers to count for a choice whose log-probabilities the server does not give."""
    context_tokens: int | None = Field(None, ge=64)
    """Length of the model's context; a question that would be longer by our estimate has its source cut before it is
    sent (null: once the server has refused it as too long)."""
    concurrency: int = Field(16, ge=1, le=4096)
    """Requests in flight at once, over all servers."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Limit over all servers (null: none)."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Limit over all servers, prompts and answers together (null: none)."""
    timeout: float = Field(120.0, gt=0, le=86400)
    """Seconds to wait for one answer."""
    retries: int = Field(6, ge=0, le=100)
    """How often a request is sent again after a failure that may pass."""
    max_tokens_budget: int | None = Field(None, ge=1)
    """Tokens, prompts and answers together, after which a run of the command sends nothing more (null: no end)."""
    max_cost: float | None = Field(None, gt=0)
    """US dollars after which a run of the command sends nothing more (null: no end); needs the prices."""
    price_in: float = Field(0.0, ge=0)
    """US dollars per million prompt tokens (0: not known)."""
    price_out: float = Field(0.0, ge=0)
    """US dollars per million generated tokens (0: not known)."""

    def preferred_chunk_size(self) -> int:
        """Enough to keep all requests in flight."""
        return self.concurrency

    @model_validator(mode="after")
    def _price_the_budget(self) -> Self:
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ValueError("'max_cost' needs 'price_in' and 'price_out', US dollars per million tokens")
        return self


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `openai`."""
    yield Component("openai", OpenAIConfig, "rlaif_plugins.backends.openai.backend:OpenAIBackend")
