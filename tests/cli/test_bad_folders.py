"""Folders that cannot be written, and full disks: one message, and the same command then resumes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Store
from support.outcomes import Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


def test_out_must_be_a_run_folder_an_empty_one_or_new(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for place in ("thesis", "file"):
        found = rlaif("run", spec(), "--out", tmp_path / place)
        refused(found, f"{tmp_path / place} exists and is not a run folder; choose another --out")
    assert files(tmp_path / "thesis") == {"chapter.tex"}
    assert files(Path()) == set()


def test_a_place_that_cannot_be_written_is_named(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    refused(rlaif("run", spec(), "--out", tmp_path / "file" / "out"), str(tmp_path / "file" / "out"), "Not a directory")
    refused(rlaif("run", spec("arms={}"), "--out", "out", "--store", tmp_path / "file"), str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(rlaif("run", spec(), "--out", tmp_path / "locked" / "out"), "Permission denied", "locked")


def test_no_permission_is_one_message(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    refused(rlaif("run", spec("arms={}"), "--out", "new/out"), "cannot use", "/new: Permission denied", "--out")


@pytest.mark.parametrize("where", ["commit", "save"])
def test_a_full_disk_is_one_message_and_the_same_command_then_goes_on(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        if where == "save":  # as safetensors words it
            raise RuntimeError("Error while serializing: IoError(Os { code: 28, message: No space left on device })")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    path = spec("arms={}")
    with monkeypatch.context() as patch:
        commit, save = "rlaif_framework.store.Store.commit", "rlaif_framework.training.policies.save_model"
        patch.setattr(commit if where == "commit" else save, full)
        refused(rlaif("run", path, "--out", "out"), "the disk is full", "free some space", "run the same command")
    assert not list(Path("runs/.store").glob("sft-*/artefact.json")), "a half-written artefact counts as whole"
    assert rlaif("run", path, "--out", "out").code == 0
    assert (Path("out") / "sft" / "model.safetensors").exists()


@pytest.mark.parametrize("free", [0, 4096, 8192, 100_000])
def test_a_disk_that_is_really_full(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, free: int
) -> None:
    """On a file system with little room, where the system lets a test mount one; later there is more."""
    small, size = tmp_path / "small", free + 4096
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system lets no test mount a file system")
    argv = ("run", spec("arms={}"), "--out", small / "out", "--store", small / "store")
    try:
        (small / "other").write_bytes(bytes(4096))
        refused(rlaif(*argv), "the disk is full")
        refused(rlaif(*argv), "the disk is full")
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        found = rlaif(*argv)
        assert found.code == 0, found.err
        assert (small / "out" / "sft" / "model.safetensors").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_records_that_were_broken_off_are_no_reason_to_stop(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash of the machine can leave them."""
    path = spec("arms={}")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", lambda *rest: sys.exit(1))
        assert rlaif("run", path, "--out", "out").code == 2
    (spent,) = Path("runs/.store").glob("sft-*.partial/checkpoint/seconds.json")
    for record in (spent, Path("out/run.json")):
        assert record.read_text()
        record.write_text("")
    assert rlaif("run", path, "--out", "out").code == 0


def test_a_current_folder_that_was_deleted_is_named(
    rlaif: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(rlaif("components"), "the current folder has been deleted; change to another one")


def test_a_missing_file_of_certificates_is_named(
    rlaif: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "responses": ["a", "b"]}')
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    backend = "backend={kind: openai, model: x, base_urls: 'https://127.0.0.1:9/v1'}"
    found = rlaif("label", tmp_path / "pairs.jsonl", "--labeler", "llm", "--set", backend, "--out", "labels.jsonl")
    refused(found, "the variable SSL_CERT_FILE names /nowhere, which does not exist; correct or unset it")
