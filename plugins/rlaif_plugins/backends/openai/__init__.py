"""The remote backend: any server with OpenAI's API, such as vLLM, SGLang, llama-cpp-python or OpenAI itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rlaif_framework import BackendConfig, Component, hookimpl


def _check_url(url: str) -> str:
    """Check a base URL. The error does not contain it, since it may include a password."""
    from httpx2 import URL, InvalidURL

    try:
        URL(url)
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, InvalidURL):
        usable = False
    if not usable:
        raise ValueError("expected the whole base URL of a server, such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "a base URL must not have a user, password or query; put a key into the variable of 'api_key_env'"
        )
    return url.rstrip("/")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


ServerURL = Annotated[str, AfterValidator(_check_url)]


class OpenAIConfig(BackendConfig):
    """A model served by one or several OpenAI-compatible servers."""

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1, examples=["Qwen/Qwen2.5-7B-Instruct"])
    """The model's name on the server."""
    base_urls: Annotated[
        list[ServerURL],
        Field(min_length=1, examples=["http://localhost:8000/v1"]),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ]
    """Base URL of each server, including `/v1`. Several servers of the same model share the load."""
    api_key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """Name of the environment variable with the API key. If it is not set, requests are sent without a key."""
    mode: Literal["chat", "completion"] = "chat"
    """Send questions as a user message, or as plain text to complete."""
    prefill: Literal["auto", "yes", "no"] = "auto"
    """Prefill the start of the assistant's answer on a chat server. Otherwise it is put at the end of the
    user message (auto: once the server refuses a prefilled answer)."""
    samples: int = Field(8, ge=1, le=1000)
    """Number of answers to sample for a choice if the server returns no log-probabilities."""
    context_tokens: int | None = Field(None, ge=64)
    """Length of the model's context. The source of a question that is estimated to exceed it is truncated before it is
    sent (null: once the server has refused it as too long)."""
    concurrency: int = Field(16, ge=1, le=4096)
    """Maximum number of requests in flight, over all servers."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Rate limit over all servers (null: none)."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Rate limit over all servers, for prompts and answers together (null: none)."""
    timeout: float = Field(120.0, gt=0, le=86400)
    """Maximum number of seconds to wait for one answer."""
    retries: int = Field(6, ge=0, le=100)
    """Maximum number of times that a request is repeated after transient failures."""
    max_tokens_budget: int | None = Field(None, ge=1)
    """Maximum number of tokens per run of the command, for prompts and answers together (null: no limit)."""
    max_cost: float | None = Field(None, gt=0)
    """Maximum cost per run of the command, in US dollars (null: no limit). It needs the prices."""
    price_in: float = Field(0.0, ge=0)
    """US dollars per million prompt tokens (0: unknown)."""
    price_out: float = Field(0.0, ge=0)
    """US dollars per million generated tokens (0: unknown)."""

    @property
    def unused_settings(self) -> frozenset[str]:
        """Those that change when an answer comes, and not the answer."""
        return frozenset(
            {
                "api_key_env",
                "concurrency",
                "requests_per_minute",
                "tokens_per_minute",
                "timeout",
                "retries",
                "max_tokens_budget",
                "max_cost",
            }
        )

    def preferred_chunk_size(self) -> int:
        """Return the number of comparisons that keeps all requests in flight."""
        return self.concurrency

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        # Without prices every request would cost 0, and the limit would never be reached.
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ValueError("'max_cost' needs 'price_in' and 'price_out', US dollars per million tokens")
        return self


@hookimpl
def rlaif_backends() -> Iterable[Component]:
    """Offer `openai`."""
    yield Component("openai", OpenAIConfig, "rlaif_plugins.backends.openai.backend:OpenAIBackend")
