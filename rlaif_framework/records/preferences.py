"""Prompts, comparisons and preferences: the frozen records that flow between stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlaif_framework.records.ballots import Ballot

Split = Literal["train", "validation", "test"]


PreferenceSource = Literal["human", "synthetic"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is asked: one post, question or dialogue."""

    id: str
    text: str
    """As the policy reads it, the cue for the response last."""
    source: str
    """The text a response must be faithful to: the post without the cue."""
    reference: str | None = None
    """A response written by a person (or for the data set), for SFT and reference-based judges."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt with two responses; may carry a known preference."""

    id: str
    prompt: Prompt
    responses: tuple[str, str]
    preference: float | None = None
    """Known probability in [0, 1] that the first response is the better one."""
    preference_source: PreferenceSource | None = None
    """Who knows: `human` raters, or `construction` (one response was written to be worse)."""
    confidence: float | None = None
    """The rater's confidence in [0, 1], where the data set gives one."""
    slice: str | None = None
    """The group this comparison is reported under, such as the kind of flaw."""
    raw_responses: tuple[str, str] | None = None
    """The responses with the white space around them, where a user's own rows have some and are to be written back."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one labeler of an ensemble said of a comparison."""

    labeler: str
    """Its name in the ensemble."""
    probabilities: tuple[float, float] | None
    """As a preference's."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a preference is what it is."""

    source: str
    """The labeler's kind, or `human` / `construction` for a known preference."""
    orders: tuple[Ballot, ...] = ()
    """The ballot with the responses as given, then the one with the responses swapped."""
    scores: tuple[float, float] | None = None
    """Score of each response, for labelers that score responses one at a time."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, of backends that know their prices."""
    members: tuple[Vote, ...] = ()
    """What each labeler of an ensemble said."""
    swapped: bool = False
    """Whether the one order that was shown is the swapped one."""
    source_truncated: bool = False
    """Whether the source was cut to fit into the model's context; of an ensemble, into that of a member."""
    responses_truncated: int = 0
    """How many of the responses were cut, because one alone is longer than the model's context."""
    inconsistent: bool = False
    """Whether both orders could be read, and the preference is withheld because they disagree; of an ensemble, whether
    that is so of a member, whose label the ensemble's then does without."""
    refused: str | None = None
    """Why there is no preference, in the backend's words, where it would not answer what was asked."""
    dropped: tuple[str, ...] = ()
    """Settings of the requests that were not sent because the server does not take them, such as `top_k`."""


@dataclass(frozen=True, slots=True)
class Preference:
    """A comparison's label: a probability for each response, and its evidence."""

    comparison: str
    """Id of the comparison."""
    probabilities: tuple[float, float] | None
    """For the first and the second response, summing to 1; None if no answer could be read, both orders disagree, or
    the backend refused to answer."""
    evidence: Evidence

    @property
    def unparsed(self) -> bool:
        """Whether there is no label because no answer could be read."""
        return self.probabilities is None and not self.evidence.inconsistent and self.evidence.refused is None


@dataclass(frozen=True, slots=True)
class LabelledComparison:
    """A comparison with the preference a labeler gave it: what a reward model is trained on."""

    comparison: Comparison
    probabilities: tuple[float, float]
    weight: float = 1.0
    """How much it counts beside the others."""
