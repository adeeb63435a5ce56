"""The store of artefacts: complete or absent, never computed twice."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import RlaifError, Store
from rlaif_framework.store import MANIFEST, atomic_path, hash_content, link_tree
from support.rows import KEY


def fill(store: Store, key: str = KEY, text: str = "weights") -> Path:
    """Make one artefact."""
    work, checkpoint = store.begin("sft", key)
    (work / "model.bin").write_text(text)
    (work / "nested").mkdir(exist_ok=True)
    (work / "nested" / "log.txt").write_text("log")
    (checkpoint / "step.json").write_text("3")
    return store.commit("sft", key, {"seconds": 1.5, "note": "é"})


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
    assert store.manifest("sft", KEY) == {"seconds": 1.5, "note": "é"}
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


def test_a_file_or_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("before")

    def fail(path: Path) -> None:
        with atomic_path(path) as temporary:
            if path == folder:
                temporary.mkdir()
            (temporary / "half" if path == folder else temporary).write_text("half")
            raise OSError("full")

    for path in (file, folder):
        with pytest.raises(OSError, match="full"):
            fail(path)
    assert file.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "something temporary was left"
    with atomic_path(file) as temporary:
        temporary.write_text("after")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
    assert file.read_text() == "after"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


HOLDER = """
import sys
from pathlib import Path
from rlaif_framework.store import Store
print("trying", flush=True)
with Store(Path(sys.argv[1])).lock("sft", sys.argv[2]):
    print("holding", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that takes the lock and keeps it until it is told to let go."""

    def __init__(self, root: Path) -> None:
        argv = [sys.executable, "-c", HOLDER, str(root), KEY]
        # Unbuffered: a buffer could take in both lines at once, and `select` would wait for what is there already.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdout is not None
        self.out = self.process.stdout
        assert self.out.readline() == b"trying\n"

    def holds(self, seconds: float) -> bool:
        """Whether it gets the lock within that time."""
        return bool(select.select([self.out], [], [], seconds)[0]) and self.out.readline() == b"holding\n"

    def let_go(self) -> None:
        self.process.communicate(b"\n", timeout=20)


def test_only_one_process_at_a_time_makes_an_artefact(tmp_path: Path) -> None:
    first = Holder(tmp_path)
    assert first.holds(20)
    second = Holder(tmp_path)
    assert not second.holds(0.3), "two processes hold the lock of one artefact"
    with Store(tmp_path).lock("label", KEY):
        pass  # another stage's artefact is free
    first.let_go()
    assert second.holds(20)
    third = Holder(tmp_path)  # comes after the first has cleaned up, while the second is at work
    assert not third.holds(0.3), "what the first left behind made way for two holders"
    second.let_go()
    assert third.holds(20)
    third.let_go()


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lock("sft", KEY):
        raise RuntimeError
    with store.lock("sft", KEY):  # or else this waits for ever
        pass
    # One who waits has the file open: with the file gone, the next would lock a new one, and both would hold on.
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


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
