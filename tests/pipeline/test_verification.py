"""What rewards and algorithms of plugins save and return is checked before it is committed and reused."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import PluginManager, RlaifError, Spec, Store
from rlaif_framework.contracts import read_metrics
from rlaif_framework.plugins.discovery import Plugin
from support.runs import execute

CODE = '''
import json, shutil
from pathlib import Path
import numpy, torch
from safetensors.torch import load_file, save_file
from rlaif_framework import AlgorithmConfig, Component, RewardConfig, hookimpl

FAULT = ""

class FoolConfig(AlgorithmConfig):
    """Copies the policy, and damages the copy."""

class FoolRewardConfig(RewardConfig):
    """Saves a number."""

class Fool:
    def __init__(self, config, context): pass

    def improve(self, initial, guidance, prompts, stage):
        stage.log(1, {"reward": torch.tensor(0.5), "kl": numpy.float32(0.25)})
        if FAULT == "nothing":
            return
        shutil.copytree(initial, stage.folder, dirs_exist_ok=True)
        weights = stage.folder / "model.safetensors"
        if FAULT == "config":
            (stage.folder / "config.json").write_text("garbage")
        elif FAULT == "tokenizer":
            [file.unlink() for file in stage.folder.glob("tokenizer*")]
        elif FAULT == "nan":
            tensors = load_file(weights)
            next(iter(tensors.values())).view(-1)[3] = float("nan")
            save_file(tensors, weights, metadata={"format": "pt"})
        elif FAULT == "half":
            weights.write_bytes(weights.read_bytes()[:5000])

class FoolReward:
    def __init__(self, config, context): pass

    def fit(self, labels, initial, stage):
        if FAULT == "weights":
            save_file({"w": torch.tensor([float("inf")])}, stage.folder / "w.safetensors")
        elif FAULT != "number":
            (stage.folder / "number.json").write_text("0.5")

    def load(self, folder):
        self.number = json.loads((folder / "number.json").read_text())
        return None if FAULT == "none" else self

    def score(self, prompts, responses):
        return numpy.full(len(responses), self.number, dtype=numpy.float32)

@hookimpl
def rlaif_algorithms():
    return [Component("acme/fool", FoolConfig, "rlaif_acme:Fool")]

@hookimpl
def rlaif_reward_models():
    return [Component("acme/fool", FoolRewardConfig, "rlaif_acme:FoolReward")]
'''


@pytest.fixture
def acme(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module, in which a test sets the fault."""
    module = types.ModuleType("rlaif_acme")
    monkeypatch.setitem(sys.modules, "rlaif_acme", module)
    exec(CODE, vars(module))
    plugin = Plugin("acme", "rlaif-acme", "1.2", module=module)
    manager.add(plugin)
    assert plugin.error is None
    return module


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing", "has no config.json with model.safetensors"),
        ("config", "config.json is not valid JSON"),
        ("tokenizer", "has no tokenizer"),
        ("nan", "have weights that are not finite"),
        ("half", "is not a complete safetensors file"),
    ],
)
def test_a_policy_that_cannot_be_used_is_not_committed_and_mended_code_computes_it_again(
    acme: Any, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, fault: str, message: str
) -> None:
    spec = tiny_spec(sft=None, evaluate=None, arms={"a": {"reward": "test/taste", "algorithm": "acme/fool"}})
    store, acme.FAULT = tmp_path / "store", fault
    with pytest.raises(RlaifError) as caught:
        execute(spec, tmp_path / "run", manager, store)
    assert str(caught.value).startswith("a/policy: algorithm 'acme/fool' of rlaif-acme 1.2: ")
    assert message in str(caught.value)
    assert not list(store.glob("improve-*/artefact.json"))
    acme.FAULT = ""
    run = execute(spec, tmp_path / "run", manager, store)
    assert run.reused == {"sft": True, "a/reward": True, "a/policy": False}
    assert read_metrics(tmp_path / "run/a/policy") == [{"step": 1, "reward": 0.5, "kl": 0.25}]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("weights", "w.safetensors: w and 0 more tensors have weights that are not finite"),
        ("number", "load() failed: FileNotFoundError"),
        ("none", "load() returned None, which has no method score()"),
    ],
)
def test_a_reward_that_cannot_be_loaded_is_not_committed(
    acme: Any, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, fault: str, message: str
) -> None:
    algorithm = {"kind": "reinforce", "steps": 1, "prompts_per_step": 2, "responses_per_prompt": 2}
    spec = tiny_spec(sft=None, evaluate=None, arms={"a": {"reward": "acme/fool", "algorithm": algorithm}})
    store, acme.FAULT = tmp_path / "store", fault
    with pytest.raises(RlaifError) as caught:
        execute(spec, tmp_path / "run", manager, store)
    assert str(caught.value).startswith("a/reward: reward 'acme/fool' of rlaif-acme 1.2: ")
    assert message in str(caught.value)
    assert not list(store.glob("reward-*/artefact.json"))
    acme.FAULT = ""
    run = execute(spec, tmp_path / "run", manager, store)
    assert Store(store).manifest("reward", run.steps[1].key).stage == "reward"
    assert read_metrics(tmp_path / "run/a/policy")[0]["reward"] == 0.5
