"""Tests that every metric of responses must pass."""

from __future__ import annotations

import math
import re
from typing import ClassVar

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Metric
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import MetricConfig
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.testing.component import ComponentConformance
from rlaif_framework.testing.world import list_responses


class MetricConformance(ComponentConformance):
    """Tests of a metric of responses."""

    slot: ClassVar[Slot] = "metric"
    tolerance: ClassVar[float] = 1e-5
    """Largest difference between numbers that should be equal. Those of a model differ by rounding if batches do."""

    @pytest.fixture
    def metric(self, context: Context, parsed: MetricConfig) -> Metric:
        """The metric, built as in a run."""
        return context.build_metric(parsed)

    @pytest.fixture
    def responses(self, context: Context) -> tuple[list[Prompt], list[str]]:
        """Prompts and one response to each: those of the task, a reference, and an empty, a long and a JSON one."""
        return list_responses(context.task.comparisons("test"))

    def test_its_names_are_those_that_reports_show(self, parsed: MetricConfig) -> None:
        """Check that there is a name for each number, of letters, digits and underscores."""
        assert parsed.names, "`names` of its config is empty"
        assert len(set(parsed.names)) == len(parsed.names), "a name is there twice"
        assert all(re.fullmatch(r"\w+", name) for name in parsed.names), f"{parsed.names}"

    def test_every_response_has_each_number(
        self, metric: Metric, parsed: MetricConfig, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that each name has a finite number or None for every response, also an empty one."""
        found = metric.measure(*responses)
        assert set(found) == set(parsed.names), "the names are not those of its config"
        for name, numbers in found.items():
            assert len(numbers) == len(responses[0]), name
            assert all(number is None or math.isfinite(number) for number in numbers), name
        assert any(number is not None for numbers in found.values() for number in numbers), (
            "it applies to no response of the task; set `task` to one that has what it needs"
        )

    def test_no_response_has_no_number(self, metric: Metric) -> None:
        """Check that empty lists are measured."""
        assert not any(metric.measure([], []).values())

    def test_a_response_has_the_same_numbers_alone_and_among_others(
        self, metric: Metric, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that numbers do not depend on the batch or its order."""
        together = metric.measure(*responses)
        backwards = metric.measure(responses[0][::-1], responses[1][::-1])
        for name, numbers in together.items():
            for index, (prompt, text) in enumerate(zip(*responses, strict=True)):
                (alone,) = metric.measure([prompt], [text])[name]
                for other in (alone, backwards[name][len(numbers) - 1 - index]):
                    self._check_equal(numbers[index], other, f"{name} of {text[:40]!r} alone and in a batch")

    def test_the_same_responses_have_the_same_numbers(
        self, context: Context, parsed: MetricConfig, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that an evaluation can be repeated."""
        one, other = (context.build_metric(parsed).measure(*responses) for _ in range(2))
        assert {name: list(numbers) for name, numbers in one.items()} == {
            name: list(numbers) for name, numbers in other.items()
        }

    def test_a_prompt_without_a_reference_is_measured_or_left_out(
        self, metric: Metric, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that a missing reference gives None where one is needed, not an error."""
        bare = [Prompt(prompt.id, prompt.text, prompt.source) for prompt in responses[0]]
        for name, numbers in metric.measure(bare, responses[1]).items():
            assert len(numbers) == len(bare), name

    def _check_equal(self, one: float | None, other: float | None, what: str) -> None:
        if one is None or other is None:
            assert one == other, what
        else:
            assert one == pytest.approx(other, abs=self.tolerance), what
