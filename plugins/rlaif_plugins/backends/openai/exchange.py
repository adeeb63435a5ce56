"""Answer the requests of one call concurrently, within the budget, and return each answer as soon as it arrives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2

from rlaif_framework import Answer, Generate, ModelError, Question, Request, RlaifError
from rlaif_plugins.backends.openai.budget import Reservation
from rlaif_plugins.backends.openai.choices import Chooser
from rlaif_plugins.backends.openai.lengths import estimate_question
from rlaif_plugins.backends.openai.options import count_reads, sample_tokens
from rlaif_plugins.backends.openai.reading import Completion
from rlaif_plugins.backends.openai.sending import Refused, Sender, Stopped
from rlaif_plugins.backends.openai.service import Service

SHORT_QUESTION = "Which is the larger number, 1 or 2? Answer with 1 or 2."
"""Sent if there have been only refusals: a server that refuses this as well refuses all of our requests."""
PROXY_VARIABLES = ("all_proxy", "http_proxy", "https_proxy")
"""Environment variables with proxies, in lower case. Both cases are in use."""
MAX_REASON_LENGTH = 300
"""Maximum number of characters of a refusal that are kept."""


class Exchange:
    """The requests of one call. Workers answer them, and put the answers into a queue."""

    def __init__(self, service: Service, requests: Sequence[Request]) -> None:
        self.service = service
        self.config = service.config
        self.dialect = service.dialect
        self.total = len(requests)
        self.answered = 0
        self.remaining = iter(enumerate(requests))
        """Requests that no worker has taken yet. The workers share the iterator."""
        self.queue: asyncio.Queue[tuple[int, Answer] | None] = asyncio.Queue()
        """Answers that have arrived, then None."""
        self.released = asyncio.Event()
        """Set when a reservation of the budget is released."""
        self.exceeded: str | None = None
        """The limit that the next request might exceed."""
        self.checking = asyncio.Lock()
        """Held during the check of the set-up, which one worker makes while the others wait for its result."""
        self.failure: RlaifError | None = None
        self.running: asyncio.Task[None] | None = None

    async def next(self) -> tuple[int, Answer] | None:
        """Return the next answer with the index of its request; None after the last one.

        Raises:
            ModelError: A server cannot be used.
            RlaifError: The budget is used up.
        """
        self.running = self.running or asyncio.create_task(self._run())
        arrived = await self.queue.get()
        if arrived is not None:
            return arrived
        await self.running  # raises unexpected errors of the workers
        progress = f"{self.answered:,} of {self.total:,} requests are answered and cached"
        if self.failure is not None:
            raise type(self.failure)(f"{self.failure} ({progress})")
        if self.answered < self.total:
            limit = self.service.budget.reached() or self.exceeded
            raise RlaifError(
                f"backend 'openai' reached its {limit}: {progress}; rerun the same command to resume, "
                "with a higher budget or with the same one"
            )
        return None

    async def _run(self) -> None:
        headers = {"Content-Type": "application/json"}
        if self.service.key:
            headers["Authorization"] = f"Bearer {self.service.key}"
        # `concurrency` limits the requests; the client's default of 100 connections might be lower.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.config.concurrency)
        try:
            async with _open_client(headers, limits) as client, asyncio.TaskGroup() as group:
                self.sender = Sender(self.service, client)
                self.chooser = Chooser(self.sender)
                if self.service.budget.reached():  # by earlier calls
                    self.sender.draining.set()
                for _ in range(min(self.config.concurrency, self.total)):
                    group.create_task(self._work())
        finally:
            self.queue.put_nowait(None)

    async def _work(self) -> None:
        try:
            for index, request in self.remaining:
                reservation = await self._reserve(request)
                try:
                    answer = await self._answer(request)
                finally:
                    self.service.budget.release(reservation)
                    self.released.set()
                self.answered += 1
                self.queue.put_nowait((index, answer))
        except Stopped:
            pass  # `next` reports the requests that are not answered
        except RlaifError as error:
            self.failure = self.failure or error  # the first one is the cause
            self.sender.draining.set()
            self.sender.stopped.set()

    async def _reserve(self, request: Request) -> Reservation:
        """Reserve the estimated usage of a request, and wait for requests in flight if the budget may not suffice."""
        budget = self.service.budget
        prompt = estimate_question(request.question)
        if isinstance(request, Generate):
            estimate = partial(budget.estimate, prompt, request.max_new_tokens)
        elif self.dialect.gives_logprobs:
            reads = count_reads(request) if any(server.methods for server in self.service.servers) else 1
            estimate = partial(budget.estimate, reads * prompt, reads)
        else:
            samples = self.config.samples
            estimate = partial(budget.estimate, samples * prompt, samples * sample_tokens(request))
        # Estimated again in each round, since estimates improve with every answer.
        while not budget.reserve(reservation := estimate()):
            if not budget.reservations:  # waiting would not help
                self.exceeded = budget.exceeded_by(reservation)
                self.sender.draining.set()
            if self.sender.draining.is_set():
                raise Stopped
            self.released.clear()
            await self.released.wait()
        return reservation

    async def _answer(self, request: Request) -> Answer:
        used: list[Completion] = []
        try:
            return await self._ask(request, used)
        except Refused as refusal:
            await self._check_setup(request, refusal)
            reason = f"{refusal.where}: {refusal.message}"[:MAX_REASON_LENGTH]
            return self._reply(used, refused=reason, fitting_fraction=refusal.fitting_fraction)

    async def _check_setup(self, request: Request, refusal: Refused) -> None:
        """Check that a refusal is caused by its request: ask a short question if the servers may refuse all requests.

        Raises:
            ModelError: The short question is refused as well.
        """
        async with self.checking:
            # A server that has answered any request of this call is set up correctly, unless it has stopped to.
            if self.sender.has_answered and not refusal.may_be_outage:
                return
            question = Question(SHORT_QUESTION, "Answer=" if request.question.prefill else "")
            try:
                await self._ask(replace(request, question=question), [])
            except Refused:
                raise ModelError(
                    f"backend 'openai': {refusal.where}: {refusal.message}; it refuses a short question as well: "
                    f"{self.service.advise(400)}"
                ) from None

    async def _ask(self, request: Request, used: list[Completion]) -> Answer:
        """Answer a request. Completions are appended to `used`, so that they are counted even if the request fails."""
        if isinstance(request, Generate):
            return await self._generate(request, used)
        return self._reply(used, **await self.chooser.choose(request, used))

    async def _generate(self, request: Generate, used: list[Completion]) -> Answer:
        call = partial(
            self.dialect.ask_text,
            request.question,
            request.max_new_tokens,
            request.temperature,
            request.seed,
            top_k=request.top_k,
        )
        done = await self.sender.complete(call, used)
        return self._reply(used, text=done.text)

    def _reply(self, used: Sequence[Completion], **parts: Any) -> Answer:
        prompt, generated = sum(c.prompt_tokens for c in used), sum(c.generated_tokens for c in used)
        cost = self.service.budget.price(prompt, generated)
        dropped = tuple(sorted({name for c in used for name in c.dropped}))
        return Answer(prompt_tokens=prompt, generated_tokens=generated, cost=cost, dropped=dropped, **parts)


def _open_client(headers: dict[str, str], limits: httpx2.Limits) -> httpx2.AsyncClient:
    """Open a client that uses the proxies of the environment.

    Raises:
        ModelError: A proxy cannot be used.
    """
    try:
        # No timeout here: `Sender` limits the whole request, the client only each read.
        return httpx2.AsyncClient(headers=headers, timeout=None, limits=limits)
    except (ImportError, ValueError):  # a scheme that the library does not know, or for which a package is missing
        # The library reads both cases of each name.
        names = sorted(name for name in os.environ if name.lower() in PROXY_VARIABLES and os.environ[name])
        if not names:
            raise
        # The address is not shown, since it may contain a password.
        raise ModelError(
            f"backend 'openai': the proxy of {', '.join(names)} cannot be used (only http:// and https:// proxies "
            "can); unset the variable, or set another proxy"
        ) from None
