"""Agreement of labels and reward models with gold preferences, and position bias (RLAIF 4: metrics)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from rlaif_framework.files import read_regular, write_atomic
from rlaif_framework.metrics.estimates import Estimate, estimate_clustered_rate, estimate_fraction
from rlaif_framework.records.preferences import Comparison, Preference, PreferenceSource

QUALITY = "quality.json"
"""Name of the file with the measurements of an arm's labels."""

LARGEST_QUALITY = 2**24
"""Maximum size of this file in bytes."""


@dataclass(frozen=True, slots=True)
class LabelerQuality:
    """Measurements of a labeler, most of them against gold preferences."""

    agreement: Estimate | None
    """AI labeler alignment: fraction of decided comparisons where the better response has the higher probability."""
    slices: dict[str, Estimate]
    """Agreement by slice."""
    same_position: Estimate | None
    """Position bias: fraction of comparisons where the same position is preferred in both orders."""
    first_when_same: Estimate | None
    """Among those, the fraction where the first position is preferred."""
    label_token_mass: Estimate | None
    """Mean probability mass on the label tokens, over the whole vocabulary."""
    unparsed: Estimate | None
    """Fraction of comparisons without a readable answer. They are left out of all other numbers."""
    refused: Estimate | None
    """Fraction of comparisons that the backend refused to answer. They are left out of all other numbers."""
    sampled: Estimate | None
    """Fraction of ballots that are counted from sampled answers, instead of the model's own probabilities."""
    longer_wins: Estimate | None
    """Fraction of comparisons where the longer response (in characters) has the higher probability."""
    gold_source: str | None
    """Source of the gold preferences: `human` or `synthetic`."""


def save_quality(quality: LabelerQuality, folder: Path) -> None:
    """Write `quality.json`."""
    write_atomic(folder / QUALITY, TypeAdapter(LabelerQuality).dump_json(quality, indent=1).decode())


def read_quality(folder: Path) -> LabelerQuality | None:
    """Read `quality.json`; None if it is missing or damaged, since the folder may come from a stranger."""
    try:
        return TypeAdapter(LabelerQuality).validate_json(read_regular(folder / QUALITY, LARGEST_QUALITY))
    except (OSError, ValidationError):
        return None


@dataclass(frozen=True, slots=True)
class Observation:
    """A label and its comparison, reduced to what measurements need. Texts are not kept."""

    prompt: int
    """Hash of the prompt: comparisons of one prompt are not independent."""
    first: float | None
    """The label's probability that the first response is better; None if unparsed, inconsistent or refused."""
    gold: float | None
    """The gold probability that the first response is better."""
    gold_source: str | None
    confidence: float | None
    slice: str | None
    longer: int
    """Length difference in characters, first response minus second."""
    orders: tuple[tuple[float, float] | None, ...]
    """Probabilities of each ballot, in the order in which the responses were shown."""
    masses: tuple[float, ...]
    """Probability mass on the label tokens; see `Evidence.masses`."""
    inconsistent: bool = False
    """True if the label was withheld because the two orders disagree."""
    refused: bool = False
    """True if the backend refused to answer."""
    sampled: tuple[bool, ...] = ()
    """For each ballot that could be read, True if it is counted from sampled answers."""
    source: str = ""
    """Source of the label: a labeler's kind, or the source of the gold preference if the label was copied from it."""
    votes: tuple[float, ...] = ()
    """Probability of the first response by each member of an ensemble whose answer could be read."""

    @property
    def copied(self) -> bool:
        """True if the label is a copy of the gold preference, so that their agreement is meaningless."""
        return self.source in get_args(PreferenceSource)

    @property
    def decided(self) -> bool:
        """True if there is a label, and a gold preference that is not a tie."""
        return self.first is not None and self.gold not in (None, 0.5)

    @property
    def correct(self) -> float:
        """1 if a decided label agrees with the gold preference, 0 if not, 0.5 if the label is an exact tie."""
        # The defaults are for the type checker: a decided observation has both values.
        return score_choice(0.5 if self.first is None else self.first, (self.gold or 0.0) > 0.5)


def observe(comparison: Comparison, preference: Preference) -> Observation:
    """Reduce a label and its comparison to what measurements need."""
    ballots, masses = preference.evidence.orders, preference.evidence.masses
    return Observation(
        hash(comparison.prompt.text),
        None if preference.probabilities is None else preference.probabilities[0],
        comparison.preference,
        comparison.preference_source,
        comparison.confidence,
        comparison.slice,
        len(comparison.responses[0]) - len(comparison.responses[1]),
        tuple(preference.evidence.shown),
        masses,
        preference.evidence.inconsistent,
        preference.evidence.refused is not None,
        # A ballot without samples, mass and probabilities could not be read.
        tuple(b.sampled > 0 for b in ballots if b.sampled or b.mass is not None or b.probabilities is not None),
        intern(preference.evidence.source),  # one string for all, since there may be millions of observations
        tuple(vote.probabilities[0] for vote in preference.evidence.members if vote.probabilities is not None),
    )


def measure_labeler(comparisons: Sequence[Comparison], preferences: Sequence[Preference]) -> LabelerQuality:
    """Measure labels. Gold ties are left out, and a labeler's exact tie counts as half correct.

    If only some labels are copies of gold preferences (labeler `mix`), these are left out.
    """
    observations = [observe(c, p) for c, p in zip(comparisons, preferences, strict=True)]
    # Labelers such as `human` copy all labels: their agreement is 1 by definition, but their other numbers are not.
    return measure_observations([x for x in observations if not x.copied] or observations)


def measure_observations(observations: Sequence[Observation]) -> LabelerQuality:
    """Measure labels from their observations."""
    parsed = [x for x in observations if x.first is not None]
    decided = [x for x in parsed if x.decided]
    # The order of sets differs between processes; reports must not.
    names = sorted({x.slice for x in decided if x.slice is not None})
    slices = {name: measure_agreement(x for x in decided if x.slice == name) for name in names}
    # Position bias is measured on ballots, which are kept even if the comparison has no label in the end.
    both = [(x.prompt, x.orders) for x in observations if len(x.orders) == 2]
    firsts = [
        (prompt, a[0] > 0.5, b[0] > 0.5)
        for prompt, (a, b) in both
        if a is not None and b is not None and 0.5 not in (a[0], b[0])
    ]
    lengths = [(x.prompt, score_choice(x.first, x.longer > 0)) for x in parsed if x.longer and x.first is not None]
    sources = sorted({x.gold_source for x in decided if x.gold_source is not None})
    return LabelerQuality(
        agreement=measure_agreement(decided),
        slices={name: value for name, value in slices.items() if value is not None},
        # The responses were swapped: if the answers are equal, the preferred position was not.
        same_position=estimate_by_prompt((prompt, a == b) for prompt, a, b in firsts),
        first_when_same=estimate_by_prompt((prompt, a) for prompt, a, b in firsts if a == b),
        label_token_mass=estimate_by_prompt((x.prompt, mass) for x in observations for mass in x.masses),
        unparsed=estimate_by_prompt(
            (x.prompt, x.first is None and not (x.inconsistent or x.refused)) for x in observations
        ),
        refused=estimate_by_prompt((x.prompt, x.refused) for x in observations),
        sampled=estimate_by_prompt((x.prompt, sampled) for x in observations for sampled in x.sampled),
        longer_wins=estimate_by_prompt(lengths),
        gold_source=" and ".join(sources) or None,
    )


def measure_agreement(observations: Iterable[Observation]) -> Estimate | None:
    """Return the fraction of decided observations whose label agrees with the gold preference."""
    return estimate_by_prompt((x.prompt, x.correct) for x in observations if x.decided)


def estimate_by_prompt(values: Iterable[tuple[Hashable, float]]) -> Estimate | None:
    """Estimate the mean of values between 0 and 1, each with its prompt; None without values.

    Values of 0, 0.5 and 1 are losses, ties and wins.
    """
    rows = list(values)
    prompts, numbers = [prompt for prompt, _ in rows], [float(value) for _, value in rows]
    if all(number in (0, 0.5, 1) for number in numbers):
        return estimate_clustered_rate(numbers, prompts)
    return estimate_fraction(numbers, prompts)


def score_choice(first: float, first_is_better: bool) -> float:
    """Return 1 if the more probable response is the better one, 0 if not, 0.5 for an exact tie.

    Args:
        first: Probability that the first response is the better one.
        first_is_better: True if it is.
    """
    if first == 0.5:
        return 0.5
    return float((first > 0.5) == first_is_better)


def measure_margins(
    comparisons: Sequence[Comparison], margins: Sequence[float], better: Callable[[int], float | None]
) -> Estimate | None:
    """Return a reward model's pairwise accuracy: the fraction of pairs whose better response scores higher (RLAIF 4).

    Args:
        comparisons: The pairs.
        margins: Reward of the first response minus that of the second.
        better: Returns the probability that the first response of pair i is the better one. Pairs are left out if it
            is None or 0.5.
    """
    scores = []
    for index in range(len(comparisons)):
        first = better(index)
        if first is None or first == 0.5:
            continue
        score = 0.5 if margins[index] == 0 else float((margins[index] > 0) == (first > 0.5))
        scores.append((comparisons[index].prompt.text, score))
    return estimate_by_prompt(scores)
