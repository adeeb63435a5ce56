"""The memory plan: what is worked out without contents is what a real model holds; and what becomes of freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig

from rlaif_framework.models import memory_measure
from rlaif_framework.models.adapters import add_lora
from rlaif_framework.models.loading import load_model
from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.memory_plan import plan_load
from rlaif_framework.models.packing import Group, pack_groups
from rlaif_framework.models.source import ModelSource
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.spec.model import LoraSettings, PolicyConfig

CPU = torch.device("cpu")
GROUPS, RESPONSES = 3, 2
LOAD: dict[str, Any] = {"role": "policy", "trained": True, "groups": GROUPS, "responses": RESPONSES}


def policy(model: Path, **settings: Any) -> PolicyConfig:
    sizes = {"max_prompt_tokens": 40, "max_new_tokens": 10}
    return PolicyConfig.model_validate({"model": str(model), "dtype": "fp32", **sizes, **settings})


def kept_by_autograd(model: Any, packed: Any) -> int:
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # kept alive, so that no address comes twice
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        response_logprobs(model, packed)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["all weights", "adapters"])
def test_the_plan_is_what_a_real_model_holds(lora: dict[str, int] | None, tiny_model: Path) -> None:
    model: Any = load_model(tiny_model, "causal", torch.float32, CPU)
    if lora is not None:
        model = add_lora(model, LoraSettings(**lora), "CAUSAL_LM")
    model.train()
    packed = pack_groups([Group([1] * 40, [[1] * 10] * RESPONSES)] * GROUPS, 0, CPU)
    logits = len(packed.targets) * model.config.vocab_size * 4  # their gradients
    load = plan_load(ModelLoad(str(tiny_model), **LOAD), policy(tiny_model, lora=lora))
    assert load.activation_bytes == pytest.approx(kept_by_autograd(model, packed) + logits, rel=0.02)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert load.memory_bytes == pytest.approx(weights + 12 * trained, rel=0.02)


def test_smaller_passes_and_checkpoints_hold_less(tiny_model: Path) -> None:
    def activations(**settings: Any) -> int:
        return plan_load(ModelLoad(str(tiny_model), **LOAD), policy(tiny_model, **settings)).activation_bytes

    assert activations(train_tokens=64) < 0.5 * activations()
    assert activations(gradient_checkpointing=True) < 0.7 * activations()


def test_a_reference_costs_what_it_is_kept_in(tiny_model: Path) -> None:
    parameters = plan_load(ModelLoad(str(tiny_model), "p"), policy(tiny_model)).parameters
    assert parameters is not None

    def size(kept_in: Any, **settings: Any) -> int | None:
        load = ModelLoad(str(tiny_model), "KL reference", dtype=kept_in, shared=True)
        return plan_load(load, policy(tiny_model, **settings)).memory_bytes

    assert size("policy") == 4 * parameters
    assert size("policy", dtype="bf16") == 4 * parameters  # a copy of weights that are trained in fp32
    assert size("bf16") == 2 * parameters
    assert size("policy", lora={"rank": 4}) == 0


def test_a_measurement_is_remembered(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path))
    load = ModelLoad(str(tiny_model), **LOAD)
    first = plan_load(load, policy(tiny_model))

    def fail(*question: Any) -> tuple[int, int]:
        raise AssertionError("measured again")

    monkeypatch.setattr("rlaif_framework.models.memory_measure.measure_training", fail)
    assert first.activation_bytes > 0
    assert plan_load(load, policy(tiny_model)) == first
    assert plan_load(load, policy(tiny_model, train_tokens=64)).activation_bytes == 0  # not the same question


def test_a_pass_that_the_longest_prompts_leave_room_in_is_planned_full(tiny_model: Path) -> None:
    def activations(tokens: int) -> int:
        return plan_load(ModelLoad(str(tiny_model), **LOAD), policy(tiny_model, train_tokens=tokens)).activation_bytes

    assert activations(100) == pytest.approx(activations(64) * 100 / 64, rel=0.02)  # one prompt of 60 fits in either
    assert activations(1000) == activations(180)  # all three of them: there is nothing more to fill it with


STEPS = """
import ctypes, resource
from rlaif_framework.memory import keep_freed_memory, release_memory
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(8 << 20) for _ in range(12)]
    for block in blocks:
        libc.memset(block, 1, 8 << 20)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

%s
counts = [step() for _ in range(4)]
release_memory()
print(*counts, step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_a_step_frees_is_kept_for_the_next_until_it_is_released() -> None:
    def count_faults(before: str) -> list[int]:
        found = subprocess.run([sys.executable, "-c", STEPS % before], capture_output=True, text=True, check=True)
        return [int(count) for count in found.stdout.split()]

    first, *later, released = count_faults("keep_freed_memory()")
    assert first > 10_000  # of 24,576 pages
    assert max(later) < 100
    assert released > 10_000
    assert min(count_faults("")) > 5_000  # as it was


@pytest.mark.parametrize("family", memory_measure.EQUAL_LAYERS)
def test_two_small_models_tell_what_a_large_one_needs(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extrapolation over layers must be exact, for each architecture that it is used for."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokens: dict[str, int | None] = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "mistral":
        tokens["sliding_window"] = None  # a window depends on the contents of a batch, which fake tensors lack
    config = AutoConfig.for_model(family, num_hidden_layers=5, **tokens, **sizes)
    config.save_pretrained(tmp_path)
    source = ModelSource(family, str(tmp_path), "sha256:0")
    found = {}
    for families in ((family,), ()):
        monkeypatch.setattr(memory_measure, "EQUAL_LAYERS", families)
        settings = policy(tmp_path, lora={"rank": 2} if family != "gpt2" else None)
        found[families] = memory_measure.measure_training(source, True, settings, torch.float32, GROUPS, RESPONSES)
    assert found[(family,)] == found[()]
