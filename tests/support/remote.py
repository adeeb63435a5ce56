"""The remote backend with a cache of its own and without waits, and requests for it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import (
    Answer,
    Choose,
    Context,
    Generate,
    PluginManager,
    PolicyConfig,
    Question,
    TaskConfig,
)
from rlaif_framework.prompting import run_coroutines
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.sending import Sender
from rlaif_plugins.backends.transformers import TransformersConfig

KEY = "sk-made-for-a-test-0123456789"
Build = Callable[..., Any]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, no key, no proxy between the test and its server."""
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    for module in ("sending", "limits"):  # repeated at once
        monkeypatch.setattr(f"rlaif_plugins.backends.openai.{module}.backoff", lambda attempt: 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def build(manager: PluginManager, alone: None) -> Build:
    """Build the backend as a labeler does; it needs nothing of a spec."""
    context = Context(TaskConfig(kind="tldr"), PolicyConfig(model="none"), 0, manager)

    def make(*urls: str, model: str = "made", **settings: Any) -> Any:
        config = OpenAIConfig(model=model, base_urls=list(urls), **settings)
        return context.build_backend(config)

    return make


@pytest.fixture
def local(manager: PluginManager) -> Callable[[str, str], Any]:
    """Build the local backend in fp32, for a folder and with or without its chat template."""
    context = Context(TaskConfig(kind="tldr"), PolicyConfig(model="none"), 0, manager)

    def make(folder: str, chat: str) -> Any:
        return context.build_backend(
            TransformersConfig.model_validate({"model": folder, "dtype": "fp32", "chat": chat})
        )

    return make


class Clock:
    """The backend's time: a wait moves it on at once. With one request at a time that is what real time would do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        times = types.SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now)
        monkeypatch.setattr("rlaif_plugins.backends.openai.limits.time", times)
        pause = Sender._pause

        async def wait(call: Any, seconds: float, until: asyncio.Event) -> None:
            self.now += max(0.0, seconds)
            await pause(call, 0.0, until)

        monkeypatch.setattr(Sender, "_pause", wait)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def choices(count: int, prefill: str = "Preferred Summary=") -> list[Choose]:
    return [Choose(Question(f"question {i}", prefill), ("1", "2")) for i in range(count)]


def texts(count: int, **settings: Any) -> list[Generate]:
    return [Generate(Question(f"question {i}"), 5, **settings) for i in range(count)]


def ask(request: Choose | Generate) -> Generator[Any, Any, Answer]:
    return (yield request)


def drive(requests: Sequence[Choose | Generate], backend: Any) -> list[Answer]:
    """Through the driver and its cache, as a labeler does."""
    outcomes = run_coroutines([ask(request) for request in requests], backend)
    return [outcome.value for outcome in outcomes if outcome.value is not None]
