"""The algorithm `acme/group-rank`: a policy gradient that only looks at the order of the rewards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator
from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import PolicyGradientConfig


class GroupRankConfig(PolicyGradientConfig):
    """Policy gradient whose advantage is the rank of a response among those to its prompt."""

    kind: Literal["acme/group-rank"] = "acme/group-rank"
    responses_per_prompt: int = Field(4, ge=1)
    """Responses sampled to each prompt, which are ranked."""
    top: float = Field(1.0, gt=0)
    """Advantage of the best response to a prompt; the worst one has minus this."""

    @model_validator(mode="after")
    def _check_responses(self) -> Self:
        if self.responses_per_prompt < 2:
            raise ValueError("responses_per_prompt: one response has no rank; use at least 2")
        return self


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `acme/group-rank`."""
    # The class needs torch. Its module is imported on first use, so that commands which read specs stay fast.
    yield Component("acme/group-rank", GroupRankConfig, "rlaif_acme.group_rank:GroupRank")
