"""Converted models in the cache are used as they are, and damaged ones are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlaif_framework import ModelError
from rlaif_framework.models.gguf import converted_folder, materialise
from rlaif_framework.models.source import ModelSource


def test_a_damaged_conversion_is_named_with_what_to_do(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path))
    source = ModelSource("judge.gguf", "judge.gguf", "sha256:0123")
    folder = converted_folder(source)
    shutil.copytree(tiny_model, folder)
    assert materialise(source) == str(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match=f"{folder} is damaged: .*; delete it, and rerun to convert judge.gguf again"):
        materialise(source)
