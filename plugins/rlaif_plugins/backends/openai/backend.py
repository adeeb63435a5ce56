"""Ask OpenAI-compatible servers, many requests at once, within limits, and give each answer as it arrives."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2

from rlaif_framework import Answer, Choose, Context, Generate, ModelError, Question, Request, RlaifError
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.limits import (
    Budget,
    Hold,
    Server,
    TokenBucket,
    backoff,
    least_busy,
    read_retry_after,
)
from rlaif_plugins.backends.openai.wire import (
    Completion,
    Dialect,
    answer_tokens,
    estimate_prompt,
    estimate_tokens,
    last_line,
    read_context,
    read_option,
    read_overlong,
    states_limit,
    weigh_options,
)

MAY_PASS = (408, 409, 425, 429)
OF_A_REQUEST = (400, 413, 422)
"""Statuses that may be about what one request says, such as a content filter's, rather than about the set-up."""
SHORT_QUESTION = "Which is the larger number, 1 or 2? Answer with 1 or 2."
"""Asked where nothing but refusals has come: a server that refuses this too does not take our requests at all."""
LONGEST_REASON = 300
"""Characters of a refusal that are kept."""
Put = Callable[[], tuple[dict[str, Any], tuple[str, ...]]]
"""Puts a request as the server is known to take it, see `Dialect.body`."""
LONGEST_REST = 3600.0
"""Seconds a server may ask to be left alone before it counts as not usable now."""
REAL_KEY = 16
"""Characters from which a key is taken for a secret also in answers; `EMPTY` is an ordinary word there."""


class OpenAIBackend:
    """One model behind one or several servers.

    Limits, budget, what servers refuse and how long they are to be left alone are kept between calls.
    """

    def __init__(self, config: OpenAIConfig, context: Context) -> None:
        self.config = config
        self.key = _read_key(config.api_key_env)
        self.dialect = Dialect(config)
        self.budget = Budget(config)
        self.requests = TokenBucket(config.requests_per_minute)
        self.tokens = TokenBucket(config.tokens_per_minute)
        self.servers = [Server(url) for url in config.base_urls]

    def identity(self) -> str:
        """The model and how it is asked; not the servers: the same model served twice is the same."""
        c = self.config
        return f"openai {c.model} {c.mode} prefill={c.prefill} samples={c.samples}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Whether a question and an answer of so many tokens fit into `context_tokens`, about."""
        limit = self.config.context_tokens
        return limit is None or estimate_question(question) + new_tokens <= limit

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answer requests, each as soon as its answer arrives; one that a server refuses is answered with the reason.

        Raises:
            ModelError: A server refused even a short question, or gave no usable answer however often it was asked.
            RlaifError: The budget is used up.
        """
        with asyncio.Runner() as runner:  # ends what is in flight if the caller stops, by Ctrl-C or otherwise
            exchange = _Exchange(self, requests)
            while (arrived := runner.run(exchange.next())) is not None:
                yield arrived
        if self.budget.passed:
            reached = self.budget.reached()
            warnings.warn(f"backend 'openai' passed its {reached}: answers took more than estimated", stacklevel=2)

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


class _Refused(Exception):
    """A request that a server will not answer, though it may answer others."""

    def __init__(self, where: str, message: str, fitting_fraction: float | None) -> None:
        self.where = where
        self.message = message
        self.fitting_fraction = fitting_fraction


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
        self.slots = asyncio.Semaphore(self.config.concurrency)
        self.full = asyncio.Event()
        """Nothing new is started; what has begun goes on, so that nothing paid for is lost."""
        self.failed = asyncio.Event()
        """Nothing at all is sent any more."""
        self.settled = asyncio.Event()
        """Something that was set aside of the budget was given back."""
        self.short: str | None = None
        """The limit that the next request might have passed."""
        self.works = False
        """Whether a server has answered anything in this call."""
        self.checking = asyncio.Lock()
        self.listing = asyncio.Lock()
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
            limit = self.backend.budget.reached() or self.short
            raise RlaifError(
                f"backend 'openai' reached its {limit}: {kept}; run the same command with a "
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
                hold = await self._set_aside(request)
                try:
                    answer = await self._answer(request)
                finally:
                    self.backend.budget.give_back(hold)
                    self.settled.set()
                self.answered += 1
                self.arrived.put_nowait((index, answer))
        except _Stopped:
            pass
        except RlaifError as error:
            self.failure = self.failure or error
            self.full.set()
            self.failed.set()

    async def _set_aside(self, request: Request) -> Hold:
        """Set aside of the budget what a request may take, once those in flight may leave it enough."""
        budget = self.backend.budget
        prompt = estimate_question(request.question)
        if isinstance(request, Generate):
            hold = partial(budget.foresee, prompt, request.max_new_tokens)
        elif self.dialect.gives_logprobs:
            hold = partial(budget.foresee, prompt, 1)
        else:
            samples = self.config.samples
            hold = partial(budget.foresee, samples * prompt, samples * sample_tokens(request))
        while not budget.take(wanted := hold()):
            if not budget.holds:
                self.short = budget.missing_field(wanted)
                self.full.set()
            if self.full.is_set():
                raise _Stopped
            self.settled.clear()
            await self.settled.wait()
        return wanted

    async def _answer(self, request: Request) -> Answer:
        used: list[Completion] = []
        try:
            return await self._ask(request, used)
        except _Refused as refusal:
            await self._check_setup(request, refusal)
            reason = f"{refusal.where}: {refusal.message}"[:LONGEST_REASON]
            return self._reply(used, refused=reason, fitting_fraction=refusal.fitting_fraction)

    async def _check_setup(self, request: Request, refusal: _Refused) -> None:
        """See that a refusal is about its request: if nothing was answered yet, ask a short question the same way.

        Raises:
            ModelError: That is refused too.
        """
        async with self.checking:
            if self.works:
                return
            question = Question(SHORT_QUESTION, "Answer=" if request.question.prefill else "")
            try:
                await self._ask(replace(request, question=question), [])
            except _Refused:
                raise ModelError(
                    f"backend 'openai': {refusal.where}: {refusal.message}; it refuses a short question as well: "
                    f"{self._advise(400)}"
                ) from None

    async def _ask(self, request: Request, used: list[Completion]) -> Answer:
        """Answer a request, and leave what was paid for in `used` even if it comes to nothing."""
        if isinstance(request, Generate):
            return await self._generate(request, used)
        return await self._choose(request, used)

    async def _generate(self, request: Generate, used: list[Completion]) -> Answer:
        body = partial(
            self.dialect.body,
            request.question,
            request.max_new_tokens,
            request.temperature,
            request.seed,
            top_k=request.top_k,
        )
        done = await self._complete(body, used)
        return self._reply(used, text=done.text)

    async def _choose(self, request: Choose, used: list[Completion]) -> Answer:
        """Read the options' probabilities from the next token's, or count sampled answers where that cannot be."""
        if self.dialect.gives_logprobs:
            # Temperature 1, so that the probabilities are the model's own on servers that report them after scaling.
            body = partial(self.dialect.body, request.question, 1, 1.0, 0, logprobs=True)
            done = await self._complete(body, used)
            self.dialect.saw_logprobs = bool(done.logprobs) or bool(self.dialect.saw_logprobs)
            weights = weigh_options(request.options, done.logprobs)
            if weights is not None:
                mass = sum(weights)
                return self._reply(used, probabilities=tuple(w / mass for w in weights), mass=min(1.0, mass))
        sampled = await self._sample(request, used)
        ending = last_line(request.question)
        readings = [read_option(request.options, one.text, ending) for one in sampled]
        counts = [readings.count(index) for index in range(len(request.options))]
        readable = sum(counts)
        chosen = tuple(count / readable for count in counts) if readable else ()
        return self._reply(used, probabilities=chosen, sampled=readable)

    async def _sample(self, request: Choose, used: list[Completion]) -> list[Completion]:
        length = sample_tokens(request)
        bodies = [
            partial(self.dialect.body, request.question, length, 1.0, seed) for seed in range(self.config.samples)
        ]
        first = await self._complete(bodies[0], used)  # alone: if it is refused, so are the others
        rest = await asyncio.gather(*(self._complete(body, used) for body in bodies[1:]), return_exceptions=True)
        for one in rest:
            if isinstance(one, BaseException):
                raise one
        return [first, *(one for one in rest if isinstance(one, Completion))]

    def _reply(self, used: Sequence[Completion], **parts: Any) -> Answer:
        prompt, generated = sum(c.prompt_tokens for c in used), sum(c.generated_tokens for c in used)
        cost = self.backend.budget.price(prompt, generated)
        dropped = tuple(sorted({name for c in used for name in c.dropped}))
        return Answer(prompt_tokens=prompt, generated_tokens=generated, cost=cost, dropped=dropped, **parts)

    async def _complete(self, build: Put, used: list[Completion]) -> Completion:
        """Get one completion, asking again after failures that may pass, and add it to those used for its request."""
        new = not used  # nothing was paid for it yet
        failed: Counter[str] = Counter()
        async with self.slots:
            for attempt in range(self.config.retries + 1):
                if attempt:
                    await self._pause(backoff(attempt), self.failed)
                server = least_busy(self.backend.servers, failed)
                try:
                    done = await self._attempt(server, build, self.full if new and not attempt else self.failed)
                    used.append(done)
                    return done
                except _MayPass as error:
                    last = error
                    failed[server.url] += 1
        times = "once" if not self.config.retries else f"{self.config.retries + 1} times"
        raise ModelError(
            f"backend 'openai': asked {times} without a usable answer; the last: {last}. Look at the server, or raise "
            "'retries' or 'timeout', and run the same command again"
        )

    async def _attempt(self, server: Server, build: Put, until: asyncio.Event) -> Completion:
        if server.left() > LONGEST_REST:
            raise ModelError(
                f"backend 'openai': {server.url} asks to wait for {server.left() / 3600:.1f} hours; run the same "
                "command again then"
            )
        server.in_flight += 1
        server.sent += 1
        try:
            body, _ = build()
            estimate = estimate_prompt(body) + answer_tokens(body)
            wait = max(self.backend.requests.take(1), self.backend.tokens.take(estimate))
            await self._pause(max(wait, server.left()), until)
            while True:
                body, dropped = build()
                if (done := await self._send(server, body)) is not None:
                    break  # else it refused a setting that it is not sent again
            self.backend.tokens.take(done.prompt_tokens + done.generated_tokens - estimate)
            self.backend.budget.spend(done.prompt_tokens, done.generated_tokens, estimate_prompt(body))
        finally:
            server.in_flight -= 1
        self.works = True
        if self.backend.budget.reached():
            self.full.set()
        return replace(done, dropped=dropped)

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
        elif status in OF_A_REQUEST:
            listed = None if states_limit(message) else await self._list_context(server)
            raise _Refused(f"{url} answered {status}", message, read_overlong(message, body, listed))
        else:
            raise ModelError(f"backend 'openai': {url} answered {status}: {message}; {self._advise(status)}")
        raise _MayPass(f"{url} answered {status}: {message}")

    async def _list_context(self, server: Server) -> int | None:
        """Length of the model's context, if the server lists it; asked once."""
        async with self.listing:
            if not server.listed:
                server.listed = True
                with suppress(TimeoutError, httpx2.RequestError, ValueError):
                    async with asyncio.timeout(self.config.timeout):
                        response = await self.client.get(f"{server.url}/models")
                    server.context_tokens = read_context(response.json(), self.config.model)
            return server.context_tokens

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


def estimate_question(question: Question) -> int:
    """About how many tokens a question has."""
    return estimate_tokens(question.text) + estimate_tokens(question.prefill)


def sample_tokens(request: Choose) -> int:
    """Length of a sampled answer to a choice: it may repeat the ending first."""
    return 4 + max(len(option) for option in request.options) + min(32, len(last_line(request.question)) // 2)


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
