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

from rlaif_plugins.backends.openai import OpenAIConfig

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


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request may take, set aside before it is sent."""

    tokens: int
    cost: float


class Budget:
    """What has been used since the start, what is set aside for requests on their way, and whether there is more."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.limited = config.max_tokens_budget is not None or config.max_cost is not None
        self.tokens = 0
        self.cost = 0.0
        self.holds = 0
        self.held_tokens = 0
        self.held_cost = 0.0
        self.prompts = self.estimates = 0
        """Tokens of prompts as the servers counted them, and as they were estimated."""

    def price(self, prompt_tokens: int, generated_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.config.price_in + generated_tokens * self.config.price_out) / 1e6

    def foresee(self, prompt_tokens: int, generated_tokens: int) -> Hold:
        """What a request may take, its estimated prompt put right by what servers counted so far."""
        prompt = math.ceil(prompt_tokens * self.prompts / self.estimates) if self.estimates else prompt_tokens
        return Hold(prompt + generated_tokens, self.price(prompt, generated_tokens))

    def take(self, hold: Hold) -> bool:
        """Set something aside; False if the budget might not hold it.

        Until servers have counted anything, an estimate means little, and one request at a time is let through.
        """
        if self.limited and ((self.holds and not self.estimates) or self.missing_field(hold)):
            return False
        self.holds += 1
        self.held_tokens += hold.tokens
        self.held_cost += hold.cost
        return True

    def give_back(self, hold: Hold) -> None:
        """End what `take` set aside: the request is answered, and what it took is spent; or it never will be."""
        self.holds -= 1
        self.held_tokens -= hold.tokens
        self.held_cost = self.held_cost - hold.cost if self.holds else 0.0  # exactly 0: rounding must not add up

    def spend(self, prompt_tokens: int, generated_tokens: int, estimate: int) -> None:
        """Count an answer to a prompt of so many tokens by estimate."""
        self.tokens += prompt_tokens + generated_tokens
        self.cost += self.price(prompt_tokens, generated_tokens)
        self.prompts += prompt_tokens
        self.estimates += estimate

    def reached(self) -> str | None:
        """The limit that is reached, in words with its setting's name; None if there is something left."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        if tokens is not None and self.tokens >= tokens:
            over = f", {self.tokens - tokens:,} more than that" if self.tokens > tokens else ""
            return f"max_tokens_budget of {tokens:,} tokens ({self.tokens:,} used{over})"
        if cost is not None and self.cost >= cost:
            over = f", ${self.cost - cost:.4g} more than that" if self.cost > cost else ""
            return f"max_cost of ${cost:g} (${self.cost:.4g} spent{over})"
        return None

    @property
    def passed(self) -> bool:
        """Whether more was used than a limit allows."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        return (tokens is not None and self.tokens > tokens) or (cost is not None and self.cost > cost)

    def missing_field(self, hold: Hold) -> str | None:
        """The limit that might be passed if a request were sent now, in words; None if it would not."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        if tokens is not None and self.tokens + self.held_tokens + hold.tokens > tokens:
            return f"max_tokens_budget of {tokens:,} tokens ({self.tokens:,} used; the next may take {hold.tokens:,})"
        if cost is not None and self.cost + self.held_cost + hold.cost > cost:
            return f"max_cost of ${cost:g} (${self.cost:.4g} spent; the next request may take ${hold.cost:.4g})"
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
    context_tokens: int | None = None
    """Length of its model's context, as it lists it."""
    listed: bool = False
    """Whether it was asked for its list of models."""

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
