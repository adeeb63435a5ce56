from __future__ import annotations

from rlaif_framework import Comparison, Context, Prompt
from rlaif_framework.testing import LabelerConformance

from rlaif_acme import ConciseConfig, ConciseLabeler


class TestConcise(LabelerConformance):
    component = "acme/concise"

    def test_repeated_words_lose(self, context: Context) -> None:
        labeler = ConciseLabeler(ConciseConfig(), context)
        prompt = Prompt("1", text="NOTE: a cat\n\nSUMMARY:", source="a cat")
        (preference,) = labeler.label([Comparison("1", prompt, ("a cat sat", "a cat a cat a cat"))])
        assert preference.probabilities is not None
        assert preference.probabilities[0] > 0.9
