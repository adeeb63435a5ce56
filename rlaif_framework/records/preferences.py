"""Prompts, comparisons and preferences, which flow between stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from rlaif_framework.records.ballots import Ballot

Split = Literal["train", "validation", "test"]

PreferenceSource = Literal["human", "synthetic"]


Role = Literal["system", "user", "assistant"]


class Turn(NamedTuple):
    """A message of a dialogue."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a policy: one post, question or dialogue."""

    id: str
    text: str
    """The input of a policy without a chat template. It ends with the cue for the response."""
    source: str
    """The text that a response is about: the post without the cue."""
    reference: str | None = None
    """A reference response, for SFT and reference-based judges."""
    turns: tuple[Turn, ...] = ()
    """The input of a policy with a chat template; the assistant's next turn is the response. Without turns, `text` is
    one user turn."""
    truncatable: tuple[int, int] | None = None
    """Start and end of the part of the source that may be truncated, such as the text of one column; None for all of
    it."""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other columns of the prompt's row, as JSON has them, for functions that score responses."""

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """The turns of the prompt, or its text as one user turn."""
        return self.turns or (Turn("user", self.text),)

    def replace_source(self, source: str) -> Prompt:
        """Return the prompt with another source, such as a truncated one, in its text and its turns.

        The last occurrence of the old source is replaced, since a title before the post may contain the same text.
        """
        return replace(self._exchange(self.source, source), source=source, truncatable=None)

    @property
    def passage(self) -> str:
        """The part of the source that may be truncated."""
        return self.source if self.truncatable is None else self.source[slice(*self.truncatable)]

    def replace_passage(self, passage: str) -> Prompt:
        """Return the prompt with another passage, such as a truncated one, in its source, its text and its turns."""
        if self.truncatable is None:
            return self.replace_source(passage)
        start, end = self.truncatable
        source = self.source[:start] + passage + self.source[end:]
        return replace(self._exchange(self.passage, passage), source=source, truncatable=(start, start + len(passage)))

    def _exchange(self, old: str, new: str) -> Prompt:
        """Replace the last occurrence of a text in the prompt's text and in each of its turns."""

        def exchange(text: str) -> str:
            before, found, after = text.rpartition(old)
            return before + new + after if found else text

        if not old:
            return self
        turns = tuple(Turn(turn.role, exchange(turn.content)) for turn in self.turns)
        return replace(self, text=exchange(self.text), turns=turns)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt with two responses, and a gold preference if there is one."""

    id: str
    prompt: Prompt
    responses: tuple[str, str]
    preference: float | None = None
    """Gold preference: probability in [0, 1] that the first response is the better one."""
    preference_source: PreferenceSource | None = None
    """Source of the gold preference: `human` raters, or `synthetic` (one response was written to be worse)."""
    confidence: float | None = None
    """The rater's confidence in [0, 1], if the data set has one."""
    slice: str | None = None
    """The group in which the comparison is reported, e.g. the kind of flaw."""
    raw_responses: tuple[str, str] | None = None
    """The responses of a user's row with their surrounding white space, to be written back unchanged; None if there is
    none."""

    def swap(self) -> Comparison:
        """Return the comparison with its responses, and its gold preference, in the other order."""
        first, second = self.responses
        raw = None if self.raw_responses is None else (self.raw_responses[1], self.raw_responses[0])
        preference = None if self.preference is None else 1 - self.preference
        return replace(self, responses=(second, first), raw_responses=raw, preference=preference)


@dataclass(frozen=True, slots=True)
class Vote:
    """The preference of one member of an ensemble."""

    labeler: str
    """The member's name."""
    probabilities: tuple[float, float] | None
    """As in `Preference`."""
    mass: float | None = None
    """Its mean probability mass on the label tokens; None if it is unknown, or if the member has no weight."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for a preference: ballots, scores, usage, and reasons if there is none."""

    source: str
    """The labeler's kind, or `human` or `synthetic` if the label is a copy of the gold preference."""
    orders: tuple[Ballot, ...] = ()
    """The ballot for the original order, then the one for the swapped order."""
    scores: tuple[float, float] | None = None
    """Score of each response, for labelers that score responses separately."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    """US dollars, for backends with known prices."""
    members: tuple[Vote, ...] = ()
    """Preferences of the members of an ensemble."""
    swapped: bool = False
    """True if only the swapped order was shown."""
    source_truncated: bool = False
    """True if the source was truncated to fit into the model's context; for an ensemble, into that of a member."""
    responses_truncated: int = 0
    """Number of responses that were truncated because they alone exceed the model's context."""
    inconsistent: bool = False
    """True if both orders could be read but the preference is withheld because they disagree; for an ensemble, if this
    is so for a member, which is then left out."""
    refused: str | None = None
    """The backend's reason for refusing to answer; None if it did not refuse."""
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server does not support them, e.g. `top_k`."""
    read_from: tuple[str, ...] = ()
    """Sources of the label probabilities, for backends with several. Of `openai`: `logprob_token_ids` (vLLM) and
    `score` (SGLang) are exact, `top_logprobs` counts labels outside the most likely tokens as 0, and `samples` are
    counted answers. Of `transformers`: `empty_thought` if the model can think, and its thought was left empty."""
    unanswered: int = 0
    """Number of times that a request was sent without an answer. It depends on interruptions, so it is counted in
    reports and left out of the rows of labels."""
    asks_worse: bool = False
    """True if the question was which response is the worse one, such as the more harmful one. The ballots have these
    answers, and the label their opposite."""

    @property
    def masses(self) -> tuple[float, ...]:
        """The probability mass on the label tokens of each ballot that has one; for an ensemble, the smallest of its
        members."""
        members = [vote.mass for vote in self.members if vote.mass is not None]
        return (min(members),) if members else tuple(ballot.mass for ballot in self.orders if ballot.mass is not None)

    @property
    def shown(self) -> list[tuple[float, float] | None]:
        """For each ballot, the probabilities that the response shown first, and the one shown second, is the better
        one; None if its answer could not be read."""
        pairs = [ballot.probabilities for ballot in self.orders]
        return [(pair[1], pair[0]) if pair and self.asks_worse else pair for pair in pairs]

    @property
    def rationales(self) -> list[list[str]]:
        """For the original and the swapped order, what a model wrote before its answers; empty if nothing was."""
        written = [list(ballot.rationales or filter(None, [ballot.rationale])) for ballot in self.orders]
        return ([[], *written] if self.swapped else written) if any(written) else []


@dataclass(frozen=True, slots=True)
class Preference:
    """The label of a comparison: a probability for each response, and the evidence."""

    comparison: str
    """Id of the comparison."""
    probabilities: tuple[float, float] | None
    """Probabilities of the first and the second response, summing to 1; None if no answer could be read, the two orders
    disagree, or the backend refused to answer."""
    evidence: Evidence

    @property
    def unparsed(self) -> bool:
        """True if there is no label because no answer could be read."""
        return self.probabilities is None and not self.evidence.inconsistent and self.evidence.refused is None


Labelled = tuple[Comparison, Preference]
"""A comparison and its label."""


@dataclass(frozen=True, slots=True)
class LabelledComparison:
    """A comparison with its label, to train reward models on."""

    comparison: Comparison
    probabilities: tuple[float, float]
    weight: float = 1.0
    """Weight of the comparison in the loss."""
