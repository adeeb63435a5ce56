"""Ballots: answers about one order of two responses, and their averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rlaif_framework.errors import TrainingError
from rlaif_framework.records.requests import Answer

LABEL_TOKEN_MASS = "label_token_mass"
"""Name of the probability mass on the label tokens in logs and reports."""

LOW_MASS = 0.1
"""A lower mean probability mass on the label tokens is reported: the model mostly writes something else."""

MIN_MASS = 0.01
"""With a lower mean probability mass on the label tokens, labels and scores are not trained on unless allowed."""


def check_mass(masses: Sequence[float], what: str, setting: str) -> None:
    """Check that a model writes labels at all.

    Args:
        masses: Probability masses on the label tokens; none if they are unknown.
        what: What the model writes and where, as the start of a sentence.
        setting: Where `allow_weak_labels` is set.

    Raises:
        TrainingError: Their mean is below 0.01.
    """
    if masses and (mass := fmean(masses)) < MIN_MASS:
        raise TrainingError(
            f"{what}: the mean probability mass on the label tokens is {mass:.2g}. Use another model or another ending "
            f"of the annotator prompts, or set 'allow_weak_labels: true' in {setting}"
        )


def average_ballots(ballots: Sequence[Ballot]) -> Ballot:
    """Average the distributions of all ballots that could be read; unparsed if none could."""
    read = [b for b in ballots if b.probabilities is not None]
    written = tuple(b.rationale for b in ballots if b.rationale is not None)
    # Ballots that are averages themselves have all their rationales in this field.
    rationales = tuple(text for b in ballots for text in b.rationales) or (written if len(written) > 1 else ())
    principles = {b.principle for b in ballots}
    about = Ballot(
        None,
        rationale=written[0] if written else None,
        rationales=rationales,
        principle=principles.pop() if len(principles) == 1 else None,
    )
    if not read:
        return about
    first = sum(b.probabilities[0] for b in read if b.probabilities is not None) / len(read)
    masses = [b.mass for b in read if b.mass is not None]
    mass = sum(masses) / len(masses) if masses else None
    return replace(about, probabilities=(first, 1.0 - first), mass=mass, sampled=sum(b.sampled for b in read))


@dataclass(frozen=True, slots=True)
class Ballot:
    """The result of a prompt strategy for one order of the two responses."""

    probabilities: tuple[float, float] | None
    """Probabilities of the response shown first and the one shown second; None if the answer could not be read."""
    mass: float | None = None
    """Probability mass on the label tokens, over the whole vocabulary."""
    rationale: str | None = None
    """Text that the model generated before its answer; the first one if several ballots are averaged."""
    sampled: int = 0
    """Number of sampled answers from which the probabilities are counted; 0 if they are the model's own."""
    rationales: tuple[str, ...] = ()
    """All rationales, if several ballots are averaged."""
    principle: str | None = None
    """The principle in the prompt, if there is exactly one."""

    @classmethod
    def read(cls, answer: Answer, rationale: str | None = None) -> Ballot:
        """Convert the answer to a choice between two options to a ballot."""
        if not answer.probabilities:
            return cls(None, answer.mass, rationale)
        first, second = answer.probabilities
        return cls((first, second), answer.mass, rationale, answer.sampled)
