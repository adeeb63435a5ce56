"""The head of a language model in fp32 against a plain matrix product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlaif_framework import Choose, Context, PluginManager, Question, Spec
from rlaif_framework.models import precision, use_fp32_head
from rlaif_plugins.backends.transformers import TransformersConfig, backend

IDS = torch.tensor([[5, 9, 3, 17, 40, 2, 8]])


@pytest.mark.parametrize("chunk", [7, 16384])
@pytest.mark.parametrize("biased", [False, True])
def test_the_head_is_computed_in_fp32_within_the_block_only(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, biased: bool
) -> None:
    monkeypatch.setattr(precision, "HEAD_CHUNK", chunk)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).eval()
    size = len(model.lm_head.weight)
    if biased:
        model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, size).bfloat16())
    with torch.no_grad():
        hidden = model.model(IDS).last_hidden_state
        expected = hidden.double() @ model.lm_head.weight.double().T + (model.lm_head.bias.double() if biased else 0)
        with use_fp32_head(model):
            precise = model(IDS).logits
        coarse = model(IDS).logits
    assert precise.dtype == torch.float32
    assert torch.allclose(precise.double(), expected, atol=1e-5)
    assert coarse.dtype == torch.bfloat16
    assert (coarse.double() - expected).abs().max() > 1e-4  # what the block mends


def test_labels_of_a_bf16_model_are_read_from_fp32_logits(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = TransformersConfig(model=str(tiny_model), dtype="bf16")
    labeler = backend.TransformersBackend(own, Context.from_spec(tiny_spec(), manager))
    texts = [f"Which is the better one of dog and cat number {number}?" for number in range(24)]
    answers = dict(labeler.answer([Choose(Question(text, "Preferred Summary="), ("1", "2")) for text in texts]))
    # Of logits in bf16, of which a few hundred lie between 0 and 1, many would have equal differences.
    assert len({answer.probabilities[0] for answer in answers.values()}) == len(texts)
