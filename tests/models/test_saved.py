"""A saved model is checked without loading it: files, names of weights, and that they are finite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlaif_framework import ModelError
from rlaif_framework.models import load_model, saved
from rlaif_framework.models.saved import check_finite, check_saved_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(folder: Path, weights: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **weights}, file, metadata={"format": "pt"})


def test_a_complete_model_passes(folder: Path) -> None:
    check_saved_model(folder, "causal")
    check_finite(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_weight_that_is_not_finite_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(saved, "CHUNK", 7)
    weight = torch.zeros(3, 8, dtype=dtype)
    weight[2, 5] = value
    save_file({"a": torch.zeros(2), "b": weight}, folder / "extra.safetensors")
    with pytest.raises(ModelError, match=r"extra\.safetensors: b and 0 more tensors have weights that are not finite"):
        check_finite(folder)


def test_integers_and_large_values_are_finite(folder: Path) -> None:
    save_file({"a": torch.full((4,), 6e4, dtype=torch.float16), "b": torch.arange(3)}, folder / "extra.safetensors")
    check_finite(folder)


def test_files_below_the_folder_are_looked_at_and_damaged_ones_named(folder: Path) -> None:
    (folder / "member-1").mkdir()
    (folder / "member-1" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"member-1/model\.safetensors is not a complete safetensors file"):
        check_finite(folder)


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def remove(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: remove(folder, "*"), "has no config.json with model.safetensors"),
        (lambda folder: remove(folder, "model.safetensors"), "has no config.json with model.safetensors"),
        (lambda folder: remove(folder, "tokenizer*"), "has no tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "is not a causal model"),
        (lambda folder: edit_config(folder, model_type="nonsense"), "is not a causal model"),
        (lambda folder: edit_config(folder, hidden_size="wide"), "is not a causal model"),
        (lambda folder: edit_config(folder, num_hidden_layers=3), "has no weights for model.layers.2"),
        (lambda folder: edit_config(folder, hidden_size=64), "is not a causal model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is not a complete safetensors file"),
    ],
)
def test_what_is_missing_or_does_not_match_is_named(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message):
        check_saved_model(folder, "causal")


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [("score.weight", "score.weight"), ("model.layers.1.", "model.layers.1.")],
    ids=["head", "layer"],
)
def test_a_reward_model_without_some_of_its_weights_is_refused(
    tiny_model: Path, tmp_path: Path, dropped: str, missing: str
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    model.save_pretrained(tmp_path / "reward")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "reward")
    load_model(tmp_path / "reward", "score", torch.float32, torch.device("cpu"))
    path = tmp_path / "reward" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(dropped)}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(ModelError, match=f"has no weights for {missing}"):
        load_model(tmp_path / "reward", "score", torch.float32, torch.device("cpu"))


def test_a_language_model_without_a_layer_starts_no_reward_model(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    load_model(tmp_path / "model", "score", torch.float32, torch.device("cpu"))
    path = tmp_path / "model" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("model.layers.1.")}
    save_file(kept, path, {"format": "pt"})
    for kind in ("score", "plain"):
        with pytest.raises(ModelError, match="has no weights for"):
            load_model(tmp_path / "model", kind, torch.float32, torch.device("cpu"))
