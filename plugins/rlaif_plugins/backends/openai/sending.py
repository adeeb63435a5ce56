"""Send single requests to servers, within rate limits, and repeat them after transient failures."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import httpx2

from rlaif_framework import ModelError
from rlaif_plugins.backends.openai.label_tokens import (
    METHODS,
    Method,
    read_methods,
    read_token_ids,
)
from rlaif_plugins.backends.openai.lengths import (
    answer_tokens,
    estimate_prompt,
    read_context,
    read_overlong,
    states_limit,
)
from rlaif_plugins.backends.openai.limits import Server, backoff, least_busy, read_retry_after
from rlaif_plugins.backends.openai.reading import Completion, find_error
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.backends.openai.wire import Call

TRANSIENT_STATUSES = (408, 409, 425, 429)
"""Request timeout, conflict, too early, too many requests."""
REQUEST_STATUSES = (400, 413, 422)
"""Statuses that may be caused by the content of one request, e.g. by a content filter, rather than by the set-up."""
MAX_MESSAGE_LENGTH = 500
"""Maximum number of characters of a server's message that are used."""
MAX_WAIT = 3600.0
"""Maximum number of seconds to wait if a server requests a pause."""
MIN_KEY_LENGTH = 16
"""Keys of at least this length are also removed from answers, where a shorter one (`EMPTY`) may be an ordinary word."""
BuildCall = Callable[[], Call]
"""Builds a request from the settings that the server supports, see `Dialect`."""
MAX_PROBE_SECONDS = 10.0
"""Maximum number of seconds to wait for a server's description of its API."""


class TransientError(Exception):
    """A failure after which the same request may succeed."""


class UnusableError(TransientError):
    """A response with status 200 that has no usable answer. The content of the request may be the reason."""


class Stopped(Exception):
    """No further request may be sent."""


class Refused(Exception):
    """A server refuses one request, although it may answer others."""

    def __init__(
        self, where: str, message: str, fitting_fraction: float | None = None, *, may_be_outage: bool = False
    ) -> None:
        self.where = where
        self.message = message
        self.fitting_fraction = fitting_fraction
        self.may_be_outage = may_be_outage
        """True if the server may have stopped to answer any request."""


class Sender:
    """Sends the requests of one call of the backend."""

    def __init__(self, service: Service, client: httpx2.AsyncClient) -> None:
        self.service = service
        self.config = service.config
        self.client = client
        self.slots = asyncio.Semaphore(self.config.concurrency)
        self.draining = asyncio.Event()
        """If set, no new request is started. Requests that have begun are completed, as they have been paid for."""
        self.stopped = asyncio.Event()
        """If set, nothing more is sent."""
        self.has_answered = False
        """True once a server has answered any request of this call."""
        self.listing = asyncio.Lock()
        """Held while a server is asked for its models or its API, so that each is asked once."""
        self.probed: set[str] = set()
        """URLs of the servers that have been asked for the description of their API in this call."""

    async def complete(self, build: BuildCall, used: list[Completion]) -> Completion:
        """Get one completion, retry after transient failures, and append it to those used for the same request.

        Raises:
            ModelError: No attempt has succeeded.
            Refused: The server refuses the request.
            Stopped: Nothing more may be sent.
        """
        is_new = not used  # nothing has been paid for this request yet
        failed: Counter[str] = Counter()
        async with self.slots:
            for attempt in range(self.config.retries + 1):
                if attempt:  # the slot is kept during the pause, which slows all requests down when servers fail
                    await self._pause(backoff(attempt), self.stopped)
                server = least_busy(self.service.servers, failed)  # preferably another one than before
                try:
                    done = await self._attempt(server, build, self.draining if is_new and not attempt else self.stopped)
                    used.append(done)
                    if done.declined is not None:
                        raise Refused(server.url, done.declined)
                    return done
                except TransientError as error:
                    last = error
                    failed[server.url] += 1
        attempts = "one attempt" if not self.config.retries else f"{self.config.retries + 1} attempts"
        if isinstance(last, UnusableError):
            raise Refused(server.url, f"no usable answer after {attempts}: {last}", may_be_outage=True)
        raise ModelError(
            f"backend 'openai': no usable answer after {attempts}; the last failure: {last}. Check the server, or "
            "raise 'retries' or 'timeout', and rerun the same command"
        )

    async def _attempt(self, server: Server, build: BuildCall, until: asyncio.Event) -> Completion:
        service = self.service
        if server.remaining_wait() > MAX_WAIT:
            raise ModelError(
                f"backend 'openai': {server.url} requests a pause of {server.remaining_wait() / 3600:.1f} hours; rerun "
                "the same command after it"
            )
        server.in_flight += 1
        server.sent += 1
        try:
            body = build().body
            estimate = estimate_prompt(body) + answer_tokens(body)
            wait = max(service.requests.take(1), service.tokens.take(estimate))
            await self._pause(max(wait, server.remaining_wait()), until)
            while True:  # ends, since each refused setting is left out from then on
                call = build()
                if (done := await self._send(server, call)) is not None:
                    break
            # Replace the estimate by the actual usage.
            service.tokens.take(done.prompt_tokens + done.generated_tokens - estimate)
            service.budget.spend(done.prompt_tokens, done.generated_tokens, estimate_prompt(call.body))
        finally:
            server.in_flight -= 1
        self.has_answered = self.has_answered or done.declined is None
        if service.budget.reached():
            self.draining.set()
        return replace(done, dropped=call.dropped)

    async def _pause(self, seconds: float, until: asyncio.Event) -> None:
        """Wait, unless the event is set first."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await until.wait()
        if until.is_set():
            raise Stopped

    async def _send(self, server: Server, call: Call) -> Completion | None:
        """Send one request; return None if the server refused a setting that can be left out."""
        url = server.url + call.path
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await self.client.post(url, content=json.dumps(call.body))
        except TimeoutError:
            raise TransientError(f"{url} did not answer within {self.config.timeout:g} s") from None
        except httpx2.RequestError as error:  # no response: the connection failed or was closed
            server.mark_lost()
            reason = self.service.hide_key(f"{type(error).__name__} {error}").strip()
            raise TransientError(f"{url}: {reason}") from None
        server.failures = 0  # any response shows that the server is alive
        if response.status_code != 200:
            await self._handle_error(server, url, response, call.body)
            return None
        text = response.text
        if len(self.service.key) >= MIN_KEY_LENGTH:
            text = self.service.hide_key(text)
        try:
            data = json.loads(text)
            inner = find_error(data)
            if inner is None:
                return call.read(data, call.body)
        except (LookupError, TypeError, ValueError, AttributeError) as fault:
            start = self.service.hide_key(text)[:200]
            reason = self.service.hide_key(f"something other than a completion ({fault})")
            raise UnusableError(f"{url} answered with {reason}: {start!r}") from None
        await self._handle_inner_error(server, url, *inner, call.body)
        return None

    async def _handle_error(self, server: Server, url: str, response: httpx2.Response, body: dict[str, Any]) -> None:
        """Raise the error of a response, or learn which setting the server refuses."""
        message = self.service.hide_key(_error_message(response))
        status = response.status_code
        if status in TRANSIENT_STATUSES:
            server.rest(read_retry_after(response.headers.get("Retry-After")))
        # Some servers refuse log-probabilities with another status, e.g. 500.
        elif (status in (400, 422) or "logprobs" in message) and self.service.dialect.learn(body, message):
            return
        elif status >= 500:
            server.rest(read_retry_after(response.headers.get("Retry-After")))
        elif status in REQUEST_STATUSES:
            await self._refuse(server, f"{url} answered {status}", message, body)
        else:
            raise ModelError(f"backend 'openai': {url} answered {status}: {message}; {self.service.advise(status)}")
        raise TransientError(f"{url} answered {status}: {message}")

    async def _handle_inner_error(
        self, server: Server, url: str, status: int, message: str, body: dict[str, Any]
    ) -> None:
        """Raise an error that is inside a response with status 200, or learn which setting the server refuses.

        It comes from a server behind the one that answers, and may concern one request whatever its status is.
        """
        message = self.service.hide_key(message)[:MAX_MESSAGE_LENGTH]
        where = f"{url} answered 200 with an error inside ({status})"
        if status in TRANSIENT_STATUSES or status >= 500:
            raise UnusableError(f"{where}: {message}")
        if not self.service.dialect.learn(body, message):
            await self._refuse(server, where, message, body)

    async def _refuse(self, server: Server, where: str, message: str, body: dict[str, Any]) -> NoReturn:
        """Raise a refusal of one request."""
        listed = None if states_limit(message) else await self._list_context(server)
        raise Refused(where, message, read_overlong(message, body, listed))

    async def find_method(self) -> Method | None:
        """Return how all servers return the probabilities of chosen tokens; None if they do not.

        Each server is asked once for the description of its API. Servers that cannot be reached are left out.
        """
        async with self.listing:
            for server in self.service.servers:
                if server.methods is None and server.url not in self.probed:
                    self.probed.add(server.url)
                    server.methods = await self._read_methods(server)
        known = [server.methods for server in self.service.servers if server.methods is not None]
        common = frozenset[Method].intersection(*known) if known else frozenset()
        return next((m for m in METHODS if m in common and m not in self.service.dialect.refused), None)

    async def _read_methods(self, server: Server) -> frozenset[Method] | None:
        """Return what a server offers according to its description; None if it cannot be asked now."""
        with suppress(TimeoutError, httpx2.RequestError):
            async with asyncio.timeout(min(self.config.timeout, MAX_PROBE_SECONDS)):
                response = await self.client.get(f"{server.root}/openapi.json")
            if response.status_code >= 500 or response.status_code in TRANSIENT_STATUSES:
                return None
            with suppress(ValueError):
                return read_methods(response.json(), self.service.dialect.path)
            return frozenset()
        return None

    async def tokenize(self, body: dict[str, Any]) -> list[int] | None:
        """Return the token ids of a text or of messages; None if no server can tell. Nothing is paid for this."""
        failed: Counter[str] = Counter()
        for attempt in range(self.config.retries + 1):
            if attempt:
                await self._pause(backoff(attempt), self.stopped)
            server = least_busy(self.service.servers, failed)
            with suppress(TimeoutError, httpx2.RequestError):
                async with asyncio.timeout(self.config.timeout):
                    response = await self.client.post(f"{server.root}/tokenize", content=json.dumps(body))
                if response.status_code == 200:
                    with suppress(LookupError, TypeError, ValueError):
                        return read_token_ids(response.json())
                if response.status_code < 500 and response.status_code not in TRANSIENT_STATUSES:
                    return None
            failed[server.url] += 1
        return None

    async def _list_context(self, server: Server) -> int | None:
        """Return the length of the model's context, if the server lists it. The server is asked once."""
        async with self.listing:
            if not server.listed:
                server.listed = True
                with suppress(TimeoutError, httpx2.RequestError, ValueError):
                    async with asyncio.timeout(self.config.timeout):
                        response = await self.client.get(f"{server.url}/models")
                    server.context_tokens = read_context(response.json(), self.config.model)
            return server.context_tokens


def _error_message(response: httpx2.Response) -> str:
    """Return the server's error message on one line."""
    try:
        data: Any = response.json()
    except ValueError:
        data = response.text
    # OpenAI nests `message` in `error`; FastAPI has `detail`.
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and name in data:
            data = data[name]
    text = data if isinstance(data, str) else json.dumps(data)
    return " ".join(text.split())[:MAX_MESSAGE_LENGTH] or response.reason_phrase
