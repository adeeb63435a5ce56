"""Tests that every backend must pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import BackendConfig
from rlaif_framework.records.requests import Answer, Choose, Generate, Question, Request
from rlaif_framework.testing.component import ComponentConformance

QUESTIONS = tuple(
    Question(f"Note - {name} moved to the coast.\nSummary 1 - {name} moved.\nSummary 2 - {text}", prefill=ending)
    for name, text, ending in (
        ("Ada", "Nobody moved.", "Preferred Summary="),
        ("Ben", "Ben moved because it is loud.", "Preferred Summary="),
        ("Cleo", "The coast.", "Answer: "),
        ("Dev", "Dev, who moved to the coast last year, is well.", ""),
    )
)
"""Questions of different lengths, with different endings."""


class BackendConformance(ComponentConformance):
    """Tests of a backend. One that calls a server needs a fake one: override the fixture `settings`."""

    slot: ClassVar[Slot] = "backend"
    options: ClassVar[tuple[str, ...]] = ("1", "2")
    """Options of the choices."""
    samples: ClassVar[int] = 200
    """Number of sampled answers that scoring is compared with."""
    tolerance: ClassVar[float] = 1e-5
    """Largest difference between probabilities that should be equal. A model's differ by rounding if batches do."""

    @pytest.fixture
    def backend(self, context: Context, parsed: BackendConfig) -> Backend:
        """The backend, built as in a run."""
        return context.build_backend(parsed)

    def test_choices_have_probabilities(self, backend: Backend) -> None:
        """Check that probabilities sum to 1 over the options, and that their mass is a share of all text."""
        for answer in ask(backend, [Choose(question, self.options) for question in QUESTIONS]):
            assert sum(answer.probabilities) == pytest.approx(1)
            assert len(answer.probabilities) == len(self.options)
            assert answer.mass is None or 0 <= answer.mass <= 1 + self.tolerance

    def test_the_order_of_the_options_does_not_matter(self, backend: Backend) -> None:
        """Check that probabilities are those of the options, not of their places."""
        for question in QUESTIONS:
            given, turned = ask(backend, [Choose(question, self.options), Choose(question, self.options[::-1])])
            assert turned.probabilities == pytest.approx(given.probabilities[::-1], abs=self.tolerance)

    def test_a_request_gets_the_same_answer_alone_and_among_others(self, backend: Backend) -> None:
        """Check that answers do not depend on the batch or its order."""
        requests = make_requests(self.options)
        together = ask(backend, requests)
        backwards = ask(backend, requests[::-1])[::-1]
        for request, answer, other in zip(requests, together, backwards, strict=True):
            (alone,) = ask(backend, [request])
            for found in (alone, other):
                assert found.text == answer.text, f"{request}"
                assert found.probabilities == pytest.approx(answer.probabilities, abs=self.tolerance), f"{request}"

    def test_a_new_instance_gives_the_same_answers(self, context: Context, parsed: BackendConfig) -> None:
        """Check that a run can be repeated: text is sampled with the seed of the request."""
        one, other = (context.build_backend(parsed) for _ in range(2))
        assert one.identity() == other.identity(), "its identity changes, so cached answers are never found"
        requests = make_requests(self.options)
        for first, second in zip(ask(one, requests), ask(other, requests), strict=True):
            assert first.text == second.text
            assert first.probabilities == pytest.approx(second.probabilities, abs=self.tolerance)

    def test_text_has_the_requested_length(self, backend: Backend) -> None:
        """Check that the limit on new tokens holds, and that tokens are counted."""
        for limit in (1, 4):
            for answer in ask(backend, [Generate(question, limit) for question in QUESTIONS]):
                assert 0 <= answer.generated_tokens <= limit
                assert answer.prompt_tokens > 0, "`prompt_tokens` is not counted"

    def test_scoring_agrees_with_greedy_text(self, backend: Backend) -> None:
        """Check that the text which the model writes is the option that it finds the most probable."""
        compared = 0
        for question in QUESTIONS:
            greedy, *sampled = ask(backend, [Generate(question, 1), *_sample(question, 20)])
            others = {a.text for a in sampled if _is_option(a.text)} - {greedy.text}
            if not _is_option(greedy.text) or not others:
                continue
            options = (greedy.text, *sorted(others))
            (choice,) = ask(backend, [Choose(question, options)])
            best = max(range(len(options)), key=choice.probabilities.__getitem__)
            assert best == 0, f"it writes {greedy.text!r} after {question.prefill!r}, and prefers {options[best]!r}"
            compared += 1
        assert compared, "it wrote no text that could be an option; see `test_scoring_agrees_with_sampled_text`"

    def test_scoring_agrees_with_sampled_text(self, backend: Backend) -> None:
        """Check that options are written as often as their probabilities say."""
        question = QUESTIONS[0]
        counts = Counter(answer.text for answer in ask(backend, _sample(question, self.samples)))
        common = [(text, count) for text, count in counts.most_common(8) if _is_option(text)]
        assert len(common) > 1, "it wrote no two texts that could be options"
        (choice,) = ask(backend, [Choose(question, tuple(text for text, _ in common))])
        total = sum(count for _, count in common)
        for (text, count), p in zip(common, choice.probabilities, strict=True):
            error = 5 * math.sqrt(p * (1 - p) / total) + 1 / total
            assert count / total == pytest.approx(p, abs=error), (
                f"{text!r} has the probability {p:.3f}, and was written {count} of {total} times"
            )

    def test_it_says_what_fits(self, backend: Backend) -> None:
        """Check that ordinary questions fit, and that a longer one fits only if a shorter one does."""
        assert all(backend.fits(question, 8) for question in QUESTIONS)
        lengths = [backend.fits(Question("word " * count), 8) for count in (1, 100, 10_000)]
        assert lengths == sorted(lengths, reverse=True), "a long question fits where a short one does not"

    def test_its_identity_has_no_secret(self, backend: Backend) -> None:
        """Check that the identity, which is written into caches, has nothing of the environment's keys."""
        assert backend.identity().strip()
        assert "sk-secret" not in backend.identity()

    @pytest.fixture(autouse=True)
    def _secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set a key that a backend may read from the environment."""
        for name in ("OPENAI_API_KEY", "HF_TOKEN"):
            monkeypatch.setenv(name, "sk-secret")


def ask(backend: Backend, requests: Sequence[Request]) -> list[Answer]:
    """Return the answers to requests in their order."""
    answers = dict(backend.answer(requests))
    assert sorted(answers) == list(range(len(requests))), "not every request has one answer"
    return [answers[number] for number in range(len(requests))]


def make_requests(options: tuple[str, ...]) -> list[Request]:
    """Return choices and requests for greedy and sampled text, mixed."""
    found: list[Request] = []
    for number, question in enumerate(QUESTIONS):
        found += [Choose(question, options), Generate(question, 4), Generate(question, 4, temperature=1.0, seed=number)]
    return found


def _sample(question: Question, count: int) -> list[Request]:
    return [Generate(question, 1, temperature=1.0, seed=number) for number in range(count)]


def _is_option(text: str) -> bool:
    """Return True for a text that is the same as an option: not empty, and without white space that was stripped."""
    return text.isascii() and text.isalnum()
