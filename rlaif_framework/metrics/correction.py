"""Win rates that are corrected for the errors of a judge, by human labels of some of the pairs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from rlaif_framework.metrics.agreement import estimate_by_prompt, score_choice
from rlaif_framework.metrics.estimates import CONFIDENCE, Estimate

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

_ADDED = np.array([0.0, 0, 1, 1])
"""Labels of the pairs that are added to the sample for the intervals."""
_HALF = 0.5
"""Weight of each of these."""


@dataclass(frozen=True, slots=True)
class CorrectedWinRate:
    """A win rate by human preference, estimated from a judge's verdicts and some human labels."""

    rate: Estimate
    """The corrected win rate. Its `count` is the number of pairs."""
    human: Estimate
    """The win rate from the human labels alone, without the judge. Its `count` is the number of labelled pairs."""
    bias: Estimate
    """The judge's bias on the labelled pairs: its win rate minus that of the human labels, from -1 to 1. Above 0, it
    favours the first policy."""
    agreement: Estimate | None
    """Share of the labelled pairs on which the judge prefers the same response; pairs that humans call a tie are left
    out, and a tie of the judge counts half. None if humans call all pairs ties."""
    weight: float
    """Weight of the judge's probabilities (lambda of PPI++): 1 for a judge without errors, 0 for one that says nothing
    about the human labels, above 1 if the probabilities are too close to one half."""

    def flip(self) -> CorrectedWinRate:
        """Return the win rate of the second policy against the first."""
        return replace(self, rate=self.rate.flip(), human=self.human.flip(), bias=self.bias.negate())


def correct_win_rate(
    judge: Sequence[float],
    human: Sequence[float | None],
    prompts: Sequence[Hashable],
    known: Sequence[float | None] | None = None,
) -> CorrectedWinRate | None:
    """Estimate a win rate by human preference, from a judge of all pairs and human labels of a random sample of them.

    This is prediction-powered inference for a mean with power tuning (PPI++, Angelopoulos, Duchi & Zrnic 2023,
    arXiv 2311.01453): the human label is regressed on the judge's probability in the sample, and the predictions for
    all pairs are averaged. If the judge says only 0 or 1, the predictions are the shares of human wins among its wins
    and among its losses, as in a correction of misclassification. Whatever the judge's errors are, the estimate is
    right in large samples if the labelled pairs are a random sample of all pairs.

    The interval is Student's t with a variance that is robust to correlation between pairs of one prompt (Liang & Zeger
    1986). As in the interval of Agresti & Min (2005) for paired proportions, half a pair is added for each combination
    of a win or loss by the judge and by the human, because a small sample may happen to have no disagreement.

    Args:
        judge: For each pair, the judge's probability that the first policy's response is better; 0.5 for a tie.
        human: For each pair, 1 if people prefer the first policy's response, 0 if the second's, 0.5 for a tie, or the
            mean of several labels; None for a pair without one.
        prompts: The prompt of each pair.
        known: For each pair that needs no label, such as one of equal responses, the human preference; else None. These
            pairs are no part of the random sample.

    Returns:
        None if no pair has a human label.

    Raises:
        ValueError: The sequences have different lengths, or a value is not between 0 and 1.
    """
    pairs = _Pairs.read(judge, human, prompts, [None] * len(judge) if known is None else known)
    if not pairs.labelled.any():
        return None
    return CorrectedWinRate(
        rate=_estimate_rate(pairs, use_judge=True),
        human=_estimate_rate(pairs, use_judge=False),
        bias=_estimate_bias(pairs),
        agreement=_estimate_agreement(pairs),
        weight=_fit_line(pairs).slope,
    )


@dataclass(frozen=True)
class _Pairs:
    """The pairs as arrays, with nan for missing values."""

    judge: Values  # (pairs,)
    human: Values
    known: Values
    clusters: NDArray[np.intp]
    """Number of the prompt of each pair."""

    @classmethod
    def read(
        cls,
        judge: Sequence[float],
        human: Sequence[float | None],
        prompts: Sequence[Hashable],
        known: Sequence[float | None],
    ) -> Self:
        if len({len(judge), len(human), len(prompts), len(known)}) > 1:
            raise ValueError(
                f"{len(judge)} probabilities of the judge, {len(human)} human labels, {len(prompts)} prompts and "
                f"{len(known)} known preferences; there must be one for each pair"
            )
        values = [x for x in (*judge, *human, *known) if x is not None]
        wrong = [x for x in values if not 0 <= x <= 1]  # also nan
        if wrong:
            raise ValueError(f"{wrong[0]} is not between 0 and 1; a win is 1, a loss 0, a tie 0.5, and no label None")
        numbers: dict[Hashable, int] = {}
        clusters = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
        arrays = [np.array(x, dtype=float) for x in (judge, human, known)]
        return cls(arrays[0], arrays[1], arrays[2], np.array(clusters, dtype=np.intp))

    @cached_property
    def sampled(self) -> Flags:
        """The pairs that the labelled ones are a sample of."""
        return np.isnan(self.known)

    @cached_property
    def labelled(self) -> Flags:
        return self.sampled & ~np.isnan(self.human)

    @cached_property
    def groups(self) -> int:
        """Number of prompts with a labelled pair."""
        return len(np.unique(self.clusters[self.labelled]))

    @cached_property
    def added(self) -> Values:
        """What the judge says of the added pairs: as surely as it ever does, the second or the first."""
        said = self.judge[self.sampled]
        low, high = said.min(), said.max()
        return np.array([low, high, low, high])

    def count(self, chosen: Flags) -> tuple[int, int | None]:
        """Count pairs, and their prompts if some have several, as `Estimate` states them."""
        count, groups = int(chosen.sum()), len(np.unique(self.clusters[chosen]))
        return count, groups if groups < count else None


class _Line(NamedTuple):
    """A prediction of the human label from the judge's probability."""

    intercept: float
    slope: float

    def predict(self, judge: Values) -> Values:
        return self.intercept + self.slope * judge


def _fit_line(pairs: _Pairs, use_judge: bool = True, half: float = 0.0) -> _Line:
    """Regress labels on the judge by least squares; the line is flat if the judge is constant or not used.

    Args:
        pairs: The pairs.
        use_judge: If False, the line is flat.
        half: Weight of the added pairs.
    """
    judge = np.concatenate([pairs.judge[pairs.labelled], pairs.added])
    human = np.concatenate([pairs.human[pairs.labelled], _ADDED])
    weights = np.concatenate([np.ones(len(human) - 4), np.full(4, half)])
    centre, mean = np.average(judge, weights=weights), np.average(human, weights=weights)
    variance = np.sum(weights * (judge - centre) ** 2)
    covariance = np.sum(weights * (judge - centre) * (human - mean))
    slope = covariance / variance if use_judge and variance > 1e-12 else 0.0
    return _Line(float(mean - slope * centre), float(slope))


def _estimate_rate(pairs: _Pairs, use_judge: bool) -> Estimate:
    """Estimate the win rate from the labels, with or without the judge."""
    value = float(np.mean(_predict(pairs, _fit_line(pairs, use_judge))))
    line = _fit_line(pairs, use_judge, _HALF)
    predicted = _predict(pairs, line)
    centre = float(np.mean(predicted))
    # The influence of a pair on the estimate: by its prediction and, if it has a label, by its residual.
    scale = float(np.mean(pairs.sampled)) / (pairs.labelled.sum() + 4 * _HALF)
    influence = (predicted - centre) / len(predicted)
    influence[pairs.labelled] += scale * (pairs.human - line.predict(pairs.judge))[pairs.labelled]
    added = scale * (_ADDED - line.predict(pairs.added))
    chosen = np.full(len(predicted), True) if use_judge else pairs.labelled
    return _make_estimate(pairs, chosen, value, centre, (influence, added), lowest=0.0)


def _predict(pairs: _Pairs, line: _Line) -> Values:
    """Predict the human preference for all pairs."""
    return np.where(pairs.sampled, line.predict(pairs.judge), pairs.known)


def _estimate_bias(pairs: _Pairs) -> Estimate:
    """Estimate the mean difference between the verdict and the label."""
    verdicts = (np.sign(pairs.judge - 0.5) + 1) / 2
    differences = (verdicts - pairs.human)[pairs.labelled]
    total = len(differences) + 4 * _HALF
    centre = float(np.sum(differences) / total)
    influence = np.zeros_like(pairs.judge)
    influence[pairs.labelled] = (differences - centre) / total
    added = (np.array([0, 1, -1, 0]) - centre) / total  # each combination of a win or loss
    return _make_estimate(pairs, pairs.labelled, float(np.mean(differences)), centre, (influence, added), lowest=-1.0)


def _make_estimate(
    pairs: _Pairs, chosen: Flags, value: float, centre: float, influence: tuple[Values, Values], lowest: float
) -> Estimate:
    """Create an estimate with its interval, which is bounded by `lowest` and 1.

    Args:
        pairs: The pairs.
        chosen: Those that are counted.
        value: The estimate.
        centre: The estimate with the added pairs.
        influence: Deviation of the estimate due to each pair, and due to each of the added ones.
        lowest: The lowest possible value.
    """
    count, groups = pairs.count(chosen)
    value = min(1.0, max(lowest, value))
    if pairs.groups == 1:  # a single prompt says nothing about others
        return Estimate(value, lowest, 1.0, count, groups)
    own, added = influence
    squares = float(np.sum(np.bincount(pairs.clusters, own) ** 2) + _HALF * np.sum(added**2))
    # The degrees of freedom are the prompts and two for the added pairs, less the two parameters of the line.
    variance = squares * (pairs.groups + 2) / pairs.groups
    half = float(stdtrit(pairs.groups, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return Estimate(value, max(lowest, min(value, centre - half)), min(1.0, max(value, centre + half)), count, groups)


def _estimate_agreement(pairs: _Pairs) -> Estimate | None:
    decided = pairs.labelled & (pairs.human != 0.5)
    rows = zip(pairs.clusters[decided], pairs.judge[decided], pairs.human[decided], strict=True)
    return estimate_by_prompt((int(prompt), score_choice(verdict, label > 0.5)) for prompt, verdict, label in rows)
