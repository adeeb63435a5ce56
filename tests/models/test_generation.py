"""Generation with shared beginnings equals transformers' own, token by token."""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from rlaif_framework import ModelError
from rlaif_framework.models import add_lora, decoder
from rlaif_framework.models.adapters import merged_adapters, save_model
from rlaif_framework.models.decoder import Sampling, can_capture, capture, sample_tokens
from rlaif_framework.models.decoding import FAMILIES, can_share_prefixes, generate_padded, generate_shared
from rlaif_framework.models.prefixes import compute_prefix, forward_groups, share_prefixes
from rlaif_framework.spec.model import LoraSettings

VOCABULARY = 97
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def small_model(family: str, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **({"sliding_window": None} if family == "mistral" else {}),
        **settings,
    )
    return AutoModelForCausalLM.from_config(config).eval().to(DEVICE)


def prompts(seed: int = 0) -> list[list[int]]:
    """Texts with a common beginning, pairs that part late, and repetitions."""
    draw = random.Random(seed)
    texts = [[draw.randrange(3, VOCABULARY) for _ in range(draw.randrange(2, 40))] for _ in range(5)]
    start = [draw.randrange(3, VOCABULARY) for _ in range(20)]
    shared = [start + text for text in texts]
    return [*shared, *([*s, 5, 6, 7] for s in shared[:3]), shared[0], shared[0]]


def greedy(model: Any, ids: Sequence[int], count: int) -> list[int]:
    settings = GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=2)
    output = model.generate(torch.tensor([list(ids)], device=DEVICE), generation_config=settings)
    new: list[int] = output[0, len(ids) :].tolist()
    return new[: new.index(2) + 1] if 2 in new else new


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_equal_those_of_transformers(family: str) -> None:
    model = small_model(family)
    assert can_share_prefixes(model)
    texts = prompts()
    found = generate_shared(model, texts, Sampling(12, 0.0), range(len(texts)), [2], 0, budget=300)
    assert found == [greedy(model, text, 12) for text in texts]


def test_models_with_sliding_windows_are_left_to_transformers() -> None:
    model = small_model("mistral")
    model.config.sliding_window = 8
    assert not can_share_prefixes(model)
    texts = prompts()
    found = generate_padded(model, texts, Sampling(6, 0.0), range(len(texts)), [2], 0, budget=200)
    assert found == [greedy(model, text, 6) for text in texts]


def test_a_models_own_generation_settings_change_no_sample() -> None:
    """Log-probabilities are taken of the plain distribution: a repetition penalty would make the samples another's."""
    model, texts = small_model("mistral"), prompts()
    plain = generate_padded(model, texts, Sampling(12, 0.0), range(len(texts)), [2], 0, budget=200)
    own = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=1)
    model.generation_config = own
    assert generate_padded(model, texts, Sampling(12, 0.0), range(len(texts)), [2], 0, budget=200) == plain
    assert any(len(set(row)) < len(row) for row in plain), "nothing repeats: the test shows nothing"
    assert model.generation_config is own


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, texts = small_model("llama"), prompts()
    sampling = Sampling(10, 0.8, top_k=20)
    seeds = [100 + i for i in range(len(texts))]
    together = generate_shared(model, texts, sampling, seeds, [2], 0, budget=4000)
    assert generate_shared(model, texts, sampling, seeds, [2], 0, budget=100) == together
    for text, seed, expected in zip(texts, seeds, together, strict=True):
        assert generate_shared(model, [text], sampling, [seed], [2], 0, budget=4000) == [expected]
    assert together[0] != together[-1]  # one prompt, two seeds


def test_rows_that_end_early_leave_and_the_others_go_on_unchanged() -> None:
    model, texts = small_model("llama"), prompts()
    free = [greedy(model, text, 30) for text in texts]
    stops = sorted({text[3] for text in free[::2] if len(text) > 3})
    found = generate_shared(model, texts, Sampling(30, 0.0), range(len(texts)), stops, 0, budget=4000)
    for text, new in zip(texts, found, strict=True):
        whole = greedy_without_end(model, text, 30)
        end = next((i for i, token in enumerate(whole) if token in stops), len(whole) - 1)
        assert new == whole[: end + 1]


def test_of_several_samples_to_a_prompt_those_that_end_leave_and_the_others_go_on_unchanged() -> None:
    model = small_model("llama")
    texts = [text for text in prompts()[:3] for _ in range(6)]
    sampling, stops = Sampling(30, 1.5), list(range(0, VOCABULARY, 8))
    free = generate_shared(model, texts, sampling, range(len(texts)), [], 0, budget=4000)
    expected = [text[: next((i for i, t in enumerate(text) if t in stops), len(text)) + 1] for text in free]
    assert len(set(map(len, expected))) > 6
    assert generate_shared(model, texts, sampling, range(len(texts)), stops, 0, budget=4000) == expected


WAITING = {"_local_scalar_dense", "nonzero", "unique", "masked_select"}
"""Operations whose result a GPU has to be waited for: no recording may hold them."""


class Recorder(TorchDispatchMode):
    """Keeps every operation, to do them once more on the very tensors that they used."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def repeat(self, wanted: torch.Tensor) -> torch.Tensor:
        """Do all operations again and return what has become of a result."""
        made: dict[int, Any] = {}

        def renew(value: Any) -> Any:
            return made.get(id(value), value)

        for func, args, kwargs, before in self.calls:
            after = func(*tree_map(renew, args), **tree_map(renew, kwargs))
            made |= {id(old): new for old, new in zip(tree_leaves(before), tree_leaves(after), strict=True)}
        return made[id(wanted)]


def trace(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """As `capture`, without a GPU: the operations of `work` and no Python of it."""
    with Recorder() as recorder:
        result = work()
    called = " ".join(str(func) for func, *_ in recorder.calls)
    assert "index_copy_" in called
    assert not any(name in called for name in WAITING)
    return lambda: recorder.repeat(result)


@pytest.mark.parametrize(("family", "cast"), [*((family, False) for family in FAMILIES), ("llama", True)])
def test_recorded_steps_choose_the_same_tokens(family: str, cast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(family)
    texts = [text for text in prompts()[:3] for _ in range(4)]
    sampling, stops = Sampling(30, 1.5), list(range(0, VOCABULARY, 8))

    def generate(recorded: bool) -> list[list[int]]:
        monkeypatch.setattr(decoder, "can_capture", lambda model: recorded)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=cast):
            return generate_shared(model, texts, sampling, range(len(texts)), stops, 0, budget=4000)

    expected = generate(False)
    recordings = []

    def counting(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        recordings.append((capture if DEVICE.type == "cuda" else trace)(work))
        return recordings[-1]

    monkeypatch.setattr(decoder, "capture", counting)
    monkeypatch.setattr(decoder, "CACHE_BLOCK", 8)
    assert generate(True) == expected
    assert 1 < len(recordings) < max(map(len, expected)) / 2  # anew where the reach has grown or rows have ended


def test_rotations_that_depend_on_the_length_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    models = small_model("llama"), small_model("llama", rope_parameters=dynamic)
    for model in models:
        monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    assert [can_capture(model) for model in models] == [True, False]


def greedy_without_end(model: Any, ids: Sequence[int], count: int) -> list[int]:
    settings = GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None)
    return list(
        model.generate(torch.tensor([list(ids)], device=DEVICE), generation_config=settings)[0, len(ids) :].tolist()
    )


def test_sampled_tokens_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniforms = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    chosen = sample_tokens(logits.expand(20000, -1), Sampling(1, 0.7), uniforms)
    expected = (logits[0] / 0.7).softmax(0)
    shares = torch.bincount(chosen, minlength=4) / 20000
    assert torch.allclose(shares, expected, atol=1e-3)
    top = sample_tokens(logits.expand(20000, -1), Sampling(1, 0.7, top_k=2), uniforms)
    assert set(top.tolist()) == {1, 2}


def test_logits_with_shared_beginnings_equal_those_of_single_texts() -> None:
    model, texts = small_model("qwen2"), prompts()
    branches = share_prefixes(texts)
    assert len(branches.prefix) == 20
    assert branches.tokens < sum(map(len, texts)) / 1.5
    logits, _ = forward_groups(model, branches.groups, compute_prefix(model, branches.prefix), 0)
    owners = [owner for members in branches.members for owner in members]
    for row, same in zip(logits, owners, strict=True):
        for index in same:
            alone = model(torch.tensor([texts[index]], device=DEVICE)).logits[0, -1]
            assert torch.allclose(row, alone, atol=1e-5)


def test_branches_hold_every_sequence_once() -> None:
    texts = [*prompts(), [9], [9, 9], *prompts(3)]
    branches = share_prefixes(texts)
    seen = {}
    for group, members in zip(branches.groups, branches.members, strict=True):
        for branch, owners in zip(group.responses, members, strict=True):
            for owner in owners:
                seen[owner] = branches.prefix + group.prompt + branch
    assert seen == dict(enumerate(texts))


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # GPT-2's linear modules are transposed
def test_merged_adapters_generate_what_adapters_do_and_leave_no_trace(family: str) -> None:
    model = small_model(family)
    wrapped = add_lora(model, LoraSettings(rank=4), "CAUSAL_LM").eval()
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    ids = torch.tensor([prompts()[0]], device=DEVICE)
    with torch.no_grad():
        expected = wrapped(ids).logits
        with merged_adapters(wrapped) as plain:
            assert torch.allclose(plain(ids).logits, expected, atol=2e-3)
        after = wrapped.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert torch.equal(wrapped(ids).logits, expected)


def test_a_tied_head_is_no_target_of_adapters() -> None:
    lora = LoraSettings(rank=4, targets=["q_proj", "lm_head"])
    with pytest.raises(ModelError, match="'lm_head' shares its weights with another module"):
        add_lora(small_model("llama", tie_word_embeddings=True), lora, "CAUSAL_LM")
    assert add_lora(small_model("llama", tie_word_embeddings=False), lora, "CAUSAL_LM") is not None


@pytest.mark.parametrize("head", ["CAUSAL_LM", "SEQ_CLS"])
def test_saved_weights_are_those_that_peft_merges_in_fp32(
    head: Literal["CAUSAL_LM", "SEQ_CLS"], tmp_path: Path
) -> None:
    kind = AutoModelForCausalLM if head == "CAUSAL_LM" else AutoModelForSequenceClassification

    def adapted() -> Any:
        config = small_model("llama").config
        torch.manual_seed(1)
        model = add_lora(kind.from_config(config, dtype=torch.bfloat16), LoraSettings(rank=4), head)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    expected = adapted().float().merge_and_unload().bfloat16().state_dict()
    tokenizer: Any = types.SimpleNamespace(save_pretrained=lambda folder: None)
    save_model(adapted(), tokenizer, tmp_path, torch.bfloat16)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() <= expected.keys()
    assert expected.keys() - saved.keys() <= {"lm_head.weight"}
    assert all(torch.equal(value, expected[name]) for name, value in saved.items())
