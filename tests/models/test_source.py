"""A model folder is what transformers would load from it: no adapters, no second copies, no other format."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from rlaif_framework import ModelError
from rlaif_framework.models import find_model
from rlaif_framework.models.trust import source_settings


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def test_a_second_copy_of_the_weights_is_neither_counted_nor_part_of_the_identity(folder: Path) -> None:
    before = find_model(str(folder))
    weights = load_file(folder / "model.safetensors")
    save_file({f"layers.{name}": tensor for name, tensor in weights.items()}, folder / "consolidated.safetensors")
    shutil.copy(folder / "model.safetensors", folder / "model.fp16.safetensors")
    shutil.copy(folder / "model.safetensors", folder / "adapter_model.safetensors")
    found = find_model(str(folder))
    assert (found.identity, found.parameters, found.linear_width) == (
        before.identity,
        before.parameters,
        before.linear_width,
    )


def test_only_the_files_of_the_index_are_weights(folder: Path) -> None:
    whole = find_model(str(folder))
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    assert find_model(str(folder)).parameters == whole.parameters
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks b\.safetensors"):
        find_model(str(folder))
    index.write_text("[]")
    with pytest.raises(ModelError, match="is not an index of weights"):
        find_model(str(folder))


def test_names_of_files_need_not_be_utf8(folder: Path) -> None:
    before = find_model(str(folder)).identity
    (folder / os.fsdecode(b"tokenizer\xff.json")).write_text("{}")
    found = find_model(str(folder)).identity
    assert found != before
    (folder / os.fsdecode(b"tokenizer\xff.json")).rename(folder / os.fsdecode(b"tokenizer\xfe.json"))
    assert find_model(str(folder)).identity not in (found, before)


@pytest.mark.parametrize(
    "fields",
    [
        struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000,
        struct.pack("<IIQ", 9, 0, 2**62) + b"x" * 100,
        struct.pack("<IQ", 8, 2**64 - 1) + b"x" * 100,
        struct.pack("<I", 4),
    ],
    ids=["deep", "long array", "long text", "cut"],
)
def test_a_damaged_gguf_file_is_named(tmp_path: Path, fields: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 2**60, 2**60, 1) + b"k" + fields)
    with pytest.raises(ModelError, match=f"{path} is not a complete GGUF file: "):
        find_model(str(path))


@pytest.mark.parametrize("shape", [None, 3, "ab", ["a"], [2, None], [[2]], [-1, 4], [2.5], [1e400], {"a": 1}], ids=repr)
def test_weights_with_a_shape_that_is_none_are_damaged(tmp_path: Path, shape: object) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}).encode()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match="is not a complete safetensors file: the shape of 'w' is "):
        find_model(str(tmp_path))


def test_weights_of_another_format_are_not_taken_for_those_that_are_loaded(folder: Path) -> None:
    """The library would load pytorch_model.bin, and the key would hash the safetensors beside it."""
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(
        ModelError, match=r"needs config.json and model\.safetensors.*found consolidated.*pytorch_model"
    ):
        find_model(str(folder))


@pytest.mark.parametrize("has_config", [False, True])
def test_a_folder_of_adapters_is_told_for_what_it_is(folder: Path, has_config: bool) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="has adapters only, for the base model some/base; merge them with PEFT"):
        find_model(str(folder))


def test_adapters_that_transformers_would_apply_are_not_ignored(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    with pytest.raises(ModelError, match=r"has adapters .* beside a whole model"):
        find_model(str(folder))


def test_a_hub_model_is_loaded_at_the_commit_of_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, file: str, revision: str | None = None) -> str:
        return str(tmp_path / "snapshots" / "aaa" / file)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", find)
    source = find_model("owner/name")
    assert source.identity == "owner/name@aaa"
    assert source_settings(source)["revision"] == "aaa"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(sha="bbb"))
    assert source_settings(find_model("owner/name", "v1"))["revision"] == "bbb"


def test_a_gguf_file_may_be_a_link_to_a_file_without_a_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, blob = tmp_path / "snapshots" / "abc", tmp_path / "blobs" / "3f2a77"
    for path in (snapshot, blob.parent):
        path.mkdir(parents=True)
    blob.write_bytes(b"GGUF")
    (snapshot / "m.gguf").symlink_to(blob)
    monkeypatch.setattr("rlaif_framework.models.source.measure_gguf", lambda file: {"parameters": file.stat().st_size})
    for name in (snapshot, snapshot / "m.gguf"):
        found = find_model(str(name))
        assert found.is_gguf
        assert Path(found.location).read_bytes() == b"GGUF"
