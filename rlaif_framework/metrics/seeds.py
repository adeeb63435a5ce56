"""Means over runs that differ by their seed, and differences between variants of these runs.

Two things could have turned out differently: the prompts, and the seeds, each of which trains a policy of its own. The
responses of all seeds to a prompt are not independent, so they are no larger sample of prompts, and all prompts of a
seed are answered by one policy, so they are no larger sample of seeds. There is an interval for each of the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from statistics import fmean

from scipy import stats

from rlaif_framework.metrics.agreement import estimate_by_prompt
from rlaif_framework.metrics.estimates import (
    Estimate,
    RateAt,
    estimate_mean,
    estimate_mean_rate,
    estimate_rate_difference,
    fit_rate_at,
)

MIN_SEEDS = 3
"""Minimum number of seeds for an interval over seeds: two differ by chance too often to tell how far."""


@dataclass(frozen=True)
class Measured:
    """A number that was measured in one run, and the values of which it is the mean."""

    value: float
    prompts: Sequence[str] = ()
    """The prompt of each value; empty if the number is no mean over prompts, such as a KL divergence in training."""
    values: Sequence[float] = ()
    ratios: Sequence[float] = ()
    """For a length-adjusted win rate: the ratio of the lengths of the two responses of each value."""

    @property
    def is_adjusted(self) -> bool:
        """True for a length-adjusted win rate, which is no mean of its values."""
        return bool(self.ratios)

    def by_prompt(self) -> dict[str, float]:
        """Return the mean value of each prompt."""
        found: dict[str, list[float]] = {}
        for prompt, value in zip(self.prompts, self.values, strict=True):
            found.setdefault(prompt, []).append(value)
        return {prompt: fmean(values) for prompt, values in found.items()}


@dataclass(frozen=True)
class Measure:
    """One of the main numbers of a run."""

    name: str
    """As in the results that trackers get, such as `win_rate/rlaif-vs-sft`."""
    title: str
    is_rate: bool
    """True if it is between 0 and 1."""
    measured: Measured


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """A variant compared with another one: the mean difference, paired by seed, and within a seed by prompt."""

    value: float
    seeds: dict[int, float]
    """The difference of each seed that both variants have."""
    over_prompts: Estimate | None
    """The mean difference, with its interval for other prompts and these trained policies; None if it cannot be
    computed."""
    over_seeds: Estimate | None
    """The mean difference, with its interval for other seeds on these prompts; None if it cannot be computed."""
    p: float | None
    """P-value of the paired t-test over seeds; None if there is no interval over seeds."""


@dataclass(frozen=True, slots=True)
class SeedMean:
    """The mean over seeds of one number of a variant."""

    value: float
    seeds: dict[int, float]
    """The value of each seed."""
    over_prompts: Estimate | None
    """The mean of these trained policies, with its 95 % interval for other prompts: robust to the correlation of all
    values of a prompt, also of different seeds. None if it cannot be computed."""
    over_seeds: Estimate | None
    """The mean, with its 95 % interval for other seeds on these prompts: Student's t over the values of the seeds. None
    with fewer than three seeds, or if all have the same value."""
    missing: list[str] = field(default_factory=list)
    """Why an interval is missing."""


def average_seeds(measured: Mapping[int, Measured], is_rate: bool) -> SeedMean:
    """Average a number of one variant over its seeds.

    Args:
        measured: What was measured with each seed, of which there must be one or more.
        is_rate: True if the values are between 0 and 1, and so are the intervals.
    """
    seeds = {seed: found.value for seed, found in measured.items()}
    prompts = _estimate_over_prompts(list(measured.values()), is_rate)
    over_seeds = _estimate_over_seeds(list(seeds.values()))
    if over_seeds is not None and is_rate:
        low, high = max(0.0, over_seeds.low), min(1.0, over_seeds.high)
        over_seeds = Estimate(over_seeds.value, low, high, over_seeds.count)
    missing = [*_explain_prompts(measured.values(), prompts), *_explain_seeds(list(seeds.values()))]
    return SeedMean(fmean(seeds.values()), seeds, prompts, over_seeds, missing)


def compare_seeds(first: Mapping[int, Measured], second: Mapping[int, Measured]) -> SeedDifference | None:
    """Compare a number of two variants, first minus second; None if they have no seed in common.

    The differences are paired: runs with the same seed start from the same baseline and answer the same prompts.
    """
    shared = [seed for seed in first if seed in second]
    if not shared:
        return None
    seeds = {seed: first[seed].value - second[seed].value for seed in shared}
    over_prompts = _estimate_difference([first[seed] for seed in shared], [second[seed] for seed in shared])
    over_seeds = _estimate_over_seeds(list(seeds.values()))
    p = None if over_seeds is None else float(stats.ttest_1samp(list(seeds.values()), 0.0).pvalue)
    return SeedDifference(fmean(seeds.values()), seeds, over_prompts, over_seeds, p)


def _estimate_over_prompts(measured: Sequence[Measured], is_rate: bool) -> Estimate | None:
    """Estimate the mean of the values of all seeds, robust to correlation within prompts."""
    if len({prompt for found in measured for prompt in found.prompts}) < 2:  # one says nothing about others
        return None
    if any(found.is_adjusted for found in measured):
        rates = _fit_at_equal_lengths(measured)
        return None if rates is None else estimate_mean_rate(rates, _list_prompts(measured))
    prompts, values = _average_values(measured)
    if not is_rate:
        return estimate_mean(values, prompts)
    if max(values) == min(values) and values[0] not in (0, 0.5, 1):  # without variance, its interval has no width
        return None
    return estimate_by_prompt(zip(prompts, values, strict=True))


def _estimate_difference(first: Sequence[Measured], second: Sequence[Measured]) -> Estimate | None:
    """Estimate the mean difference of runs with the same seeds, robust to correlation within prompts."""
    if any(found.is_adjusted for found in [*first, *second]):
        return _estimate_adjusted_difference(first, second)
    prompts: list[str] = []
    differences: list[float] = []
    for a, b in zip(first, second, strict=True):
        own, other = a.by_prompt(), b.by_prompt()
        both = [prompt for prompt in own if prompt in other]
        prompts += both
        differences += [own[prompt] - other[prompt] for prompt in both]
    if len(set(prompts)) < 2 or max(differences) == min(differences):
        return None
    return estimate_mean(differences, prompts)


def _estimate_adjusted_difference(first: Sequence[Measured], second: Sequence[Measured]) -> Estimate | None:
    """Estimate the mean difference of length-adjusted win rates, robust to correlation within prompts."""
    own, other = _fit_at_equal_lengths(first), _fit_at_equal_lengths(second)
    is_same = all(a.values == b.values and a.ratios == b.ratios for a, b in zip(first, second, strict=True))
    if own is None or other is None or is_same:
        return None
    return estimate_rate_difference(own, other, _list_prompts([*first, *second]))


def _fit_at_equal_lengths(measured: Sequence[Measured]) -> list[RateAt] | None:
    """Fit the regression of each length-adjusted win rate; None if one of them cannot be fitted."""
    found = [fit_rate_at(one.values, one.ratios, 1.0) for one in measured]
    fitted = [rate for rate in found if rate is not None]
    return fitted if len(fitted) == len(found) else None


def _list_prompts(measured: Sequence[Measured]) -> list[str]:
    return [prompt for found in measured for prompt in found.prompts]


def _average_values(measured: Sequence[Measured]) -> tuple[list[str], list[float]]:
    """Average the values of a prompt over seeds: the first ones of all seeds, the second ones, and so on.

    Without variance, the correlation of seeds could not be estimated from their single values.
    """
    found: dict[tuple[str, int], list[float]] = {}
    for one in measured:
        seen = Counter[str]()
        for prompt, value in zip(one.prompts, one.values, strict=True):
            seen[prompt] += 1
            found.setdefault((prompt, seen[prompt]), []).append(value)
    return [prompt for prompt, _ in found], [fmean(values) for values in found.values()]


def _estimate_over_seeds(values: Sequence[float]) -> Estimate | None:
    return None if _explain_seeds(values) else estimate_mean(values)


def _explain_seeds(values: Sequence[float]) -> list[str]:
    if len(values) < MIN_SEEDS:
        count = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        return [f"no interval over seeds: it has {count}, and {MIN_SEEDS} or more are needed"]
    is_equal = isclose(max(values), min(values), abs_tol=1e-12)  # but for rounding
    return ["no interval over seeds: all have the same value"] if is_equal else []


def _explain_prompts(measured: Iterable[Measured], found: Estimate | None) -> list[str]:
    if found is not None:
        return []
    measured = list(measured)
    count = len({prompt for one in measured for prompt in one.prompts})
    reason = "all prompts have the same value"
    if count < 2:
        reason = "there is 1 prompt, and 2 or more are needed" if count else "it is not measured on prompts"
    elif any(one.is_adjusted for one in measured):
        reason = "the regression on lengths cannot be fitted"
    return [f"no interval over prompts: {reason}"]
