"""Answer the requests of one call concurrently, within the budget, and return each answer as soon as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from rlaif_framework import Answer, Generate, ModelError, Request, RlaifError
from rlaif_framework.prompting import Journal
from rlaif_plugins.backends.openai.budget import Reservation
from rlaif_plugins.backends.openai.choices import Chooser
from rlaif_plugins.backends.openai.clients import open_client
from rlaif_plugins.backends.openai.lengths import estimate_question
from rlaif_plugins.backends.openai.negotiation import make_short
from rlaif_plugins.backends.openai.options import count_reads, sample_tokens
from rlaif_plugins.backends.openai.sending import Refused, Sender, Stopped, Usage
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.backends.openai.transport import Transport
from rlaif_plugins.backends.openai.wire import Ask

MAX_REASON_LENGTH = 300
"""Maximum number of characters of a refusal that are kept."""


class Exchange:
    """The requests of one call. Workers answer them, and put the answers into a queue."""

    def __init__(self, service: Service, requests: Sequence[Request], journal: Journal) -> None:
        self.service = service
        self.journal = journal
        self.config = service.config
        self.dialect = service.dialect
        self.total = len(requests)
        self.answered = 0
        self.remaining = iter(enumerate(requests))
        """Requests that no worker has taken yet. The workers share the iterator."""
        self.queue: asyncio.Queue[tuple[int, Answer] | None] = asyncio.Queue()
        """Answers that have arrived, then None."""
        self.keys: dict[int, set[bytes]] = {}
        """Keys in the journal from which the answer to a request was made, by its index."""
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
        try:
            opened = open_client(self.config.base_urls, headers, self.config.concurrency)
            async with opened as client, asyncio.TaskGroup() as group:
                self.sender = Sender(self.service, Transport(client, self.service.redactor), self.journal)
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
                    answer = await self._answer(index, request)
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

    async def _answer(self, index: int, request: Request) -> Answer:
        usage = Usage()
        try:
            answer = await self._ask(request, usage)
            self.keys[index] = usage.keys
            return answer
        except Refused as refusal:
            await self._check_setup(request, refusal)
            reason = refusal.reason[:MAX_REASON_LENGTH]
            return self._reply(usage, refused=reason, fitting_fraction=refusal.fitting_fraction)

    def forget(self, index: int) -> None:
        """Remove what an answer was made of from the journal, since the answer is cached."""
        self.journal.forget(self.keys.pop(index, ()))

    async def _check_setup(self, request: Request, refusal: Refused) -> None:
        """Check that a refusal is caused by its request: ask a short question if the servers may refuse all requests.

        Raises:
            ModelError: The short question is refused as well.
        """
        async with self.checking:
            # A server that has answered any request of this call is set up correctly, unless it has stopped to.
            if self.sender.has_answered and not refusal.may_be_outage:
                return
            asked = refusal.ask if isinstance(refusal.ask, Ask) else Ask(request.question, 1)
            try:
                await self.sender.complete(make_short(asked), Usage())
            except Refused:
                raise ModelError(
                    f"backend 'openai': {refusal.reason}; it refuses a short question as well: "
                    f"{self.service.advise(refusal.status or 400)}"
                ) from None

    async def _ask(self, request: Request, usage: Usage) -> Answer:
        """Answer a request. Completions are appended to `usage`, so that they are counted even if the request fails."""
        if isinstance(request, Generate):
            return await self._generate(request, usage)
        return self._reply(usage, **await self.chooser.choose(request, usage))

    async def _generate(self, request: Generate, usage: Usage) -> Answer:
        ask = Ask(request.question, request.max_new_tokens, request.temperature, request.seed, request.top_k)
        done = await self.sender.complete(ask, usage)
        return self._reply(usage, text=done.text)

    def _reply(self, usage: Usage, **parts: Any) -> Answer:
        used = usage.completions
        prompt, generated = sum(c.prompt_tokens for c in used), sum(c.generated_tokens for c in used)
        cost = self.service.budget.price(prompt, generated)
        dropped = tuple(sorted({name for c in used for name in c.dropped}))
        return Answer(
            prompt_tokens=prompt,
            generated_tokens=generated,
            cost=cost,
            dropped=dropped,
            unanswered=self.journal.count_unanswered(usage.keys),
            **parts,
        )
