"""The local backend's fast paths against a plain transformers loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif_framework import Choose, Context, Generate, ModelError, PluginManager, Question, Spec
from rlaif_framework.prompting import option_probabilities
from rlaif_plugins.backends.transformers import TransformersConfig
from rlaif_plugins.backends.transformers.backend import TransformersBackend

PREAMBLE = "You are an experienced editor who rates summaries of posts. Say which summary is the better one. " * 3


@pytest.fixture
def backend(manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path) -> TransformersBackend:
    config = TransformersConfig(model=str(tiny_model), dtype="fp32")
    return TransformersBackend(config, Context.from_spec(tiny_spec(), manager))


def ask(text: str, options: tuple[str, ...] = ("1", "2"), prefill: str = "Preferred Summary=") -> Choose:
    return Choose(Question(text, prefill), options)


def questions() -> list[Choose]:
    """Both orders of comparisons under one preamble, and one that has nothing in common with them."""
    posts = [
        "my dog ate my homework and the teacher laughed " * n + f"on day {n}, which I did not expect."
        for n in (1, 4, 9)
    ]
    orders = [("good one", "a bad one"), ("a bad one", "good one")]
    shared = [f"{PREAMBLE}\n\nText - {p}\nSummary 1 - {a}\nSummary 2 - {b}" for p in posts for a, b in orders]
    return [ask(text) for text in [*shared, "something else altogether"]]


def next_logprobs(model_folder: Path, text: str) -> torch.Tensor:
    """Log-probabilities after a text, alone in its batch: the plain way."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids).logits[0, -1].log_softmax(0)


def token(model_folder: Path, text: str) -> int:
    (found,) = AutoTokenizer.from_pretrained(model_folder)(text, add_special_tokens=False)["input_ids"]
    return int(found)


def test_probabilities_equal_those_of_one_prompt_at_a_time(backend: TransformersBackend, tiny_model: Path) -> None:
    requests = questions()
    answers = dict(backend.answer(requests))
    one, two = token(tiny_model, "1"), token(tiny_model, "2")
    for index, request in enumerate(requests):
        logprobs = next_logprobs(tiny_model, backend.render(request.question)).double()
        mass = logprobs[one].exp() + logprobs[two].exp()
        assert answers[index].probabilities[0] == pytest.approx(float(logprobs[one].exp() / mass), abs=1e-5)
        assert answers[index].mass == pytest.approx(float(mass), abs=1e-6)


def test_a_kept_prefix_gives_the_same_answers(backend: TransformersBackend) -> None:
    requests = questions()[:6]
    whole = dict(backend.answer(requests))
    assert len(backend.prefix) > 100
    kept = backend.prefix_cache
    for start in (0, 2, 4):
        part = dict(backend.answer(requests[start : start + 2]))
        for i, answer in part.items():
            assert answer.probabilities == pytest.approx(whole[start + i].probabilities, abs=1e-5)
    assert kept is not None


def test_small_batches_change_nothing(backend: TransformersBackend) -> None:
    requests = questions()
    whole = dict(backend.answer(requests))
    backend.budget = 64
    for i, answer in backend.answer(requests):
        assert answer.probabilities == pytest.approx(whole[i].probabilities, abs=1e-5)


def test_ten_is_told_from_one_and_the_space_before_it_belongs_to_the_number(
    backend: TransformersBackend, tiny_model: Path
) -> None:
    options = tuple(str(n) for n in range(1, 11))
    request = ask("Rate this summary from 1 to 10.", options, "SCORE: ")
    (answer,) = dict(backend.answer([request])).values()
    text = backend.render(request.question).removesuffix(" ")
    chances = [chance(tiny_model, text, f" {option}") for option in options]
    assert chances[9] > 0
    chances[0] -= chances[9]  # what goes on as 10 is not 1
    assert answer.probabilities == pytest.approx([c / sum(chances) for c in chances], abs=1e-6)
    assert answer.mass == pytest.approx(sum(chances), abs=1e-6)


def chance(model_folder: Path, text: str, more: str) -> float:
    """Probability that a text goes on with these tokens, by one plain forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    start, rest = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, more))
    with torch.no_grad():
        logprobs = model(torch.tensor([start + rest])).logits[0, len(start) - 1 : -1].double().log_softmax(1)
    return math.exp(sum(float(row[i]) for row, i in zip(logprobs, rest, strict=True)))


def test_option_probabilities_take_the_longer_off_the_shorter() -> None:
    logprobs = {(): {1: math.log(0.6), 2: math.log(0.3)}, (1,): {0: math.log(0.25)}}
    assert option_probabilities([[1], [2], [1, 0]], logprobs) == pytest.approx([0.45, 0.3, 0.15])


def test_options_that_cannot_be_told_apart_are_refused(backend: TransformersBackend) -> None:
    with pytest.raises(ModelError, match="same tokens"):
        list(backend.answer([ask("x", ("1", "1"))]))


def test_generation_depends_on_the_request_alone(backend: TransformersBackend) -> None:
    requests = [
        Generate(Question(f"{PREAMBLE} Tell me about {what}."), 8, temperature=1.0, seed=seed)
        for what in ("dogs", "cats")
        for seed in (1, 2)
    ]
    together = dict(backend.answer(requests))
    for i, request in enumerate(requests):
        (alone,) = dict(backend.answer([request])).values()
        assert alone == together[i]
    assert together[0].text != together[1].text
    assert together[0].generated_tokens == 8 or together[0].text
