from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rlaif_framework import Choose, Context, DataError, Question
from rlaif_framework.testing import BackendConformance

from rlaif_acme import NgramBackend, NgramConfig

LINES = """\
Preferred Summary=1
Preferred Summary=1
Preferred Summary=2
Answer: 1
The first one is better.
"""


class TestNgram(BackendConformance):
    component = "acme/ngram"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        (tmp_path / "lines.txt").write_text(LINES)
        return {"kind": self.component, "file": str(tmp_path / "lines.txt")}

    def test_probabilities_are_frequencies(self, context: Context, parsed: NgramConfig) -> None:
        backend = NgramBackend(parsed, context)
        ((_, answer),) = backend.answer([Choose(Question("Which?", "Preferred Summary="), ("1", "2"))])
        assert answer.probabilities == pytest.approx((3 / 5, 2 / 5))  # one is added to the counts of 2 and 1

    def test_a_missing_file_is_an_error(self, context: Context, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot read"):
            NgramBackend(NgramConfig(file=tmp_path / "no.txt"), context)
