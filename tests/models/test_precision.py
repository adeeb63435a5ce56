"""Precision: the head of a language model in fp32, and the inputs of adapters under autocast."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from rlaif_framework import Choose, Context, PluginManager, Question, Spec
from rlaif_framework.models import Group, pack_groups, precision, response_logprobs, use_fp32_head
from rlaif_framework.models import adapters as adapters_module
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients
from rlaif_framework.models.score_model import ScoreModel
from rlaif_framework.spec.model import LoraSettings
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


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("score", [False, True])
def test_adapters_do_not_cast_their_inputs_inside_autocast_and_gradients_stay_the_same(
    tiny_model: Path, score: bool, checkpointed: bool
) -> None:
    lora = LoraSettings(rank=4)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    wrapped: Any = ScoreModel.over(model, lora) if score else add_lora(model, lora, "CAUSAL_LM")
    if checkpointed:
        checkpoint_gradients(wrapped)
    adapters = [parameter for name, parameter in wrapped.named_parameters() if "lora_" in name]
    for number, parameter in enumerate(adapters):
        torch.manual_seed(number)
        torch.nn.init.normal_(parameter, std=0.2)
    if score:
        torch.nn.init.ones_(wrapped.model.score.modules_to_save["default"].weight)
    packed = pack_groups([Group(IDS[0].tolist(), [[3, 4], [5, 6, 7]])], 0, torch.device("cpu"))

    def gradients(autocast: bool = True) -> tuple[int, list[torch.Tensor]]:
        with CastsToFp32() as counted, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values = wrapped(packed, packed.rows, packed.columns) if score else response_logprobs(wrapped, packed)
        return counted.count, list(torch.autograd.grad(values.sum(), adapters))

    layers = [module for module in wrapped.modules() if isinstance(module, LoraLayer)]
    found, left = gradients()
    assert all(layer.cast_input_dtype_enabled for layer in layers)
    with patch.object(adapters_module, "disable_input_dtype_casting", lambda *_, **__: nullcontext()):
        casts, expected = gradients()
    assert casts - found == len(layers)
    assert all(torch.equal(a, b) and a.any() for a, b in zip(left, expected, strict=True))
    gradients(autocast=False)  # the base computes in bf16 and adapters in fp32: without casts, this would fail


class CastsToFp32(TorchDispatchMode):
    """Counts the bf16 tensors that are cast to fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].dtype == torch.bfloat16:
            self.count += result.dtype == torch.float32
        return result
