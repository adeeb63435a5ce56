"""Send single requests to servers, within rate limits, and repeat them after transient failures."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rlaif_framework import ModelError
from rlaif_framework.prompting import Journal
from rlaif_plugins.backends.openai.classification import (
    CONTENT_STATUSES,
    PassingFault,
    Reading,
    Refusal,
    SetupFault,
    classify,
)
from rlaif_plugins.backends.openai.lengths import (
    answer_tokens,
    estimate_prompt,
    read_overlong,
    states_limit,
)
from rlaif_plugins.backends.openai.limits import Server, backoff, least_busy, read_retry_after
from rlaif_plugins.backends.openai.lookups import Lookups
from rlaif_plugins.backends.openai.negotiation import (
    CRASH_STATUSES,
    FITTING_FRACTION,
    is_too_long,
    may_concern_settings,
    negotiate,
)
from rlaif_plugins.backends.openai.reading import Completion
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.backends.openai.transport import ConnectionFault, Response, Transport, join_lines
from rlaif_plugins.backends.openai.wire import Ask, Call, Scoring

MAX_MESSAGE_LENGTH = 500
"""Maximum number of characters of a server's message that are used."""
MAX_WAIT = 3600.0
"""Maximum number of seconds to wait if a server requests a pause."""


class Stopped(Exception):
    """No further request may be sent."""


class Refused(Exception):
    """A server refuses one request, although it may answer others."""

    def __init__(
        self,
        reason: str,
        ask: Ask | Scoring,
        status: int | None = None,
        fitting_fraction: float | None = None,
        *,
        may_be_outage: bool = False,
    ) -> None:
        self.reason = reason
        self.ask = ask
        self.status = status
        self.fitting_fraction = fitting_fraction
        self.may_be_outage = may_be_outage
        """True if the server may refuse any request now, also if it has answered before."""


@dataclass(slots=True)
class Usage:
    """What was used for one request of the framework."""

    completions: list[Completion] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    """Keys in the journal."""

    def add(self, done: Completion) -> None:
        """Count a completion, unless it has been counted for another question of the same request."""
        if all(done.key != one.key for one in self.completions):
            self.completions.append(done)


def show(text: str) -> str:
    """Return a text on one line, without control characters, which would change what a terminal shows."""
    return "".join(c if c.isprintable() else "\ufffd" for c in join_lines(text))


class Sender:
    """Sends the requests of one call of the backend."""

    def __init__(self, service: Service, transport: Transport, journal: Journal) -> None:
        self.service = service
        self.config = service.config
        self.dialect = service.dialect
        self.transport = transport
        self.journal = journal
        self.lookups = Lookups(service, transport, self._back_off)
        self.slots = asyncio.Semaphore(self.config.concurrency)
        self.draining = asyncio.Event()
        """If set, no new request is started. Requests that have begun are completed, as they have been paid for."""
        self.stopped = asyncio.Event()
        """If set, nothing more is sent."""
        self.has_answered = False
        """True once a server has answered any request of this call."""
        self.negotiating = asyncio.Lock()
        """Held while accepted settings are looked for, so that this is done once."""
        self.setup_fault: SetupFault | None = None
        """Why no request is answered with any settings."""

    async def complete(self, ask: Ask | Scoring, usage: Usage) -> Completion:
        """Get one completion, retry after transient failures, and append it to the usage of the request.

        Raises:
            ModelError: No attempt has succeeded.
            Refused: The server refuses the request.
            Stopped: Nothing more may be sent.
        """
        is_new = not usage.completions  # nothing has been paid for this request yet
        failed: Counter[str] = Counter()
        async with self.slots:
            for attempt in range(self.config.retries + 1):
                if attempt:  # the slot is kept during the pause, which slows all requests down when servers fail
                    await self._back_off(attempt)
                server = least_busy(self.service.servers, failed)  # preferably another one than before
                is_last = attempt == self.config.retries
                until = self.draining if is_new and not attempt else self.stopped
                reading, call = await self._attempt(server, ask, usage, until, is_last)
                if isinstance(reading, Completion):
                    usage.add(reading)
                    return reading
                if not isinstance(reading, PassingFault):
                    raise await self._explain(server, ask, call, reading, usage)
                fault = reading
                failed[server.url] += 1
        attempts = "one attempt" if not self.config.retries else f"{self.config.retries + 1} attempts"
        reason = self._describe(server, call, fault)
        # A server that fails on `/score` may answer when it is asked in another way.
        if not fault.is_outage or (isinstance(ask, Scoring) and fault.status in CRASH_STATUSES):
            fraction = read_overlong(fault.message, call.body, None)
            reason = f"{server.url}: no usable answer after {attempts}: {reason}"
            raise Refused(reason, ask, fault.status, fraction, may_be_outage=True)
        raise ModelError(
            f"backend 'openai': no usable answer after {attempts}; the last failure: {reason}. Check the server, or "
            "raise 'retries' or 'timeout', and rerun the same command"
        )

    async def _attempt(
        self, server: Server, ask: Ask | Scoring, usage: Usage, until: asyncio.Event, is_last: bool
    ) -> tuple[Reading, Call]:
        """Send a request once, or with several settings if no server has accepted them yet."""
        service = self.service
        if server.remaining_wait() > MAX_WAIT:
            raise ModelError(
                f"backend 'openai': {server.url} requests a pause of {server.remaining_wait() / 3600:.1f} hours; rerun "
                "the same command after it"
            )
        server.in_flight += 1
        server.sent += 1
        try:
            call = self.dialect.build(ask)
            estimate = estimate_prompt(call.body) + answer_tokens(call.body)
            wait = max(service.requests.take(1), service.tokens.take(estimate))
            await self._pause(max(wait, server.remaining_wait()), until)
            call = self.dialect.build(ask)  # settings may have been refused during the pause
            reading = await self._send(server, call, usage)
            if isinstance(ask, Ask) and self._may_negotiate(call, reading, is_last):
                reading = await self._negotiate(server, ask, call, reading, usage)
            if isinstance(reading, Completion):  # replace the estimate by the actual usage
                service.tokens.take(reading.prompt_tokens + reading.generated_tokens - estimate)
        finally:
            server.in_flight -= 1
        if service.budget.reached():
            self.draining.set()
        return reading, call

    def _may_negotiate(self, call: Call, reading: Reading, is_last: bool) -> bool:
        if not may_concern_settings(reading):
            return False
        # A crash usually has another reason than the settings.
        return isinstance(reading, Refusal) or is_last or self.dialect.suggest(call, str(reading)) is not None

    async def _negotiate(self, server: Server, ask: Ask, call: Call, refused: Reading, usage: Usage) -> Reading:
        async with self.negotiating:
            if call.settings != self.dialect.settings:  # found for another request, meanwhile
                call = self.dialect.build(ask)
                refused = await self._send(server, call, usage)
            if not may_concern_settings(refused) or call.shape in server.accepted:
                return refused
            if self.setup_fault is not None:
                return self.setup_fault
            if self.stopped.is_set():
                return refused
            reading = await negotiate(self.dialect, lambda trial: self._send(server, trial, usage), ask, call, refused)
            self.setup_fault = reading if isinstance(reading, SetupFault) else None
            return reading

    async def _back_off(self, attempt: int) -> None:
        await self._pause(backoff(attempt), self.stopped)

    async def _pause(self, seconds: float, until: asyncio.Event) -> None:
        """Wait, unless the event is set first."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await until.wait()
        if until.is_set():
            raise Stopped

    async def _send(self, server: Server, call: Call, usage: Usage) -> Reading:
        """Send one request and read the response. Both are written down at once.

        What an interrupted run has received is not sent again.
        """
        if call.is_probe:
            return self._read(server, call, await self._exchange(server, call))
        usage.keys.add(call.key)
        if (known := self._recall(call)) is not None:
            return known
        self.journal.note_request(call.key)
        response = await self._exchange(server, call)
        reading = self._read(server, call, response)
        if response.is_lost:
            self.journal.note_loss(call.key)
        else:
            data = response.data if isinstance(response, Response) and isinstance(reading, Completion) else None
            self.journal.note_response(call.key, data)
        return reading

    async def _exchange(self, server: Server, call: Call) -> Response | ConnectionFault:
        try:
            return await self.transport.post(server.url + call.path, call.body, self.config.timeout)
        except ConnectionFault as fault:
            return fault

    def _read(self, server: Server, call: Call, response: Response | ConnectionFault) -> Reading:
        """Classify a response, and count its usage."""
        if isinstance(response, ConnectionFault):
            if not response.is_timeout:
                server.mark_lost()
            return PassingFault("", str(response), is_outage=response.is_http)
        reading = classify(response, call.body, call.read)
        server.failures = 0  # any response shows that the server is alive
        if isinstance(reading, PassingFault) and reading.is_outage:
            server.rest(read_retry_after(response.retry_after))
        if isinstance(reading, Completion | Refusal) and reading.prompt_tokens:
            budget = self.service.budget
            budget.spend(reading.prompt_tokens, reading.generated_tokens, estimate_prompt(call.body))
        if not isinstance(reading, Completion):
            return reading
        self.has_answered = True
        server.accepted.add(call.shape)
        return self._accept(call, reading)

    def _recall(self, call: Call) -> Completion | None:
        """Return an answer that an interrupted run has received and paid for; None if there is none."""
        data = self.journal.find_response(call.key)
        reading = None if data is None else classify(Response(200, "", data), call.body, call.read)
        return self._accept(call, reading) if isinstance(reading, Completion) else None

    def _accept(self, call: Call, done: Completion) -> Completion:
        """Note how long a prompt may be, and how it was asked."""
        self.dialect.longest = max(self.dialect.longest, estimate_prompt(call.body))
        return replace(done, dropped=call.dropped, key=call.key)

    def _describe(self, server: Server, call: Call, fault: Refusal | PassingFault | SetupFault) -> str:
        """Describe what a server answered, with its URL. The key is removed before anything is cut."""
        redact = self.service.redactor.redact
        where, message = (show(redact(text))[:MAX_MESSAGE_LENGTH] for text in (fault.where, fault.message))
        return ": ".join(filter(None, [f"{server.url}{call.path} {where}".rstrip(), message]))

    async def _explain(
        self, server: Server, ask: Ask | Scoring, call: Call, fault: Refusal | SetupFault, usage: Usage
    ) -> Exception:
        """Return the error for a request that is not answered and not asked again."""
        reason = self._describe(server, call, fault)
        if isinstance(fault, SetupFault):
            also = "it refuses a short question as well: " if fault.refuses_short else ""
            return ModelError(f"backend 'openai': {reason}; {also}{self.service.advise(fault.status)}")
        if fault.status is None:
            usage.completions.append(Completion("", (), fault.prompt_tokens, fault.generated_tokens, call.dropped))
            return Refused(reason, ask)
        fraction = await self._find_fraction(server, ask, call, fault, usage)
        return Refused(reason, ask, fault.status, fraction, may_be_outage=fault.status not in CONTENT_STATUSES)

    async def _find_fraction(
        self, server: Server, ask: Ask | Scoring, call: Call, refusal: Refusal, usage: Usage
    ) -> float | None:
        """Return the fraction of a refused question that would fit; None if it is not too long."""
        listed = None if states_limit(refusal.message) else await self.lookups.list_context(server)
        fraction = read_overlong(refusal.message, call.body, listed)
        if fraction is not None or isinstance(ask, Scoring) or refusal.status not in CONTENT_STATUSES:
            return fraction
        too_long = await is_too_long(self.dialect, lambda trial: self._send(server, trial, usage), ask, call)
        return FITTING_FRACTION if too_long else None
