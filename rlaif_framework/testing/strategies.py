"""Tests that every prompt strategy must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import PromptStrategy
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import StrategyConfig
from rlaif_framework.records.annotation import Annotation
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.records.requests import Answer, Choose, Generate, Request
from rlaif_framework.testing.component import ComponentConformance

MOST_ROUNDS = 100
"""A strategy that asks more often does not finish."""

Reply = Callable[[Request], Answer]
"""Answers a request."""


class StrategyConformance(ComponentConformance):
    """Tests of a prompt strategy."""

    slot: ClassVar[Slot] = "strategy"
    text: ClassVar[str] = "It is the better one.\n\nVerdict: {label}"
    """What a model that prefers the response `label` writes. Change it for a strategy that reads another format."""
    unreadable: ClassVar[Sequence[str]] = ("", "I cannot say.", "Verdict: 3", "\x00\n\n\n")
    """Texts without a verdict."""

    @pytest.fixture
    def strategy(self, context: Context, parsed: StrategyConfig) -> PromptStrategy:
        """The strategy, built as in a run."""
        return context.build_strategy(parsed)

    @pytest.fixture
    def ask(self, context: Context) -> Annotation:
        """A comparison as annotators see it."""
        return annotate(context, context.task.comparisons("test")[0])

    @pytest.mark.parametrize("label", ["1", "2"])
    def test_it_prefers_what_the_model_prefers(self, label: str, strategy: PromptStrategy, ask: Annotation) -> None:
        """Check that the ballot has the model's preference, whether it chooses or writes."""
        ballot, _ = run_strategy(strategy, ask, self._prefer(label))
        assert ballot.probabilities is not None, "the answer could not be read; set `text` to the format that it reads"
        assert (ballot.probabilities[0] > 0.5) == (label == "1"), f"the model preferred response {label}"
        assert sum(ballot.probabilities) == pytest.approx(1)

    def test_it_finishes_and_says_so_if_nothing_can_be_read(self, strategy: PromptStrategy, ask: Annotation) -> None:
        """Check that unreadable answers give a ballot without probabilities, not an error or a guess."""
        for text in self.unreadable:
            ballot, _ = run_strategy(strategy, ask, lambda request, text=text: Answer(text=text))  # type: ignore[misc]
            assert ballot.probabilities is None, f"a preference was read from {text!r} and a choice without an answer"

    def test_the_same_answers_give_the_same_requests(
        self, context: Context, parsed: StrategyConfig, ask: Annotation
    ) -> None:
        """Check that a run can be repeated, and resumed from cached answers."""
        one, other = (run_strategy(context.build_strategy(parsed), ask, self._prefer("1")) for _ in range(2))
        assert one == other

    def test_every_question_shows_both_responses(self, strategy: PromptStrategy, ask: Annotation) -> None:
        """Check that the model sees what it is asked about."""
        _, requests = run_strategy(strategy, ask, self._prefer("1"))
        assert requests, "it asked nothing"
        for request in requests:
            assert ask.sample in request.question.text, "the sample is not in the question"
            if isinstance(request, Choose):
                assert set(request.options) == set(ask.options), "the options are not those of the comparison"

    def test_its_answers_have_the_declared_length(
        self, strategy: PromptStrategy, parsed: StrategyConfig, ask: Annotation
    ) -> None:
        """Check that prompts are truncated so that the text of the model fits into its context."""
        _, requests = run_strategy(strategy, ask, self._prefer("1"))
        longest = max((r.max_new_tokens for r in requests if isinstance(r, Generate)), default=0)
        assert longest <= parsed.longest_answer, "raise `longest_answer` of its config"

    def test_sampled_texts_have_seeds_of_their_own(self, context: Context, strategy: PromptStrategy) -> None:
        """Check that comparisons, and both orders of each, are sampled independently."""
        comparisons = context.task.comparisons("test")[:2]
        seeds = []
        for ask in [annotate(context, c, swapped) for c in comparisons for swapped in (False, True)]:
            _, requests = run_strategy(strategy, ask, self._prefer("1"))
            seeds.append({r.seed for r in requests if isinstance(r, Generate) and r.temperature > 0})
        shared = sum(map(len, seeds)) - len(set().union(*seeds))
        assert not shared, "two comparisons or orders share a seed; derive it with `ask.derive_seed`"

    def _prefer(self, label: str) -> Reply:
        def reply(request: Request) -> Answer:
            if isinstance(request, Generate):
                return Answer(text=self.text.format(label=label), generated_tokens=8)
            weights = [0.9 if option == label else 0.1 for option in request.options]
            return Answer(tuple(weight / sum(weights) for weight in weights), mass=0.9)

        return reply


def annotate(context: Context, comparison: Comparison, swapped: bool = False) -> Annotation:
    """Render a comparison with the prompts of the context's task."""
    first, second = comparison.responses
    shown = (second, first) if swapped else (first, second)
    prompts = context.task.annotator_prompts()
    return prompts.annotate(comparison.prompt, shown, identity=comparison.id, swapped=swapped)


def run_strategy(strategy: PromptStrategy, ask: Annotation, reply: Reply) -> tuple[Ballot, list[Request]]:
    """Run the coroutine of a strategy with answers by rule; return its ballot and what it asked."""
    coroutine, requests = strategy.elicit(ask), list[Request]()
    try:
        asked = next(coroutine)
        for _ in range(MOST_ROUNDS):
            several = isinstance(asked, Sequence)
            batch = list(asked) if isinstance(asked, Sequence) else [asked]
            requests += batch
            answers = [reply(request) for request in batch]
            asked = coroutine.send(answers if several else answers[0])
    except StopIteration as stop:
        return stop.value, requests
    raise AssertionError(f"it asked {MOST_ROUNDS} times and did not finish")
