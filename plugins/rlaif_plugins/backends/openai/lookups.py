"""Look up what servers tell about themselves: their API, the tokens of texts, the length of the model's context."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from rlaif_plugins.backends.openai.classification import OVERLOAD_STATUSES
from rlaif_plugins.backends.openai.label_tokens import METHODS, Method, read_methods, read_token_ids
from rlaif_plugins.backends.openai.lengths import read_context
from rlaif_plugins.backends.openai.limits import Server, least_busy
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.backends.openai.transport import ConnectionFault, Response, Transport

MAX_PROBE_SECONDS = 10.0
"""Maximum number of seconds to wait for a server's description of its API."""


class Lookups:
    """The look-ups of one call of the backend. Nothing is paid for them, and a failure is no error."""

    def __init__(self, service: Service, transport: Transport, back_off: Callable[[int], Awaitable[None]]) -> None:
        self.service = service
        self.config = service.config
        self.transport = transport
        self.back_off = back_off
        """Waits before an attempt, counted from 0."""
        self.asking = asyncio.Lock()
        """Held while a server is asked for its models or its API, so that each is asked once."""
        self.probed: set[str] = set()
        """URLs of the servers that have been asked for the description of their API in this call."""

    async def find_method(self) -> Method | None:
        """Return how all servers return the probabilities of chosen tokens; None if they do not.

        Each server is asked once for the description of its API. Servers that cannot be reached are left out.
        """
        async with self.asking:
            for server in self.service.servers:
                if server.methods is None and server.url not in self.probed:
                    self.probed.add(server.url)
                    server.methods = await self._read_methods(server)
        known = [server.methods for server in self.service.servers if server.methods is not None]
        common = frozenset[Method].intersection(*known) if known else frozenset()
        dialect = self.service.dialect
        refused = dialect.unusable | dialect.settings.dropped
        return next((m for m in METHODS if m in common and m not in refused), None)

    async def _read_methods(self, server: Server) -> frozenset[Method] | None:
        """Return what a server offers according to its description; None if it cannot be asked now."""
        try:
            url = f"{server.root}/openapi.json"
            response = await self.transport.get(url, min(self.config.timeout, MAX_PROBE_SECONDS))
        except ConnectionFault:
            return None
        return None if _may_pass(response) else read_methods(response.data, self.service.dialect.path)

    async def tokenize(self, body: dict[str, Any]) -> list[int] | None:
        """Return the token ids of a text or of messages; None if no server can tell."""
        failed: Counter[str] = Counter()
        for attempt in range(self.config.retries + 1):
            if attempt:
                await self.back_off(attempt)
            server = least_busy(self.service.servers, failed)
            failed[server.url] += 1
            try:
                response = await self.transport.post(f"{server.root}/tokenize", body, self.config.timeout)
            except ConnectionFault:
                continue
            if response.is_success:
                try:
                    return read_token_ids(response.data)
                except (LookupError, TypeError, ValueError):
                    continue
            if not _may_pass(response):
                return None
        return None

    async def list_context(self, server: Server) -> int | None:
        """Return the length of the model's context, if the server lists it. The server is asked once."""
        async with self.asking:
            if not server.listed:
                server.listed = True
                try:
                    response = await self.transport.get(f"{server.url}/models", self.config.timeout)
                except ConnectionFault:
                    return None
                server.context_tokens = read_context(response.data, self.config.model)
            return server.context_tokens


def _may_pass(response: Response) -> bool:
    return response.status >= 500 or response.status in OVERLOAD_STATUSES
