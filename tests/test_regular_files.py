"""Only regular files are read."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import DataError, ModelError, SpecError
from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.data.row_files import read_row_file
from rlaif_framework.files import open_regular, read_regular
from rlaif_framework.models import find_model
from rlaif_framework.pipeline.run_folder import check_folder
from rlaif_framework.records.jsonl import read_lines

KINDS = {"pipe": "a pipe", "device": "a device", "socket": "a socket", "folder": "a folder"}

MakeSpecial = Callable[[Path], Path]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSpecial]:
    """Make a special file with a given name."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with closing(socket.socket(socket.AF_UNIX)) as server:

        def make_it(path: Path) -> Path:
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "device":
                path.symlink_to("/dev/zero")
            elif kind == "socket":
                server.bind(os.path.relpath(path))
            else:
                path.mkdir()
            return path

        yield make_it


def test_special_files_are_not_opened(make: MakeSpecial, kind: str, tmp_path: Path) -> None:
    path = make(tmp_path / "x")
    with pytest.raises(OSError, match=f"it is {KINDS[kind]}, not a regular file"):
        open_regular(path)


@pytest.mark.parametrize("suffix", [".yaml", ".toml", ".json", ""])
def test_specs_and_prompts_are_regular_files(make: MakeSpecial, kind: str, tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"x{suffix}")
    with pytest.raises(SpecError, match=f"cannot read .*it is {KINDS[kind]}"):
        read_mapping(path, "spec", SpecError)
    with pytest.raises(DataError, match=f"cannot read .*it is {KINDS[kind]}"):
        AnnotatorPrompts.load(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".parquet"])
def test_data_are_regular_files(make: MakeSpecial, tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"x{suffix}")
    with pytest.raises(DataError, match="not a"):
        list(read_row_file(path))
    with pytest.raises(DataError, match="not a regular file"):
        list(read_lines(path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "special_tokens_map.json", "x.gguf"])
def test_models_are_regular_files(make: MakeSpecial, kind: str, tmp_path: Path, tiny_model: Path, name: str) -> None:
    if kind == "folder":
        return
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(ModelError, match=r"cannot read the model file .*not a regular file"):
        find_model(str(folder))
    with pytest.raises(ModelError):
        find_model(str(folder / name))


@pytest.mark.parametrize("name", ["sub/x.safetensors", "additional_chat_templates/x.jinja", "sub/x.py"])
def test_files_in_the_folders_of_a_model_are_regular(
    make: MakeSpecial, kind: str, tmp_path: Path, tiny_model: Path, name: str
) -> None:
    if kind == "folder":
        return
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / name).parent.mkdir()
    make(folder / name)
    if name.endswith(".safetensors"):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=rf"cannot read the model file .*{name}: it is {KINDS[kind]}, not a regular"):
        find_model(str(folder), trust_remote_code=True)


@pytest.mark.parametrize("name", ["/dev/zero", "../x.safetensors", "sub/../../x.safetensors"])
def test_an_index_of_weights_names_files_in_the_folder(tmp_path: Path, tiny_model: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(tmp_path / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=f"is not an index of weights: '{name}' is not a file in the folder"):
        find_model(str(folder))


def test_the_record_of_a_run_is_a_regular_file(make: MakeSpecial, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "run.json")
    with pytest.raises(SpecError, match=r"run\.json(: it is a| is a link)"):
        check_folder(tmp_path / "out")


def test_a_device_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="a device"):
        open_regular(Path("/dev/null"))


def test_links_to_regular_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "link", 4)
