from __future__ import annotations

from rlaif_framework import Context, Prompt
from rlaif_framework.testing import MetricConformance

from rlaif_acme import NewWords, NewWordsConfig


class TestNewWords(MetricConformance):
    component = "acme/new-words"

    def test_words_of_the_source_are_not_new(self, context: Context) -> None:
        prompt = Prompt("1", text="NOTE: green house\n\nSUMMARY:", source="green house", reference="a small house")
        found = NewWords(NewWordsConfig(), context).measure([prompt] * 2, ["small green roof", "a"])
        assert found == {"new_words": [2 / 3, None], "new_words_in_reference": [1 / 2, None]}
