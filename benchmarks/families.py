"""Coverage of the intervals of a family of runs, for simulated policies, prompts and seeds.

A response wins with a probability whose logit is the sum of a mean, an effect of its prompt, an effect of its seed, and
an effect of both. Two true values are known: the win rate of the trained policies on all prompts, and the mean win rate
of policies that are trained with other seeds, on the prompts of the test set.

python benchmarks/families.py [--families 500] [--prompts 150] [--seeds 3]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rlaif_framework.metrics import Estimate
from rlaif_framework.metrics.estimates import estimate_clustered_rate
from rlaif_framework.metrics.seeds import Measured, average_seeds

Values = NDArray[np.float64]
POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
"""Nodes and weights that integrate over a standard normal distribution."""


@dataclass(frozen=True)
class World:
    """How win rates vary, in standard deviations of the logit."""

    mean: float
    prompt: float
    """Between prompts."""
    seed: float
    """Between seeds."""
    both: float
    """Between the prompts of a seed, beyond that."""


WORLDS = {
    "prompts alike, seeds alike": World(0.4, 0.0, 0.0, 0.0),
    "prompts differ": World(0.4, 1.5, 0.0, 0.0),
    "seeds differ": World(0.4, 0.0, 0.5, 0.0),
    "both differ": World(0.4, 1.0, 0.3, 0.5),
    "both differ, high win rate": World(1.5, 1.0, 0.3, 0.5),
}


@dataclass
class Covered:
    """For each family, whether an interval includes the true value."""

    prompts: list[bool]
    """Other prompts, as the report has it."""
    pooled: list[bool]
    """Other prompts, if all responses were independent."""
    seeds: list[bool]
    """Other seeds, as the report has it."""


def integrate(logits: Values, deviation: float) -> Values:
    """Return the mean win probability over a normal effect that is added to logits of any shape."""
    mean: Values = expit(logits[..., None] + deviation * POINTS) @ WEIGHTS / WEIGHTS.sum()
    return mean


def simulate(world: World, families: int, prompts: int, seeds: int, random: np.random.Generator) -> Covered:
    """Draw families and compute their intervals."""
    covered = Covered([], [], [])
    names = [str(i) for i in range(prompts)]
    for _ in range(families):
        by_prompt = world.mean + world.prompt * random.standard_normal(prompts)
        by_seed = world.seed * random.standard_normal(seeds)
        logits = by_prompt + by_seed[:, None] + world.both * random.standard_normal((seeds, prompts))
        wins = (random.random((seeds, prompts)) < expit(logits)).astype(float)
        found = average_seeds({s: Measured(float(w.mean()), names, w.tolist()) for s, w in enumerate(wins)}, True)
        pooled = estimate_clustered_rate(wins.ravel().tolist(), range(wins.size))
        on_all_prompts = float(integrate(world.mean + by_seed, float(np.hypot(world.prompt, world.both))).mean())
        of_all_seeds = float(integrate(by_prompt, float(np.hypot(world.seed, world.both))).mean())
        covered.prompts.append(includes(found.over_prompts, on_all_prompts))
        covered.pooled.append(includes(pooled, on_all_prompts))
        covered.seeds.append(includes(found.over_seeds, of_all_seeds))
    return covered


def includes(interval: Estimate | None, value: float) -> bool:
    """Return True if an interval includes a value; one that cannot be computed does not."""
    return interval is not None and interval.low <= value <= interval.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=500, help="families of each kind")
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start, random = time.monotonic(), np.random.default_rng(arguments.seed)
    print(f"{arguments.families} families of each kind, {arguments.prompts} prompts, {arguments.seeds} seeds;")
    print(f"coverage of the 95 % intervals:\n\n{'':28}{'other prompts':>16}{'the same, pooled':>20}{'other seeds':>16}")
    rows = []
    for name, world in WORLDS.items():
        found = simulate(world, arguments.families, arguments.prompts, arguments.seeds, random)
        rows.append([100 * float(np.mean(x)) for x in (found.prompts, found.pooled, found.seeds)])
        print_row(name, rows[-1])
    print_row("all", np.mean(rows, axis=0).tolist())
    print(f"\n{time.monotonic() - start:.0f} s")


def print_row(name: str, shares: list[float]) -> None:
    """Print the coverage of three intervals in percent."""
    print(f"{name:28}" + "".join(f"{share:{width}.1f} %" for share, width in zip(shares, (14, 18, 14), strict=True)))


if __name__ == "__main__":
    main()
