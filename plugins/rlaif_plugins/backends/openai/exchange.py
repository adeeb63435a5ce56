"""Answer the requests of one call concurrently, within the budget, and return each answer as soon as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2

from rlaif_framework import Answer, Choose, Generate, ModelError, Question, Request, RlaifError
from rlaif_plugins.backends.openai.budget import Reservation
from rlaif_plugins.backends.openai.lengths import estimate_question
from rlaif_plugins.backends.openai.options import last_line, option_weights, read_option, sample_tokens
from rlaif_plugins.backends.openai.sending import Refused, Sender, Stopped
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.backends.openai.wire import Completion

SHORT_QUESTION = "Which is the larger number, 1 or 2? Answer with 1 or 2."
"""Sent if there have been only refusals: a server that refuses this as well refuses all of our requests."""
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
            async with (
                # No timeout here: `Sender` limits the whole request, the client only each read.
                httpx2.AsyncClient(headers=headers, timeout=None, limits=limits) as client,
                asyncio.TaskGroup() as group,
            ):
                self.sender = Sender(self.service, client)
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
            estimate = partial(budget.estimate, prompt, 1)
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
        """Check that a refusal is caused by its request: if nothing has been answered yet, ask a short question.

        Raises:
            ModelError: The short question is refused as well.
        """
        async with self.checking:
            # A server that has answered any request of this call is set up correctly.
            if self.sender.has_answered:
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
        done = await self.sender.complete(body, used)
        return self._reply(used, text=done.text)

    async def _choose(self, request: Choose, used: list[Completion]) -> Answer:
        """Read the options' probabilities from those of the next token; if that is not possible, count samples."""
        if self.dialect.gives_logprobs:
            # Temperature 1, so that the probabilities are the model's own on servers that report them after scaling.
            body = partial(self.dialect.body, request.question, 1, 1.0, 0, logprobs=True)
            done = await self.sender.complete(body, used)
            # Once a server has returned log-probabilities, a single answer without them changes nothing.
            self.dialect.saw_logprobs = bool(done.logprobs) or bool(self.dialect.saw_logprobs)
            weights = option_weights(request.options, done.logprobs)
            if weights is not None:
                mass = sum(weights)  # may exceed 1 by rounding
                return self._reply(used, probabilities=tuple(w / mass for w in weights), mass=min(1.0, mass))
        sampled = await self._sample(request, used)
        ending = last_line(request.question)
        readings = [read_option(request.options, one.text, ending) for one in sampled]
        counts = [readings.count(index) for index in range(len(request.options))]
        readable = sum(counts)
        probabilities = tuple(count / readable for count in counts) if readable else ()
        return self._reply(used, probabilities=probabilities, sampled=readable)

    async def _sample(self, request: Choose, used: list[Completion]) -> list[Completion]:
        length = sample_tokens(request)
        bodies = [
            partial(self.dialect.body, request.question, length, 1.0, seed) for seed in range(self.config.samples)
        ]
        first = await self.sender.complete(bodies[0], used)  # alone: if it is refused, so are the others
        # Waits for all even if one fails, since answers in flight are paid for and must be counted in `used`.
        rest = await asyncio.gather(*(self.sender.complete(body, used) for body in bodies[1:]), return_exceptions=True)
        for one in rest:
            if isinstance(one, BaseException):
                raise one
        return [first, *(one for one in rest if isinstance(one, Completion))]

    def _reply(self, used: Sequence[Completion], **parts: Any) -> Answer:
        prompt, generated = sum(c.prompt_tokens for c in used), sum(c.generated_tokens for c in used)
        cost = self.service.budget.price(prompt, generated)
        dropped = tuple(sorted({name for c in used for name in c.dropped}))
        return Answer(prompt_tokens=prompt, generated_tokens=generated, cost=cost, dropped=dropped, **parts)
