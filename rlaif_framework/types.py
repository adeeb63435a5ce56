"""The small frozen records that flow between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]
PreferenceSource = Literal["human", "construction"]


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
    given: tuple[str, str] | None = None
    """The responses with the white space around them, where a user's own rows have some and are to be written back."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a prompt strategy elicited for ONE order of the two responses."""

    probabilities: tuple[float, float] | None
    """For the response shown first and the one shown second; None if the answer could not be read."""
    mass: float | None = None
    """Probability of the label tokens together, over the whole vocabulary: how much of the answer was an answer."""
    rationale: str | None = None
    """What the model wrote before its answer; of several that are averaged, the first."""
    sampled: int = 0
    """How many written answers the probabilities are counted from; 0 if they are the model's own."""
    rationales: tuple[str, ...] = ()
    """All of them, where several were averaged."""
    principle: str | None = None
    """The one principle that was stated, where there was one."""

    @classmethod
    def read(cls, answer: Answer, rationale: str | None = None) -> Ballot:
        """The ballot of an answer to a choice between two options."""
        if not answer.probabilities:
            return cls(None, answer.mass, rationale)
        first, second = answer.probabilities
        return cls((first, second), answer.mass, rationale, answer.sampled)


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
    shortened: bool = False
    """Whether the source was cut to fit into the model's context; of an ensemble, into that of a member."""
    cut_responses: int = 0
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


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for a backend: what is asked, and the words its answer must begin with."""

    text: str
    prefill: str = ""
    """Put at the start of the answer (the assistant's turn of a chat model), e.g. `Preferred Summary=`."""


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask for the probabilities of the options as the next token."""

    question: Question
    options: tuple[str, ...]
    """Texts of one token or more; one may begin another, as `1` begins `10`."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for text. `temperature` 0 is greedy decoding."""

    question: Question
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


Request = Choose | Generate
Asked = Request | Sequence[Request]
"""What a coroutine yields: one request, or several to be answered together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A backend's reply to one request."""

    probabilities: tuple[float, ...] = ()
    """Of each option, normalised over the options; empty for `Generate`, and for a choice nobody could read."""
    mass: float | None = None
    """Sum of the options' probabilities over the whole vocabulary; None where a server does not tell."""
    text: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    sampled: int = 0
    """How many sampled answers the probabilities are counted from; 0 if they are the model's own."""
    cost: float = 0.0
    """US dollars, of backends that know their prices."""
    refused: str | None = None
    """Why this request, and not the set-up, is refused: then this is no answer, and the coroutine that asked ends."""
    fitting: float | None = None
    """Where it is refused as too long: about the share of its question that would fit, below 1."""
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server does not take them."""


Reply = Answer | Sequence[Answer]
"""What a coroutine receives: the answer to its request, or the answers to its requests, in order."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One comparison in one order, in a task's words; a prompt strategy turns it into questions (RLAIF 2.1)."""

    preamble: str
    """Who the annotator is and what counts."""
    label: str
    """The instruction when a label is asked for at once."""
    explain: str
    """The instruction when an explanation is asked for first."""
    verdict: str
    """The instruction when the answer is free text with a verdict at its end."""
    sample: str
    """The sample to annotate: the text and both responses."""
    ending: str
    """Last words before the label, without a trailing space, e.g. `Preferred Summary=`."""
    rationale_ending: str
    """Last words before an explanation (chain of thought, step one)."""
    after_exemplars: str = ""
    """Stands between the exemplars and the sample."""
    exemplars: tuple[tuple[str, str, str], ...] = ()
    """Rendered exemplars, each in three forms: with the label at once, after a rationale, as text with a verdict."""
    identity: str = ""
    """The comparison's id: random choices that depend on it are the same in both orders."""
    options: tuple[str, str] = ("1", "2")

    def ask_label(self, rationale: str | None = None) -> Question:
        """The question for the label.

        Args:
            rationale: An explanation elicited before; it stands between the sample and the ending.
        """
        if rationale is None:
            return Question(self._lay_out(self.label, 0), prefill=self.ending)
        before = f"{self.rationale_ending} {rationale.strip()}\n\n"
        return Question(self._lay_out(self.explain, 1), prefill=before + self.ending)

    def ask_rationale(self) -> Question:
        """The question for an explanation."""
        return Question(self._lay_out(self.explain, 1), prefill=self.rationale_ending)

    def ask_verdict(self) -> Question:
        """The question for free text with a verdict at its end."""
        return Question(self._lay_out(self.verdict, 2))

    def _lay_out(self, instruction: str, form: int) -> str:
        shown = [exemplar[form] for exemplar in self.exemplars]
        after = [self.after_exemplars] if shown and self.after_exemplars else []
        return "\n\n".join([f"{self.preamble} {instruction}".strip(), *shown, *after, self.sample])
