"""Compare the arms of a run at equal KL from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif_framework.metrics.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The evaluation of a policy during training, on validation prompts."""

    step: int
    kl: Estimate | None
    """KL of a response from the initial policy in nats."""
    reward: Estimate | None
    """Mean of the arm's reward."""
    win_rate: Estimate | None
    """Win rate against the initial policy by the judge of the checkpoint selection."""
    judge: str | None
    """Kind of this judge."""


@dataclass(frozen=True, slots=True)
class EqualKl:
    """Win rates of several arms where each has the same KL from the initial policy."""

    kl: float
    """The largest KL that all arms reach, in nats."""
    judge: str
    """Kind of the judge."""
    win_rates: dict[str, Estimate]
    """Win rate of each arm against the initial policy, on the validation prompts."""


def compare_at_equal_kl(arms: Mapping[str, Sequence[Checkpoint]]) -> EqualKl | None:
    """Interpolate the win rates of arms at the largest KL that all of them reach.

    Between two checkpoints, the win rate and its interval are linear in the KL. The initial policy has a KL of 0 and a
    win rate of one half. Where the KL falls again, the first checkpoint that reaches it counts.

    Args:
        arms: The checkpoints of each arm in the order of steps.

    Returns:
        None if fewer than two arms have win rates by the same judge, or if an arm does not leave the initial policy.
    """
    paths = {name: [c for c in checkpoints if c.kl and c.win_rate] for name, checkpoints in arms.items()}
    paths = {name: path for name, path in paths.items() if path}
    judges = {c.judge for path in paths.values() for c in path}
    if len(paths) < 2 or len(judges) > 1:
        return None
    kl = min(max(c.kl.value for c in path if c.kl) for path in paths.values())
    if kl <= 0:
        return None
    return EqualKl(kl, str(judges.pop()), {name: _interpolate(path, kl) for name, path in paths.items()})


def _interpolate(path: Sequence[Checkpoint], kl: float) -> Estimate:
    """Return the win rate where a path of checkpoints first has a KL."""
    before, at = Estimate(0.5, 0.5, 0.5, 0), 0.0
    for checkpoint in path:
        if checkpoint.kl is None or checkpoint.win_rate is None:
            continue
        after, there = checkpoint.win_rate, checkpoint.kl.value
        if there >= kl:
            # Both are at or below `kl` before, so the distance is positive.
            part = (kl - at) / (there - at)
            bounds = zip(_bounds(before), _bounds(after), strict=True)
            value, low, high = ((1 - part) * a + part * b for a, b in bounds)
            return Estimate(value, low, high, after.count, after.clusters)
        before, at = after, there
    raise ValueError(f"no checkpoint has a KL of {kl}")


def _bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
