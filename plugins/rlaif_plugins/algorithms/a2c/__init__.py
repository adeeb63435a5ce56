"""Advantage actor-critic, the algorithm of the paper's first version (RLAIF v1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlaif_framework import Component, hookimpl
from rlaif_framework.rl import GaeConfig


class A2cConfig(GaeConfig):
    """Advantage actor-critic (Mnih et al. 2016), one update for each batch of responses (RLAIF v1)."""

    kind: Literal["a2c"] = "a2c"
    objective: Literal["weighted", "penalised"] = "penalised"
    """r - beta KL, as in the paper's first version, or (1 - beta) r - beta KL."""


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `a2c`."""
    yield Component("a2c", A2cConfig, "rlaif_plugins.algorithms.a2c.algorithm:A2c")
