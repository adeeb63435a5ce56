"""Tests that every task must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, get_args

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Task
from rlaif_framework.errors import DataError
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import TaskConfig
from rlaif_framework.records.preferences import Comparison, Prompt, Split
from rlaif_framework.testing.component import ComponentConformance

SPLITS: tuple[Split, ...] = get_args(Split)
RESPONSES = ("A short answer.", "", "  An answer\n\nwith two parts.  ", "word " * 200)
"""Responses as policies write them."""


class TaskConformance(ComponentConformance):
    """Tests of a task. Its data should be small, and have prompts in the splits `train` and `test`."""

    slot: ClassVar[Slot] = "task"

    @pytest.fixture
    def built(self, context: Context, parsed: TaskConfig) -> Task:
        """The task, built as in a run."""
        return context.build_task(parsed)

    @pytest.fixture
    def prompts(self, built: Task) -> dict[Split, Sequence[Prompt]]:
        """The prompts of each split."""
        return {split: built.prompts(split) for split in SPLITS}

    @pytest.fixture
    def comparisons(self, built: Task) -> dict[Split, Sequence[Comparison]]:
        """The comparisons of each split."""
        return {split: built.comparisons(split) for split in SPLITS}

    def test_it_has_prompts_to_train_on_and_to_test_with(self, prompts: Mapping[Split, Sequence[Prompt]]) -> None:
        """Check that there is something to train on, and something else to evaluate with."""
        assert prompts["train"], "no prompt in split 'train'"
        assert prompts["test"], "no prompt in split 'test'"

    def test_splits_are_disjoint(
        self, prompts: Mapping[Split, Sequence[Prompt]], comparisons: Mapping[Split, Sequence[Comparison]]
    ) -> None:
        """Check that no text is in two splits: an evaluation would measure what was trained on."""
        texts: dict[Split, set[str]] = {
            split: {_normalise(p.source) for p in [*prompts[split], *(c.prompt for c in comparisons[split])]}
            for split in SPLITS
        }
        for one, other in combinations(SPLITS, 2):
            shared = texts[one] & texts[other]
            assert not shared, f"in splits '{one}' and '{other}': {sorted(shared)[:3]}"

    def test_ids_are_unique(
        self, prompts: Mapping[Split, Sequence[Prompt]], comparisons: Mapping[Split, Sequence[Comparison]]
    ) -> None:
        """Check that rows can be told apart in logs and labels."""
        for split in SPLITS:
            for rows in ([p.id for p in prompts[split]], [c.id for c in comparisons[split]]):
                assert len(set(rows)) == len(rows), f"split '{split}' has an id twice"

    def test_no_text_is_empty(
        self, prompts: Mapping[Split, Sequence[Prompt]], comparisons: Mapping[Split, Sequence[Comparison]]
    ) -> None:
        """Check that there is something to answer and to compare."""
        for split in SPLITS:
            for prompt in prompts[split]:
                assert prompt.text.strip(), f"prompt '{prompt.id}' is empty"
                assert prompt.source.strip(), f"prompt '{prompt.id}' has no source"
            for comparison in comparisons[split]:
                first, second = (text.strip() for text in comparison.responses)
                assert first, f"comparison '{comparison.id}' has an empty response"
                assert second, f"comparison '{comparison.id}' has an empty response"
                assert first != second, f"comparison '{comparison.id}' has the same response twice"

    def test_the_source_is_in_the_text(self, prompts: Mapping[Split, Sequence[Prompt]]) -> None:
        """Check that truncating the source shortens what a policy reads."""
        for prompt in _sample(prompts):
            assert prompt.source in prompt.text, f"the text of prompt '{prompt.id}' does not contain its source"
            if prompt.turns:
                told = "\n".join(turn.content for turn in prompt.turns)
                assert prompt.turns[-1].role == "user", f"the last turn of prompt '{prompt.id}' is not the user's"
                assert told.strip(), f"the turns of prompt '{prompt.id}' are empty"

    def test_gold_preferences_say_where_they_come_from(self, comparisons: Mapping[Split, Sequence[Comparison]]) -> None:
        """Check that human and synthetic preferences cannot be confused."""
        for split in SPLITS:
            for comparison in comparisons[split]:
                if comparison.preference is not None:
                    assert comparison.preference_source, f"comparison '{comparison.id}' has no `preference_source`"

    def test_reading_again_gives_the_same_data(
        self,
        context: Context,
        parsed: TaskConfig,
        prompts: Mapping[Split, Sequence[Prompt]],
        comparisons: Mapping[Split, Sequence[Comparison]],
    ) -> None:
        """Check that a run can be repeated and resumed: splits and order do not depend on chance."""
        again = context.build_task(parsed)
        for split in SPLITS:
            assert list(again.prompts(split)) == list(prompts[split])
            assert list(again.comparisons(split)) == list(comparisons[split])

    @pytest.mark.parametrize("share", [0.9, 0.6])
    def test_truncation_fits_and_keeps_the_cue(
        self, share: float, built: Task, prompts: Mapping[Split, Sequence[Prompt]]
    ) -> None:
        """Check that a shorter prompt still ends with what asks for a response."""
        for prompt in _sample(prompts):
            cue = prompt.text.rpartition(prompt.source)[2]
            excess = int((1 - share) * len(prompt.source))
            if excess == 0:
                continue  # the source is too short for it to lose such a share
            limit = len(prompt.text) - excess

            def fits(p: Prompt, limit: int = limit) -> bool:
                return len(p.text) <= limit

            short = built.truncate(prompt, fits)
            assert fits(short), f"prompt '{prompt.id}' is still too long"
            assert short.id == prompt.id
            assert short.reference == prompt.reference
            assert short.source.strip(), f"nothing is left of prompt '{prompt.id}'"
            assert len(short.source) < len(prompt.source)
            assert short.source in short.text
            assert short.text.endswith(cue), f"the truncated prompt '{prompt.id}' does not end with its cue {cue!r}"
            assert [turn.role for turn in short.turns][-1:] == [turn.role for turn in prompt.turns][-1:]

    def test_a_prompt_that_cannot_fit_is_an_error(self, built: Task, prompts: Mapping[Split, Sequence[Prompt]]) -> None:
        """Check that an impossible limit is reported, rather than ignored."""
        with pytest.raises(DataError):
            built.truncate(prompts["train"][0], lambda prompt: False)

    @pytest.mark.parametrize("response", RESPONSES, ids=["short", "empty", "two-parts", "long"])
    def test_cleaning_twice_changes_nothing_more(self, response: str, built: Task) -> None:
        """Check that cleaning has a fixed result."""
        once = built.clean(response)
        assert built.clean(once) == once

    def test_every_response_has_the_same_metrics(self, built: Task, prompts: Mapping[Split, Sequence[Prompt]]) -> None:
        """Check that metrics can be averaged, also over empty responses; finite numbers are checked in a run too."""
        prompt = prompts["test"][0]
        names = [set(built.measure(prompt, built.clean(text))) for text in RESPONSES]
        assert all(found == names[0] for found in names), "metrics depend on the response"

    def test_annotators_can_be_asked(self, built: Task, comparisons: Mapping[Split, Sequence[Comparison]]) -> None:
        """Check that the prompt templates show the text and both responses."""
        known = built.annotator_prompts()
        prompt, pair = _example(built, comparisons)
        for name in known.preambles:
            ask = known.annotate(prompt, pair, preamble=name)
            for text in pair:
                assert " ".join(text.split()) in ask.sample, "a response is not shown"
            for question in (ask.ask_label(), ask.ask_rationale(), ask.ask_verdict()):
                assert question.text.strip()
        assert " ".join(pair[0].split()) in known.ask_rating(prompt, pair[0]).text, "the rated response is not shown"


def _sample(prompts: Mapping[Split, Sequence[Prompt]]) -> list[Prompt]:
    """Return some prompts of each split."""
    return [prompt for found in prompts.values() for prompt in found[:5]]


def _example(task: Task, comparisons: Mapping[Split, Sequence[Comparison]]) -> tuple[Prompt, tuple[str, str]]:
    found: Any = next((c for rows in comparisons.values() for c in rows), None)
    if found is not None:
        return found.prompt, found.responses
    return task.prompts("train")[0], ("A first answer.", "A second answer.")


def _normalise(text: str) -> str:
    return " ".join(text.split())
