"""Ask OpenAI-compatible servers, many requests at once, within limits, and give each answer as it arrives."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import httpx2

from rlaif_framework import Answer, Choose, Context, Generate, ModelError, Question, Request, RlaifError
from rlaif_plugins.openai_backend import OpenAIConfig
from rlaif_plugins.openai_backend.limits import Budget, Server, TokenBucket, backoff, least_busy, read_retry_after
from rlaif_plugins.openai_backend.wire import (
    Completion,
    Dialect,
    estimate_tokens,
    last_line,
    read_option,
    weigh_options,
)

MAY_PASS = (408, 409, 425, 429)
LONGEST_REST = 3600.0
"""Seconds a server may ask to be left alone before it counts as not usable now."""
REAL_KEY = 16
"""Characters from which a key is taken for a secret also in answers; `EMPTY` is an ordinary word there."""


class OpenAIBackend:
    """One model behind one or several servers. Limits, budget and what servers refuse are kept between calls."""

    def __init__(self, config: OpenAIConfig, context: Context) -> None:
        self.config = config
        self.key = _read_key(config.api_key_env)
        self.dialect = Dialect(config)
        self.budget = Budget(config)
        self.requests = TokenBucket(config.requests_per_minute)
        self.tokens = TokenBucket(config.tokens_per_minute)

    def identity(self) -> str:
        """The model and how it is asked; not the servers: the same model served twice is the same."""
        c = self.config
        return f"openai {c.model} {c.mode} prefill={c.prefill} samples={c.samples}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Whether a question and an answer of so many tokens fit into `context_tokens`, about."""
        limit = self.config.context_tokens
        return limit is None or (len(question.text) + len(question.prefill)) // 4 + new_tokens <= limit

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answer requests, each as soon as its answer arrives.

        Raises:
            ModelError: A server refused, or gave no usable answer however often it was asked.
            RlaifError: The budget is used up.
        """
        with asyncio.Runner() as runner:  # ends what is in flight if the caller stops, by Ctrl-C or otherwise
            exchange = _Exchange(self, requests)
            while (arrived := runner.run(exchange.next())) is not None:
                yield arrived

    def hide_key(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self.key, "***") if self.key else text


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):  # an error of the HTTP library would show it
        raise ModelError(f"backend 'openai': the key in ${variable} holds characters that no header can; set it again")
    return key


class _MayPass(Exception):
    """A failure that may pass."""


class _Stopped(Exception):
    """Nothing more is to be sent."""


class _Exchange:
    """The requests of one call on their way: workers send them, answers queue up."""

    def __init__(self, backend: OpenAIBackend, requests: Sequence[Request]) -> None:
        self.backend = backend
        self.config = backend.config
        self.dialect = backend.dialect
        self.total = len(requests)
        self.answered = 0
        self.todo = iter(enumerate(requests))
        self.arrived: asyncio.Queue[tuple[int, Answer] | None] = asyncio.Queue()
        self.servers = [Server(url) for url in self.config.base_urls]
        self.slots = asyncio.Semaphore(self.config.concurrency)
        self.full = asyncio.Event()
        """Nothing new is started; what has begun goes on, so that nothing paid for is lost."""
        self.failed = asyncio.Event()
        """Nothing at all is sent any more."""
        self.failure: RlaifError | None = None
        self.running: asyncio.Task[None] | None = None

    async def next(self) -> tuple[int, Answer] | None:
        """The next answer; None when all have been given."""
        self.running = self.running or asyncio.create_task(self._run())
        arrived = await self.arrived.get()
        if arrived is not None:
            return arrived
        await self.running
        kept = f"{self.answered:,} of {self.total:,} requests are answered and kept"
        if self.failure is not None:
            raise type(self.failure)(f"{self.failure} ({kept})")
        if self.answered < self.total:
            raise RlaifError(
                f"backend 'openai' reached its {self.backend.budget.reached()}: {kept}; run the same command with a "
                "higher budget, or once more with this one, to go on from there"
            )
        return None

    async def _run(self) -> None:
        headers = {"Content-Type": "application/json"}
        if self.backend.key:
            headers["Authorization"] = f"Bearer {self.backend.key}"
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.config.concurrency)
        if self.backend.budget.reached():
            self.full.set()
        try:
            async with (
                httpx2.AsyncClient(headers=headers, timeout=None, limits=limits) as self.client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(min(self.config.concurrency, self.total)):
                    group.create_task(self._work())
        finally:
            self.arrived.put_nowait(None)

    async def _work(self) -> None:
        try:
            for index, request in self.todo:
                answer = await (self._generate(request) if isinstance(request, Generate) else self._choose(request))
                self.answered += 1
                self.arrived.put_nowait((index, answer))
        except _Stopped:
            pass
        except RlaifError as error:
            self.failure = self.failure or error
            self.full.set()
            self.failed.set()

    async def _generate(self, request: Generate) -> Answer:
        body = partial(
            self.dialect.body,
            request.question,
            request.max_new_tokens,
            request.temperature,
            request.seed,
            top_k=request.top_k,
        )
        done = await self._ask(body, new=True)
        return self._reply([done], text=done.text)

    async def _choose(self, request: Choose) -> Answer:
        """Read the options' probabilities from the next token's, or count sampled answers where that cannot be."""
        used: list[Completion] = []
        if self.dialect.gives_logprobs:
            # Temperature 1, so that the probabilities are the model's own on servers that report them after scaling.
            used.append(await self._ask(partial(self.dialect.body, request.question, 1, 1.0, 0, logprobs=True), True))
            self.dialect.saw_logprobs = bool(used[0].logprobs) or bool(self.dialect.saw_logprobs)
            weights = weigh_options(request.options, used[0].logprobs)
            if weights is not None:
                mass = sum(weights)
                return self._reply(used, probabilities=tuple(w / mass for w in weights), mass=min(1.0, mass))
        sampled = await self._sample(request, new=not used)
        ending = last_line(request.question)
        readings = [read_option(request.options, one.text, ending) for one in sampled]
        counts = [readings.count(index) for index in range(len(request.options))]
        readable = sum(counts)
        chosen = tuple(count / readable for count in counts) if readable else ()
        return self._reply([*used, *sampled], probabilities=chosen, sampled=readable)

    async def _sample(self, request: Choose, new: bool) -> list[Completion]:
        ending = last_line(request.question)
        length = 4 + max(len(option) for option in request.options) + min(32, len(ending) // 2)  # it may be repeated
        bodies = [
            partial(self.dialect.body, request.question, length, 1.0, seed) for seed in range(self.config.samples)
        ]
        first = await self._ask(bodies[0], new)
        return [first, *await asyncio.gather(*(self._ask(body, new=False) for body in bodies[1:]))]

    def _reply(self, used: Sequence[Completion], **parts: Any) -> Answer:
        prompt, generated = sum(c.prompt_tokens for c in used), sum(c.generated_tokens for c in used)
        cost = self.backend.budget.price(prompt, generated)
        return Answer(prompt_tokens=prompt, generated_tokens=generated, cost=cost, **parts)

    async def _ask(self, build: Callable[[], dict[str, Any]], new: bool) -> Completion:
        """Get one completion, asking again after failures that may pass; `new` if nothing was paid for it yet."""
        failed: Counter[str] = Counter()
        async with self.slots:
            for attempt in range(self.config.retries + 1):
                if attempt:
                    await self._pause(backoff(attempt), self.failed)
                server = least_busy(self.servers, failed)
                try:
                    return await self._attempt(server, build, self.full if new and not attempt else self.failed)
                except _MayPass as error:
                    last = error
                    failed[server.url] += 1
        times = "once" if not self.config.retries else f"{self.config.retries + 1} times"
        raise ModelError(
            f"backend 'openai': asked {times} without a usable answer; the last: {last}. Look at the server, or raise "
            "'retries' or 'timeout', and run the same command again"
        )

    async def _attempt(self, server: Server, build: Callable[[], dict[str, Any]], until: asyncio.Event) -> Completion:
        if server.left() > LONGEST_REST:
            raise ModelError(
                f"backend 'openai': {server.url} asks to wait for {server.left() / 3600:.1f} hours; run the same "
                "command again then"
            )
        server.in_flight += 1
        server.sent += 1
        try:
            body = build()
            estimate = estimate_tokens(body) + int(body.get("max_tokens", body.get("max_completion_tokens", 0)))
            wait = max(self.backend.requests.take(1), self.backend.tokens.take(estimate))
            await self._pause(max(wait, server.left()), until)
            while (done := await self._send(server, body := build())) is None:
                pass  # it refused a setting that it is not sent again
            self.backend.tokens.take(done.prompt_tokens + done.generated_tokens - estimate)
            self.backend.budget.spend(done.prompt_tokens, done.generated_tokens)
        finally:
            server.in_flight -= 1
        if self.backend.budget.reached():
            self.full.set()
        return done

    async def _pause(self, seconds: float, until: asyncio.Event) -> None:
        """Wait, unless the event comes first."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await until.wait()
        if until.is_set():
            raise _Stopped

    async def _send(self, server: Server, body: dict[str, Any]) -> Completion | None:
        """Send one request; None if the server refused a setting that it can do without."""
        url = server.url + self.dialect.path
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await self.client.post(url, content=json.dumps(body))
        except TimeoutError:
            raise _MayPass(f"{url} did not answer within {self.config.timeout:g} s") from None
        except httpx2.RequestError as error:
            server.lost()
            raise _MayPass(f"{url}: {self.backend.hide_key(f'{type(error).__name__} {error}').strip()}") from None
        server.failures = 0
        if response.status_code == 200:
            return self._read(url, response, body)
        message = self.backend.hide_key(_error_message(response))
        status = response.status_code
        if status in MAY_PASS:
            server.rest(read_retry_after(response.headers.get("Retry-After")))
        elif (status in (400, 422) or "logprobs" in message) and self.dialect.learn(body, message):
            return None
        elif status >= 500:
            server.rest(read_retry_after(response.headers.get("Retry-After")))
        else:
            raise ModelError(f"backend 'openai': {url} answered {status}: {message}; {self._advise(status)}")
        raise _MayPass(f"{url} answered {status}: {message}")

    def _read(self, url: str, response: httpx2.Response, body: dict[str, Any]) -> Completion:
        text = response.text
        if len(self.backend.key) >= REAL_KEY:
            text = self.backend.hide_key(text)
        try:
            return self.dialect.read(json.loads(text), body)
        except (LookupError, TypeError, ValueError, AttributeError):
            start = self.backend.hide_key(text)[:200]
            raise _MayPass(f"{url} answered with something else than a completion: {start!r}") from None

    def _advise(self, status: int) -> str:
        variable = self.config.api_key_env
        if status in (401, 403):
            return f"check the key in ${variable}" if self.backend.key else f"${variable} is not set; put the key there"
        if status == 404:
            return f"check that the base URL is whole (most end with /v1) and that it serves '{self.config.model}'"
        if self.config.prefill == "yes" and self.dialect.chat:
            return "check the model and the lengths; if it does not take a begun answer, set prefill: no"
        return "check the model and the lengths of prompt and answer"


def _error_message(response: httpx2.Response) -> str:
    """What the server said, in one line."""
    try:
        data: Any = response.json()
    except ValueError:
        data = response.text
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and name in data:
            data = data[name]
    text = data if isinstance(data, str) else json.dumps(data)
    return " ".join(text.split())[:500] or response.reason_phrase
