"""Converted models in the cache are used as they are, and damaged ones are named."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace

import pytest

from rlaif_framework import ModelError
from rlaif_framework.models import gguf
from rlaif_framework.models.gguf import converted_folder, gguf_settings, materialise
from rlaif_framework.models.source import ModelSource
from rlaif_framework.terminal import escape_controls


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


@pytest.mark.parametrize("what", ["weights", "config"])
def test_of_two_that_need_a_model_one_converts_it_and_the_other_waits(
    what: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path))
    source = ModelSource("judge.gguf", "\x1b[31mjudge.gguf", "sha256:0123")
    made: list[Path] = []
    together, waits = Barrier(2), Event()

    def make(folder: Path) -> None:
        made.append(folder)
        assert waits.wait(60), "the other one does not wait"
        shutil.copytree(tiny_model, folder)

    def escape(text: str) -> str:
        waits.set()
        return escape_controls(text)

    def need(number: int) -> str:
        together.wait(60)
        return str(materialise(source) if what == "weights" else gguf_settings(source))

    config = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(save_pretrained=make))
    monkeypatch.setattr(gguf, "escape_controls", escape)
    monkeypatch.setattr(gguf, "_convert_gguf", lambda file, folder: make(folder))
    monkeypatch.setattr(gguf, "AutoConfig", config)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(need, range(2))
    assert first == second
    assert (Path(first) / "config.json").exists()
    assert len(made) == 1
    assert [path.name for path in Path(first).parent.iterdir()] == ["0123"], "a lock or a temporary folder was left"
    message = capsys.readouterr().err
    assert message.startswith("waiting: process ")
    assert "\x1b" not in message
