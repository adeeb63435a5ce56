"""Saved policies keep the precision in which they were trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlaif_framework import Context, ModelError, PluginManager, SftConfig, Spec
from rlaif_framework.training import fine_tune
from support.world import World


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"lora": None}, torch.float32),
        ({"lora": None, "save_dtype": "bf16"}, torch.bfloat16),
        ({"lora": {"rank": 2}}, torch.bfloat16),
        ({"lora": {"rank": 2}, "save_dtype": "fp32"}, torch.float32),
    ],
)
def test_weights_are_saved_in_the_precision_of_training(
    world: World, settings: dict[str, Any], saved: torch.dtype
) -> None:
    stage = world.stage("sft", **{"dtype": "bf16", **settings})
    demonstrations = [(world.prompts[0], "my dog")] * 4
    fine_tune(stage.context, stage, world.model, demonstrations, SftConfig(lr=1e-5, batch_size=2))
    weights = load_file(stage.folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {saved}
    if settings == {"lora": None}:  # the small updates are not rounded away
        before = load_file(world.model / "model.safetensors")
        name = "model.layers.0.self_attn.q_proj.weight"
        update = (weights[name] - before[name]).abs()
        assert 0 < update.max() < 1e-3
        assert not torch.equal(weights[name], weights[name].bfloat16().float())


def test_a_missing_chat_template_is_found_before_the_run(
    tiny_spec: Callable[..., Spec], tiny_model: Path, manager: PluginManager, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    policy = {"model": str(tiny_model), "chat": "template"}
    context = Context.from_spec(tiny_spec(policy=policy), manager)
    assert context.load_policy_tokenizer(tiny_model).chat_template
    with pytest.raises(ModelError, match=r"policy\.chat: the tokenizer of '.*' has no chat template; set 'chat: auto'"):
        context.load_policy_tokenizer(bare)
