"""The store of artefacts: complete or absent, never computed twice."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from rlaif_framework import DataError, RlaifError, Store
from rlaif_framework import store as store_module
from rlaif_framework.files import atomic_path, remove_leftovers, remove_lock
from rlaif_framework.store import MANIFEST, hash_content, link_tree
from support.rows import KEY, make_manifest


def fill(store: Store, key: str = KEY, text: str = "weights") -> Path:
    """Make one artefact."""
    work, checkpoint = store.begin("sft", key)
    (work / "model.bin").write_text(text)
    (work / "nested").mkdir(exist_ok=True)
    (work / "nested" / "log.txt").write_text("log")
    (checkpoint / "step.json").write_text("3")
    return store.commit("sft", key, make_manifest("sft", key))


def test_equal_content_has_equal_keys_whatever_its_order_and_other_content_another() -> None:
    assert hash_content({"a": 1, "b": [1, 2]}) == hash_content({"b": [1, 2], "a": 1})
    assert hash_content({"a": 1}) != hash_content({"a": 2}) != hash_content({"a": "1"})
    assert hash_content([1, 2]) != hash_content([2, 1])
    assert hash_content({"a": "é"}) == hash_content({"a": "\u00e9"})


def test_an_artefact_is_there_only_once_it_is_committed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.has("sft", KEY)
    work, checkpoint = store.begin("sft", KEY)
    (work / "model.bin").write_text("half")
    assert not store.has("sft", KEY)
    assert not store.path("sft", KEY).exists()
    assert checkpoint.is_dir()
    final = fill(store)
    assert store.has("sft", KEY)
    assert (final / "model.bin").read_text() == "weights"
    manifest = store.manifest("sft", KEY)
    assert (manifest.seconds, manifest.facts) == (1.5, {"note": "é"})
    assert sorted(p.name for p in store.root.iterdir()) == [final.name], "checkpoints were left behind"


def test_a_commit_that_fails_leaves_no_artefact_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def full(*args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        work, _ = store.begin("sft", KEY)
        (work / "model.bin").write_bytes(b"weights")
        with pytest.raises(OSError, match="No space left"):
            store.commit("sft", KEY, {})
    assert not store.has("sft", KEY)
    assert not store.path("sft", KEY).exists()
    assert (fill(store) / MANIFEST).exists()


def test_artefacts_of_other_stages_and_keys_are_other_folders(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = hash_content({"a": 2})
    assert len({store.path("sft", KEY), store.path("sft", other), store.path("label", KEY)}) == 3
    fill(store)
    assert not store.has("label", KEY)
    assert not store.has("sft", other)


def test_a_run_folder_shares_the_files_of_the_store_and_replaces_an_earlier_artefact(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    source, target = fill(store), tmp_path / "run" / "arm" / "policy"
    link_tree(source, target)
    assert (target / "nested" / "log.txt").read_text() == "log"
    assert (target / "model.bin").stat().st_ino == (source / "model.bin").stat().st_ino, "weights were copied"
    other = fill(store, hash_content({"a": 2}), "other weights")
    (other / "nested" / "log.txt").unlink()
    link_tree(other, target)
    assert (target / "model.bin").read_text() == "other weights"
    assert not (target / "nested" / "log.txt").exists(), "a file of the earlier artefact was left"
    assert (source / "model.bin").read_text() == "weights"
    assert [p.name for p in target.parent.iterdir()] == ["policy"], "a temporary folder was left"


def test_a_kill_while_an_artefact_is_replaced_leaves_no_part_of_it_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, target = Store(tmp_path / "store"), tmp_path / "run" / "policy"
    source = fill(store)
    link_tree(source, target)

    def kill(folder: Path, **options: Any) -> None:
        if folder.exists():
            (folder / MANIFEST).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            link_tree(source, target)
    assert not target.exists() or (target / MANIFEST).exists()
    remove_leftovers(target.parent)
    link_tree(source, target)
    assert [p.name for p in target.parent.iterdir()] == ["policy"]


def test_where_there_are_no_hard_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "link", refuse)
    source = fill(Store(tmp_path / "store"))
    link_tree(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "model.bin").read_text() == "weights"
    assert (tmp_path / "copy" / "model.bin").stat().st_ino != (source / "model.bin").stat().st_ino


def test_a_copy_that_fails_leaves_the_earlier_artefact_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    target = tmp_path / "policy"
    link_tree(fill(store), target)
    other = fill(store, hash_content({"a": 2}), "other weights")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(OSError, match="No space left"):
        link_tree(other, target)
    assert (target / "model.bin").read_text() == "weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["policy", "store"]


def test_an_artefact_that_was_changed_is_named_and_one_that_was_not_is_fine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = fill(store)
    store.check("sft", KEY)
    remedy = f"delete the folder {folder} and rerun"
    (folder / "model.bin").write_text("weightz")
    with pytest.raises(DataError, match=f"{folder / 'model.bin'} is damaged: it has changed .*; {remedy}"):
        store.check("sft", KEY)
    (folder / "model.bin").unlink()
    with pytest.raises(DataError, match=f"{folder / 'model.bin'} is missing; {remedy}"):
        store.check("sft", KEY)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=f"{folder / MANIFEST} is damaged: .*; {remedy}"):
        store.manifest("sft", KEY)


def test_large_files_are_checked_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif_framework.store.HASHED_BYTES", 4)
    store = Store(tmp_path)
    (fill(store) / "model.bin").write_text("weight")
    with pytest.raises(DataError, match=r"model\.bin is damaged"):
        store.check("sft", KEY)


def test_checkpoints_that_nobody_resumes_from_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished = fill(store)
    finished.with_suffix(".partial").mkdir()  # the process was killed while it deleted the checkpoints
    keys = [hash_content(number) for number in range(2)]
    abandoned, resumable = (store.begin("sft", key)[0].parent for key in keys)
    for path in (*abandoned.rglob("*"), abandoned):
        os.utime(path, (0, 0))
    download = tmp_path / "film.partial"  # of another program, where the user chose such a folder
    download.mkdir()
    os.utime(download, (0, 0))
    stale = tmp_path / f".{finished.name}.lock"
    stale.touch()
    with store.lock("label", KEY, print):
        store.remove_leftovers()
        held = f".{store.path('label', KEY).name}.lock"
        assert {path.name for path in tmp_path.iterdir()} == {finished.name, resumable.name, "film.partial", held}


@pytest.mark.parametrize("inside", ["", "work", "checkpoint"])
def test_an_artefact_is_not_written_through_a_link(tmp_path: Path, inside: str) -> None:
    store, other = Store(tmp_path / "store"), tmp_path / "other"
    other.mkdir()
    link = store.path("sft", KEY).with_suffix(".partial") / inside
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    with pytest.raises(RlaifError, match="is a link"):
        store.begin("sft", KEY)
    assert not list(other.iterdir())


def test_a_resumed_artefact_has_no_temporary_files_of_a_killed_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    work, checkpoint = store.begin("sft", KEY)
    left = []
    for folder in (work, work / "samples", checkpoint):
        folder.mkdir(exist_ok=True)
        with atomic_path(folder / "quality.json") as temporary:
            temporary.touch()
            name = temporary.name.replace(str(os.getpid()), str(2**30))  # of a process that there is not
        left.append(folder / name)
        left[-1].write_text("half")
    (work / "samples" / "1.jsonl").write_text("kept")
    store.begin("sft", KEY)
    assert [path for path in left if path.exists()] == []
    assert (work / "samples" / "1.jsonl").read_text() == "kept"


def test_what_another_run_has_just_finished_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    partial = tmp_path / f"sft-{'0' * 20}.partial"
    (partial / "work").mkdir(parents=True)
    newest = store_module._newest

    def race(folder: Path) -> float:
        shutil.rmtree(folder)
        return newest(folder)

    monkeypatch.setattr(store_module, "_newest", race)
    store.remove_leftovers()
    assert not partial.exists()


def test_a_lock_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, *_: object, **__: object) -> None:
        raise PermissionError("not yours")

    lock = tmp_path / ".x.lock"
    lock.touch()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    remove_lock(lock)
    assert lock.exists()
