"""How fast, how much and where: rate limits, the budget, and which server is asked next."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from rlaif_plugins.openai_backend import OpenAIConfig

LONGEST_BACKOFF = 60.0


class TokenBucket:
    """A rate limit with one second's worth of burst. What is taken before it is there has to be waited for."""

    def __init__(self, per_minute: float | None) -> None:
        self.rate = math.inf if per_minute is None else per_minute / 60
        self.capacity = max(1.0, self.rate)
        self.level = self.capacity
        self.filled = time.monotonic()

    def take(self, amount: float) -> float:
        """Take an amount (less than 0: give some back) and return the seconds to wait before using it."""
        if self.rate == math.inf:
            return 0.0
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate) - amount
        self.filled = now
        return max(0.0, -self.level / self.rate)


class Budget:
    """What has been used since the start, and whether that is enough."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.tokens = 0
        self.cost = 0.0

    def price(self, prompt_tokens: int, generated_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.config.price_in + generated_tokens * self.config.price_out) / 1e6

    def spend(self, prompt_tokens: int, generated_tokens: int) -> None:
        """Count an answer."""
        self.tokens += prompt_tokens + generated_tokens
        self.cost += self.price(prompt_tokens, generated_tokens)

    def reached(self) -> str | None:
        """The limit that is reached, in words with its setting's name; None if there is something left."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        if tokens is not None and self.tokens >= tokens:
            return f"max_tokens_budget of {tokens:,} tokens ({self.tokens:,} used)"
        if cost is not None and self.cost >= cost:
            return f"max_cost of ${cost:g} (${self.cost:.4g} spent)"
        return None


@dataclass
class Server:
    """One base URL: how busy it is, and until when it is left alone."""

    url: str
    in_flight: int = 0
    sent: int = 0
    failures: int = 0
    """Times it was lost since its last answer."""
    rests_until: float = 0.0

    def rest(self, seconds: float) -> None:
        """Leave it alone for a while; a little longer than asked for, so that not all come back at once."""
        self.rests_until = max(self.rests_until, time.monotonic() + seconds * random.uniform(1.0, 1.1))

    def left(self) -> float:
        """Seconds it still rests."""
        return max(0.0, self.rests_until - time.monotonic())

    def lost(self) -> None:
        """Rest after a lost connection, longer each time, so that a dead server does not draw all requests."""
        if not self.left():  # else others in flight were lost with the same failure
            self.rest(backoff(self.failures))
            self.failures += 1


def least_busy(servers: Iterable[Server], failed: Counter[str]) -> Server:
    """The server to ask next: one that did not fail this request before, does not rest, and is the least busy.

    Args:
        servers: To choose from.
        failed: How often each URL failed the request that is to be sent.
    """
    return min(servers, key=lambda server: (failed[server.url], server.left(), server.in_flight, server.sent))


def backoff(attempt: int) -> float:
    """Seconds before the attempt of this number, from 0, to repeat something: doubling, with jitter."""
    return min(LONGEST_BACKOFF, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)


def read_retry_after(value: str | None) -> float:
    """Seconds a Retry-After header asks to wait, given as a number or as a date; 0 if it says nothing readable."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
