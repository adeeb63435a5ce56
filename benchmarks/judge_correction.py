"""Coverage, width and power of win rates that are corrected by human labels, for simulated biased judges.

A pair of responses has a quality difference, normally distributed, and people prefer the better response; close ones
are ties. The judge sees the difference with noise, and shifted by its bias. Both have a part that the pairs of a prompt
have in common. A judge states its choice only, or with a probability.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from rlaif_framework.metrics import CorrectedWinRate, Estimate, correct_win_rate, required_labels, required_pairs
from rlaif_framework.metrics.estimates import estimate_clustered_rate

Values = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """An evaluation with a judge and some human labels."""

    win_rate: float
    """By human preference."""
    quality: float
    """Correlation of the differences that the judge and people see."""
    bias: float
    """What the judge adds to each difference, in standard deviations."""
    labels: int
    prompts: int
    responses: int = 1
    """Pairs of each prompt."""
    shared: float = 0.0
    """Share of the variance that the pairs of a prompt have in common."""
    ties: float = 0.0
    """Differences below this are ties."""
    soft: bool = False
    """True if the judge states probabilities, False if only its choices."""

    @property
    def mean(self) -> float:
        """Mean difference that gives the win rate."""
        low, high = -9.0, 9.0
        while high - low > 1e-9:  # by bisection
            middle = (low + high) / 2
            rate = (ndtr(middle - self.ties) + ndtr(middle + self.ties)) / 2
            low, high = (middle, high) if rate < self.win_rate else (low, middle)
        return low

    def draw(self, random: np.random.Generator) -> tuple[Values, Values]:
        """Return the judge's verdicts and the human preferences of all pairs."""
        human = self._draw(random)
        noise = self._draw(random)
        judge = self.quality * human + math.sqrt(1 - self.quality**2) * noise + self.mean + self.bias
        stated = ndtr(2 * judge) if self.soft else self._decide(judge)
        return stated, self._decide(human + self.mean)

    def _draw(self, random: np.random.Generator) -> Values:
        common = np.repeat(random.standard_normal(self.prompts), self.responses)
        own = random.standard_normal(self.prompts * self.responses)
        return math.sqrt(self.shared) * common + math.sqrt(1 - self.shared) * own

    def _decide(self, differences: Values) -> Values:
        return np.where(np.abs(differences) <= self.ties, 0.5, (differences > 0).astype(float))


@dataclass
class Found:
    """What repetitions of a world gave."""

    corrected: list[bool]
    labels: list[bool]
    judge: list[bool]
    """For each interval, whether it includes the true win rate."""
    ratios: list[float]
    """Width of the corrected interval, divided by that of the human labels alone."""
    significant: list[bool]
    """Whether the corrected interval excludes 50 %."""
    agreement: list[float]


def simulate(world: World, repetitions: int, random: np.random.Generator) -> Found:
    """Draw evaluations, and correct each by labels of a random sample of its pairs."""
    found = Found([], [], [], [], [], [])
    prompts = np.repeat(np.arange(world.prompts), world.responses).tolist()
    for _ in range(repetitions):
        judge, human = world.draw(random)
        sample = random.permutation(len(judge))[: world.labels].tolist()
        labels: list[float | None] = [None] * len(judge)
        for i in sample:
            labels[i] = float(human[i])
        result = correct_win_rate(judge.tolist(), labels, prompts)
        alone = estimate_clustered_rate([float(human[i]) for i in sample], [prompts[i] for i in sample])
        raw = estimate_clustered_rate(((np.sign(judge - 0.5) + 1) / 2).tolist(), prompts)
        assert result is not None
        assert alone is not None
        assert raw is not None
        _add(found, world, result, alone, raw)
    return found


def _add(found: Found, world: World, result: CorrectedWinRate, alone: Estimate, raw: Estimate) -> None:
    rate = result.rate
    for intervals, estimate in ((found.corrected, rate), (found.labels, alone), (found.judge, raw)):
        intervals.append(estimate.low <= world.win_rate <= estimate.high)
    found.ratios.append((rate.high - rate.low) / (alone.high - alone.low))
    found.significant.append(not rate.low <= 0.5 <= rate.high)
    if result.agreement is not None:
        found.agreement.append(result.agreement.value)


def share(values: list[bool] | list[float]) -> float:
    """Return a mean in percent."""
    return 100 * float(np.mean(values))


def draw_world(random: np.random.Generator) -> World:
    """Draw an evaluation and a judge with a bias."""
    responses = int(random.choice([1, 2, 4]))
    pairs = int(random.choice([400, 1000]))
    return World(
        win_rate=random.uniform(0.3, 0.7),
        quality=quality_of(random.uniform(0.6, 0.9)),
        bias=random.uniform(-1, 1),
        labels=int(random.choice([50, 100, 200, 400])),
        prompts=pairs // responses,
        responses=responses,
        shared=random.uniform(0, 0.8),
        ties=random.choice([0.0, 0.1, 0.3]),
        soft=random.random() < 0.5,
    )


def quality_of(agreement: float) -> float:
    """Return the correlation at which an unbiased judge has this agreement, at a win rate of 50 %."""
    return math.sin(math.pi * (agreement - 0.5))


def print_judges(count: int, repetitions: int, random: np.random.Generator) -> None:
    """Print the coverage over judges with random biases."""
    found = [simulate(draw_world(random), repetitions, random) for _ in range(count)]
    corrected = [share(x.corrected) for x in found]
    print(f"{count} random biased judges, {repetitions} evaluations each; coverage of the 95 % intervals:")
    print(f"  corrected              {np.mean(corrected):5.1f} %")
    print(f"  human labels alone     {np.mean([share(x.labels) for x in found]):5.1f} %")
    print(f"  judge, not corrected   {np.mean([share(x.judge) for x in found]):5.1f} %")
    inside = sum(93 <= x <= 97 for x in corrected)
    print(f"  corrected, by judge: {min(corrected):.1f} to {max(corrected):.1f} %; {inside} of {count} in 93 to 97 %,")
    chance = stats.binom(repetitions, np.mean(corrected) / 100)
    expected = chance.cdf(math.floor(0.97 * repetitions)) - chance.cdf(math.ceil(0.93 * repetitions) - 1)
    print(f"  where chance alone would leave {count * expected:.0f} if the coverage of all were the mean")


def print_grid(title: str, base: World, repetitions: int, random: np.random.Generator) -> None:
    """Print coverage and width by agreement and number of labels."""
    print(f"\n{title}: coverage of the corrected win rate, and width divided by that of human labels alone")
    print("agreement of the judge  " + "".join(f"{f'n={n}':>16}" for n in LABELS))
    for agreement in (0.6, 0.7, 0.8, 0.85, 0.9, 0.95):
        world = replace(base, quality=quality_of(agreement))
        cells = [simulate(replace(world, labels=n), repetitions, random) for n in LABELS]
        measured = share([x for cell in cells for x in cell.agreement])
        shown = "".join(f"{share(x.corrected):9.1f} % {share(x.ratios) / 100:.2f}" for x in cells)
        print(f"{measured:20.0f} %  {shown}")


LABELS = (50, 100, 200, 400)


def print_power(repetitions: int, random: np.random.Generator) -> None:
    """Print how often a win rate of 60 % is significant with the sample sizes of `rlaif plan`, and one of 50 %."""
    needed = required_pairs(0.1)
    wins = random.binomial(needed, 0.6, size=100_000)
    rates = [estimate_clustered_rate([1.0] * k + [0.0] * (needed - k), range(needed)) for k in range(needed + 1)]
    outside = [x is not None and not x.low <= 0.5 <= x.high for x in rates]
    print(f"\npower at a win rate of 60 %, planned 80 %: {share([outside[k] for k in wins]):.1f} % with {needed} pairs")
    for prompts in (2 * needed, 1000):
        for agreement in (0.7, 0.8, 0.9):
            labels = required_labels(0.1, prompts, agreement)
            assert labels is not None
            world = World(0.6, quality_of(agreement), 0.2, labels, prompts)
            world = replace(world, quality=_match_agreement(world, agreement, random))
            power = simulate(world, repetitions, random)
            level = simulate(replace(world, win_rate=0.5), repetitions, random)
            print(
                f"  {prompts} pairs, judge with agreement {share(power.agreement):.0f} % and bias, {labels} labels: "
                f"{share(power.significant):.1f} %; at a win rate of 50 %: {share(level.significant):.1f} %"
            )


def _match_agreement(world: World, agreement: float, random: np.random.Generator) -> float:
    """Return the correlation at which the biased judge has this agreement."""
    low, high = 0.0, 1.0
    large = replace(world, prompts=200_000)
    for _ in range(12):
        middle = (low + high) / 2
        judge, human = replace(large, quality=middle).draw(random)
        low, high = (middle, high) if np.mean(judge == human) < agreement else (low, middle)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judges", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=500, help="evaluations of each judge")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start, random = time.monotonic(), np.random.default_rng(arguments.seed)
    print_judges(arguments.judges, arguments.repetitions, random)
    more = 4 * arguments.repetitions
    one = World(win_rate=0.6, quality=0.5, bias=0.2, labels=0, prompts=1000)
    print_grid("1,000 prompts, a judge that states choices", one, more, random)
    print_grid("1,000 prompts, a judge that states probabilities", replace(one, soft=True), more, random)
    four = replace(one, prompts=250, responses=4, shared=0.5, ties=0.2)
    print_grid("250 prompts with 4 pairs each and ties, a judge that states choices", four, more, random)
    print_power(more, np.random.default_rng(arguments.seed + 1))
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
