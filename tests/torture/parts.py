"""The parts of the torture, with the number of their cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torture.disks import fill_disks
from torture.kills import kill_runs
from torture.mutations import mutate_data, mutate_specs
from torture.servers import fail_at_random
from torture.twice import run_twice


@dataclass(frozen=True)
class Part:
    """One kind of fault."""

    run: Callable[[int, int, Path], str]
    """Takes the number of cases, the seed and an empty folder; returns one line of counts."""
    cases: int
    """Number of cases of `make torture`."""
    few: int
    """Number of cases among the other tests."""


PARTS = {
    "kills": Part(kill_runs, 90, 2),
    "servers": Part(fail_at_random, 100, 3),
    "specs": Part(mutate_specs, 1000, 60),
    "data": Part(mutate_data, 1000, 100),
    "twice": Part(run_twice, 20, 1),
    "disks": Part(fill_disks, 30, 1),
}
