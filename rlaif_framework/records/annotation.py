"""A comparison rendered for an annotator, which prompt strategies turn into questions."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_framework.records.requests import Question


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
