"""Architectures give in every role what one forward pass for each prompt gives, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedConfig

from rlaif_framework import ModelError
from rlaif_framework.models import add_lora, load_model, probe
from rlaif_framework.models.decoding import FAMILIES
from rlaif_framework.models.layouts import Layout, layout_of
from rlaif_framework.models.positions import position_limit
from rlaif_framework.models.probe import check_head, check_trainable, find_layout
from rlaif_framework.models.tiny_copy import VOCABULARY, WINDOW, build_tiny, shrink_config
from rlaif_framework.spec.model import LoraSettings
from support.architectures import ARCHITECTURES, IN_CI, read_table, try_roles

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_an_architecture_gives_in_every_role_what_plain_forward_passes_give(name: str, tmp_path: Path) -> None:
    found = try_roles(name, tmp_path).row(name)
    assert found == read_table()[name], "run: PYTHONPATH=tests python -m support.architectures"


def test_the_page_lists_the_architectures_that_are_tested() -> None:
    assert set(read_table()) == set(ARCHITECTURES)
    assert set(IN_CI) <= set(ARCHITECTURES)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_shared_prompts_have_all_layouts(family: str) -> None:
    assert find_layout(AutoConfig.for_model(family), "causal", family) == Layout()


def test_a_tiny_copy_has_every_kind_of_layer_and_a_short_window() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = shrink_config(Gemma3TextConfig(num_hidden_layers=24, layer_types=kinds * 4, sliding_window=512))
    assert config.layer_types == kinds
    assert config.num_hidden_layers == 6
    assert config.sliding_window == WINDOW
    assert config.num_attention_heads // config.num_key_value_heads > 1


def test_an_architecture_that_cannot_be_copied_gets_the_plainest_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: PreTrainedConfig, few_layers: bool = True) -> PreTrainedConfig:
        raise KeyError("no such size")

    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "shrink_config", fail)
    config = LlamaConfig(
        vocab_size=211, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model", "causal", torch.float32, CPU)
    assert layout_of(model) == Layout(packed=False, prefixes=False, generation="equal")


def test_a_layout_is_tried_again_when_the_code_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path))
    for code, files in (("one", 1), ("one", 1), ("two", 2)):
        probe._probe.cache_clear()
        monkeypatch.setattr(probe, "hash_code", lambda module, code=code: f"{module} {code}")
        assert find_layout(AutoConfig.for_model("llama"), "causal", "llama") == Layout()
        assert len(list((tmp_path / "layouts").iterdir())) == files
    probe._probe.cache_clear()


def test_a_model_that_reads_later_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^'bert-base': models of type 'bert' are not causal language models"):
        find_layout(AutoConfig.for_model("bert"), "causal", "bert-base")


def test_a_model_that_is_random_in_training_is_not_trained() -> None:
    check_trainable(LlamaConfig(), "llama")
    with pytest.raises(ModelError, match="'phi-moe': models of type 'phimoe' choose their experts at random"):
        check_trainable(AutoConfig.for_model("phimoe"), "phi-moe")


def test_routers_that_return_more_than_a_tensor_have_no_adapters() -> None:
    config = shrink_config(AutoConfig.for_model("llama4_text"))
    model = build_tiny(config, cast(Any, AutoModelForCausalLM.from_config))
    wrapped = add_lora(model, LoraSettings(rank=2), "CAUSAL_LM")
    adapted = {name.split(".")[-1] for name, module in wrapped.named_modules() if hasattr(module, "lora_A")}
    assert {"q_proj", "down_proj"} <= adapted
    assert wrapped(input_ids=torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, VOCABULARY)


def test_a_reward_model_needs_an_architecture_with_a_scoring_head() -> None:
    check_head(LlamaConfig(), "llama")
    with pytest.raises(ModelError, match="'mamba-130m': transformers has no sequence classification model of type"):
        check_head(AutoConfig.for_model("mamba"), "mamba-130m")


def test_the_limit_of_positions_is_where_a_batch_would_change_the_positions_of_others() -> None:
    assert position_limit(AutoConfig.for_model("gpt2", n_positions=80)) == 80
    assert position_limit(AutoConfig.for_model("mpt", max_seq_len=96)) == 96
    assert position_limit(AutoConfig.for_model("xlm-roberta", max_position_embeddings=514, pad_token_id=1)) == 512
    assert position_limit(AutoConfig.for_model("bert", max_position_embeddings=512)) == 512
    assert position_limit(AutoConfig.for_model("mamba")) is None
    longrope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 96,
        "factor": 4.0,
    }
    config = AutoConfig.for_model(
        "phi3",
        hidden_size=32,
        num_attention_heads=4,
        max_position_embeddings=384,
        original_max_position_embeddings=96,
        rope_parameters=longrope,
    )
    assert position_limit(config) == 96
