"""Code of models runs only if the user trusts it, and weights come from safetensors only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlaif_framework import Context, ModelError, PluginManager, Spec
from rlaif_framework.assembly.preflight import check_models
from rlaif_framework.models import find_model, load_model, load_tokenizer
from rlaif_framework.models.loading import load_config
from rlaif_framework.models.memory_plan import plan_load
from rlaif_framework.pipeline.planning import plan_spec
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.store import Store
from support.own_code import save_own_code
from support.runs import execute

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> str:
        raise AssertionError("a question was asked on stdin")

    monkeypatch.setattr("builtins.input", refuse)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path, mark: Path) -> Path:
    return save_own_code(tiny_model, tmp_path / "own", mark)


def test_code_of_a_model_does_not_run_unless_it_is_trusted(folder: Path, mark: Path) -> None:
    for load in (
        lambda: load_model(folder, "causal", torch.float32, CPU),
        lambda: load_model(folder, "score", torch.float32, CPU, num_labels=1),
        lambda: load_model(folder, "plain", torch.float32, CPU),
        lambda: load_config(find_model(str(folder))),
    ):
        with pytest.raises(ModelError, match="trust_remote_code: true"):
            load()
    assert not mark.exists()


def test_code_of_a_tokenizer_does_not_run_unless_it_is_trusted(tiny_model: Path, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenization_own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with suppress(ModelError):  # or else transformers reads tokenizer.json without the code
        load_tokenizer(folder)
    assert not mark.exists()


def test_trusted_code_runs_and_is_part_of_the_identity(folder: Path, mark: Path) -> None:
    source = find_model(str(folder), trust_remote_code=True)
    model = load_model(source, "causal", torch.float32, CPU)
    assert type(model).__name__ == "OwnForCausalLM"
    assert mark.exists()
    assert source.identity != find_model(str(folder)).identity
    (folder / "modeling_own.py").write_text((folder / "modeling_own.py").read_text() + "\n# other code\n")
    assert find_model(str(folder), trust_remote_code=True).identity != source.identity


def test_trusted_code_must_be_among_the_files_of_the_model(folder: Path, mark: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "stranger/code--configuration_own.OwnConfig"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="code in another repository, stranger/code"):
        load_config(find_model(str(folder), trust_remote_code=True))
    assert not mark.exists()


def test_a_trusted_policy_is_planned_trained_and_loaded_again(
    folder: Path, mark: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    policy = {"model": str(folder), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 8, "chat": "plain"}
    evaluate = {"judge": "length", "prompts": 2}
    changes: dict[str, Any] = {"arms": {}, "evaluate": evaluate, "sft": {"limit": 2, "batch_size": 2}}
    spec = tiny_spec(policy=policy, **changes)
    with pytest.raises(ModelError, match="trust_remote_code: true"):
        execute(spec, tmp_path / "refused", manager)
    assert not mark.exists()
    trusted = tiny_spec(policy={**policy, "trust_remote_code": True}, **changes)
    planned = plan_spec(trusted, Store(tmp_path / "store"), manager)
    assert [load.trust_remote_code for step in planned if step.name == "sft" for load in step.loads] == [True]
    run = execute(trusted, tmp_path / "run", manager)
    assert run.steps[0].key != plan_spec(spec, Store(tmp_path / "store"), manager)[0].key
    assert (tmp_path / "run/sft/modeling_own.py").exists()


def test_a_plan_names_models_that_run_their_code(
    folder: Path, tiny_model: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    context = Context.from_spec(tiny_spec(), manager)
    load = ModelLoad(str(folder), "backend", trust_remote_code=True)
    assert context.find_loaded(load).trusted
    assert plan_load(load, context.policy).trust_remote_code
    assert not plan_load(ModelLoad(str(tiny_model), "policy"), context.policy).trust_remote_code
    with pytest.raises(ModelError, match="trust_remote_code: true"):
        check_models(context, [ModelLoad(str(save_broken_tokenizer(folder)), "backend")])


def save_broken_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    settings = {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_attention_from_elsewhere_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "stranger/attention"}))
    with pytest.raises(ModelError, match="attention code from 'stranger/attention'"):
        load_model(folder, "causal", torch.float32, CPU)
    with pytest.raises(ModelError, match="attention code from 'stranger/attention'"):
        load_config(find_model(str(folder)))


@pytest.mark.parametrize("file", ["other.safetensors", "adapter_model.bin", "../model.safetensors"])
def test_a_config_cannot_name_other_weights_than_those_of_the_key(tiny_model: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": file}))
    with pytest.raises(ModelError, match=r"its config\.json names the weights"):
        load_model(folder, "causal", torch.float32, CPU)
    with pytest.raises(ModelError, match=r"its config\.json names the weights"):
        load_config(find_model(str(folder)))


def test_weights_that_can_run_code_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    expected = load_model(tiny_model, "causal", torch.float32, CPU)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    loaded = load_model(folder, "causal", torch.float32, CPU)
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"found pytorch_model\.bin, but only safetensors are loaded.*save_pretrained"):
        find_model(str(folder))


def test_the_way_to_convert_weights_works(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
    assert find_model(str(folder)).parameters == find_model(str(tiny_model)).parameters
