"""A comparison rendered for an annotator. Prompt strategies turn it into questions."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_framework.records.requests import Question
from rlaif_framework.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Annotation:
    """The parts of the prompt for one comparison in one order (RLAIF 2.1)."""

    preamble: str
    """The annotator's role and the criteria."""
    label: str
    """The instruction to give a label without an explanation."""
    explain: str
    """The instruction to give an explanation first."""
    verdict: str
    """The instruction to answer in free text that ends with a verdict."""
    sample: str
    """The sample to annotate: the text and both responses."""
    ending: str
    """The text right before the label, without a trailing space, e.g. `Preferred Summary=`."""
    rationale_ending: str
    """The text right before an explanation (first step of chain of thought)."""
    after_exemplars: str = ""
    """The text between the exemplars and the sample."""
    exemplars: tuple[tuple[str, str, str], ...] = ()
    """Rendered exemplars, each in three forms: with the label alone, with a rationale and the label, and as free text
    with a verdict."""
    identity: str = ""
    """The comparison's id. Random choices that depend on it are the same in both orders."""
    swapped: bool = False
    """True if the responses are shown in the other order than in the data."""
    options: tuple[str, str] = ("1", "2")
    """The labels of the response shown first and the one shown second."""

    def derive_seed(self, seed: int, *path: str | int) -> int:
        """Derive a seed for sampled text: every comparison and order has its own."""
        return derive_seed(seed, *path, self.identity, int(self.swapped))

    def ask_label(self, rationale: str | None = None) -> Question:
        """Create the question for the label.

        Args:
            rationale: The model's explanation from an earlier request. It is put between the sample and the ending.
        """
        if rationale is None:
            return Question(self._lay_out(self.label, 0), prefill=self.ending)
        # In the answer's prefill, since the model has written the rationale itself (RLAIF 2.1.3).
        before = f"{self.rationale_ending} {rationale.strip()}\n\n"
        return Question(self._lay_out(self.explain, 1), prefill=before + self.ending)

    def ask_rationale(self) -> Question:
        """Create the question for an explanation."""
        return Question(self._lay_out(self.explain, 1), prefill=self.rationale_ending)

    def ask_verdict(self) -> Question:
        """Create the question for free text that ends with a verdict."""
        return Question(self._lay_out(self.verdict, 2))

    def _lay_out(self, instruction: str, form: int) -> str:
        shown = [exemplar[form] for exemplar in self.exemplars]
        after = [self.after_exemplars] if shown and self.after_exemplars else []
        return "\n\n".join([f"{self.preamble} {instruction}".strip(), *shown, *after, self.sample])
