"""The budget of tokens and dollars: usage so far, reservations for requests in flight, and limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlaif_plugins.backends.openai import OpenAIConfig


@dataclass(frozen=True, slots=True)
class Reservation:
    """The estimated usage of a request, reserved before it is sent."""

    tokens: int
    cost: float


class Budget:
    """Usage since the start of the process, and usage reserved for requests in flight."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.is_limited = config.max_tokens_budget is not None or config.max_cost is not None
        self.tokens = 0
        self.cost = 0.0
        self.reservations = 0
        """Number of requests in flight."""
        self.reserved_tokens = 0
        self.reserved_cost = 0.0
        self.prompt_tokens = self.estimated_prompt_tokens = 0
        """Tokens of all prompts, as counted by the servers and as estimated."""

    def price(self, prompt_tokens: int, generated_tokens: int) -> float:
        """Return the price in US dollars."""
        return (prompt_tokens * self.config.price_in + generated_tokens * self.config.price_out) / 1e6

    def estimate(self, prompt_tokens: int, generated_tokens: int) -> Reservation:
        """Estimate the usage of a request, with the prompt's estimate corrected by the servers' counts so far."""
        prompt = prompt_tokens
        # The ratio of counted to estimated tokens depends on the tokenizer, which is not known here.
        if self.estimated_prompt_tokens:
            prompt = math.ceil(prompt_tokens * self.prompt_tokens / self.estimated_prompt_tokens)
        return Reservation(prompt + generated_tokens, self.price(prompt, generated_tokens))

    def reserve(self, reservation: Reservation) -> bool:
        """Reserve usage; return False if the budget might be exceeded.

        Estimates are unreliable until a server has counted a prompt. Until then, only one request is sent at a time.
        """
        if self.is_limited:
            is_unreliable = self.reservations and not self.estimated_prompt_tokens
            if is_unreliable or self.exceeded_by(reservation):
                return False
        self.reservations += 1
        self.reserved_tokens += reservation.tokens
        self.reserved_cost += reservation.cost
        return True

    def release(self, reservation: Reservation) -> None:
        """Release the reservation of a request that was answered, after its usage was counted, or that failed."""
        self.reservations -= 1
        self.reserved_tokens -= reservation.tokens
        # Exactly 0 without reservations, so that rounding errors do not accumulate.
        self.reserved_cost = self.reserved_cost - reservation.cost if self.reservations else 0.0

    def spend(self, prompt_tokens: int, generated_tokens: int, estimated_prompt_tokens: int) -> None:
        """Count the usage of an answer."""
        self.tokens += prompt_tokens + generated_tokens
        self.cost += self.price(prompt_tokens, generated_tokens)
        self.prompt_tokens += prompt_tokens
        self.estimated_prompt_tokens += estimated_prompt_tokens

    def reached(self) -> str | None:
        """Describe the limit that is reached, with the name of its setting; None if there is none."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        if tokens is not None and self.tokens >= tokens:
            over = f", {self.tokens - tokens:,} more than that" if self.tokens > tokens else ""
            return f"max_tokens_budget of {tokens:,} tokens ({self.tokens:,} used{over})"
        if cost is not None and self.cost >= cost:
            over = f", ${self.cost - cost:.4g} more than that" if self.cost > cost else ""
            return f"max_cost of ${cost:g} (${self.cost:.4g} spent{over})"
        return None

    @property
    def is_exceeded(self) -> bool:
        """True if more has been used than a limit allows."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        return (tokens is not None and self.tokens > tokens) or (cost is not None and self.cost > cost)

    def exceeded_by(self, reservation: Reservation) -> str | None:
        """Describe the limit that a request might exceed if it were sent now; None if there is none."""
        tokens, cost = self.config.max_tokens_budget, self.config.max_cost
        if tokens is not None and self.tokens + self.reserved_tokens + reservation.tokens > tokens:
            return (
                f"max_tokens_budget of {tokens:,} tokens ({self.tokens:,} used; the next may take "
                f"{reservation.tokens:,})"
            )
        if cost is not None and self.cost + self.reserved_cost + reservation.cost > cost:
            return f"max_cost of ${cost:g} (${self.cost:.4g} spent; the next request may take ${reservation.cost:.4g})"
        return None
