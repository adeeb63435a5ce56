"""Artefacts are complete or absent, found again by what they depend on; rows are read back or refused by line."""

from __future__ import annotations

import errno
import gzip
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import DataError, Store
from rlaif_framework.records import read_rows, write_rows
from rlaif_framework.store import MANIFEST, atomic_path, hash_content, link_tree

KEY = hash_content({"a": 1})


def fill(store: Store, key: str = KEY, text: str = "weights") -> Path:
    """Make one artefact."""
    work, checkpoint = store.begin("sft", key)
    (work / "model.bin").write_text(text)
    (work / "nested").mkdir(exist_ok=True)
    (work / "nested" / "log.txt").write_text("log")
    (checkpoint / "step.json").write_text("3")
    return store.commit("sft", key, {"seconds": 1.5, "note": "é"})


# Keys


def test_equal_content_has_equal_keys_whatever_its_order_and_other_content_another() -> None:
    assert hash_content({"a": 1, "b": [1, 2]}) == hash_content({"b": [1, 2], "a": 1})
    assert hash_content({"a": 1}) != hash_content({"a": 2}) != hash_content({"a": "1"})
    assert hash_content([1, 2]) != hash_content([2, 1])
    assert hash_content({"a": "é"}) == hash_content({"a": "\u00e9"})


# Commit


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


def test_work_and_checkpoints_outlive_an_interruption(tmp_path: Path) -> None:
    work, checkpoint = Store(tmp_path).begin("sft", KEY)
    (work / "model.bin").write_text("half")
    (checkpoint / "step.json").write_text("3")
    again, saved = Store(tmp_path).begin("sft", KEY)
    assert (again / "model.bin").read_text() == "half"
    assert (saved / "step.json").read_text() == "3"


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


# Atomic files


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


# Lock


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


# The run folder


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


# Rows


def test_rows_come_back_as_they_were_with_their_line_numbers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"text": "é\n\u2028 \U0001f600", "b": None}, {"c": [1.5, True]}]
    write_rows(tmp_path / "r.jsonl", rows)
    assert list(read_rows(tmp_path / "r.jsonl")) == [(1, rows[0]), (2, rows[1]), (3, rows[2])]
    assert "é" in (tmp_path / "r.jsonl").read_text(encoding="utf-8"), "text is not readable"


def test_compressed_rows_and_those_of_other_systems_are_read_too(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "r.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"a": "é"}\n{"a": 2}')
    assert [row for _, row in read_rows(tmp_path / "r.jsonl.gz")] == [{"a": "é"}, {"a": 2}]
    (tmp_path / "w.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [row for _, row in read_rows(tmp_path / "w.jsonl")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', ", line 2: not valid JSON: Expecting value at column "),
        (b'{"a": 1}\n\n{"a": 3}\n', ", line 2: the line is empty; remove it"),
        (b'{"a": 1}\n   \n', ", line 2: the line is empty; remove it"),
        (b'{"a": 1}\n[1, 2]\n', ", line 2: expected a JSON object, found list"),
        (b'"text"\n', ", line 1: expected a JSON object, found str"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', ", line 2: not valid UTF-8"),
        (b'{"a": 1}\n{"a": "\\ud83d"}\n', ", line 2: not valid UTF-8"),
        (b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}\n", ", line 2: a number has too many digits"),
        (b'{"a": 1}\n' + b"[" * 200_000 + b"\n", ", line 2: lists and objects are nested too deeply"),
        (b"", " is empty"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(read_rows(path))
    assert f"{path}{expected}" in str(raised.value)


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n')
    assert list(read_rows(tmp_path / "r.jsonl")) == [(1, {"a": "\U0001f600"})]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file at .*gone\.jsonl"):
        list(read_rows(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError, match="cannot read"):
        list(read_rows(tmp_path))
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    for name, content in {"not": b"text", "cut": whole[:-20], "bad": whole[:30] + b"\xff" * 30 + whole[60:]}.items():
        (tmp_path / f"{name}.jsonl.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read|not valid"):
            list(read_rows(tmp_path / f"{name}.jsonl.gz"))
