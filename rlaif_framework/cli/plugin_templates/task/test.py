from __future__ import annotations

from pathlib import Path

import pytest
from rlaif_framework import Context, DataError
from rlaif_framework.testing import TaskConformance

from rlaif_acme import TitlesConfig
from rlaif_acme.titles import TitlesTask


class TestTitles(TaskConformance):
    component = "acme/titles"

    def test_the_better_title_is_not_always_first(self, context: Context) -> None:
        comparisons = TitlesTask(TitlesConfig(), context).comparisons("train")
        assert {comparison.preference for comparison in comparisons} == {0.0, 1.0}

    def test_own_data_is_divided(self, context: Context, tmp_path: Path) -> None:
        rows = ["text,title", *(f"A text about the number {n}.,Number {n}" for n in range(50))]
        (tmp_path / "own.csv").write_text("\n".join(rows))
        task = TitlesTask(TitlesConfig(data=str(tmp_path / "own.csv")), context)
        assert len(task.prompts("train")) + len(task.prompts("validation")) + len(task.prompts("test")) == 50
        assert task.prompts("train")[0].text.endswith("TITLE:")

    def test_a_row_without_a_text_is_an_error(self, context: Context, tmp_path: Path) -> None:
        (tmp_path / "own.jsonl").write_text('{"title": "No text"}\n')
        with pytest.raises(DataError, match="'text' must be a text"):
            TitlesTask(TitlesConfig(data=str(tmp_path / "own.jsonl")), context).prompts("train")
