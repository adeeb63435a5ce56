"""Rate limits, waiting times, and the choice of a server."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from rlaif_plugins.backends.openai.label_tokens import Method

MAX_RETRY_AFTER = 1e7
"""Maximum number of seconds that a server may ask to wait: about four months."""
MAX_BACKOFF = 60.0
"""Maximum number of seconds between two attempts."""


class TokenBucket:
    """A rate limit that allows bursts of one second. Amounts that are not available yet require a wait."""

    def __init__(self, per_minute: float | None) -> None:
        self.rate = math.inf if per_minute is None else per_minute / 60
        self.capacity = max(1.0, self.rate)  # at least one request, even if less than one per second is allowed
        self.level = self.capacity
        """Available amount; below 0 if amounts were taken in advance."""
        self.filled = time.monotonic()

    def take(self, amount: float) -> float:
        """Take an amount, and return the seconds to wait before it may be used. Negative amounts are given back."""
        if self.rate == math.inf:
            return 0.0
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate) - amount
        self.filled = now
        return max(0.0, -self.level / self.rate)


@dataclass
class Server:
    """The state of one base URL."""

    url: str
    in_flight: int = 0
    sent: int = 0
    """Number of requests sent so far."""
    failures: int = 0
    """Number of lost connections since the last answer."""
    rests_until: float = 0.0
    """Time until which no request is sent, on the monotonic clock."""
    context_tokens: int | None = None
    """Length of the model's context, if the server lists it."""
    listed: bool = False
    """True if the server has been asked for its list of models."""
    methods: frozenset[Method] | None = None
    """How it returns the probabilities of chosen tokens; None until it has described its API."""
    accepted: set[tuple[Any, ...]] = field(default_factory=set)
    """Shapes of the requests that it has answered. If it refuses another one, the content of that one is the reason."""

    @property
    def root(self) -> str:
        """The URL of paths that are not part of OpenAI's API."""
        return self.url.removesuffix("/v1")

    def rest(self, seconds: float) -> None:
        """Send no requests for some time, with jitter so that requests do not all resume at once."""
        self.rests_until = max(self.rests_until, time.monotonic() + seconds * random.uniform(1.0, 1.1))

    def remaining_wait(self) -> float:
        """Return the seconds until requests may be sent again."""
        return max(0.0, self.rests_until - time.monotonic())

    def mark_lost(self) -> None:
        """Rest after a lost connection, longer each time, so that a dead server does not attract all requests."""
        if not self.remaining_wait():  # otherwise, this failure was already counted for another request in flight
            self.rest(backoff(self.failures))
            self.failures += 1


def least_busy(servers: Iterable[Server], failed: Counter[str]) -> Server:
    """Return the server for the next request: one that has not failed it before, is not resting, and is least busy.

    Args:
        servers: The servers to choose from.
        failed: Number of failures of the request, by URL.
    """
    return min(servers, key=lambda server: (failed[server.url], server.remaining_wait(), server.in_flight, server.sent))


def backoff(attempt: int) -> float:
    """Return the seconds to wait before an attempt, counted from 0: exponential backoff with jitter."""
    # Not seeded: waiting times do not affect results.
    return min(MAX_BACKOFF, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)


def read_retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks to wait, as a number or as a date; 0 if it cannot be parsed."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):  # no date, or one that is none
            return 0.0
    # float() also parses "inf" and "nan".
    return min(max(0.0, seconds), MAX_RETRY_AFTER) if math.isfinite(seconds) else 0.0
