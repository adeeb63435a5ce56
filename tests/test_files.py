"""Atomic files, locks, and what killed processes leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from rlaif_framework import DataError, RlaifError, Store
from rlaif_framework.files import DAY, atomic_path, cache_folder, locked, read_own, remove_leftovers, user_path
from support.rows import KEY


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
from rlaif_framework.files import locked
print("trying", flush=True)
with locked(Path(sys.argv[1]), "writes for a test", lambda text: print(text, flush=True)):
    print("holding", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that takes a lock and keeps it until it is told to let go."""

    def __init__(self, path: Path) -> None:
        argv = [sys.executable, "-c", HOLDER, str(path)]
        # Unbuffered: a buffer could take in several lines at once, and `select` would wait for what is there already.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdout is not None
        self.out = self.process.stdout
        assert self.read() == "trying"

    def read(self) -> str:
        """Wait for its next line."""
        return self.out.readline().decode().strip()

    def let_go(self) -> None:
        self.process.communicate(b"\n", timeout=600)


def test_others_wait_for_a_lock_and_are_told_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.jsonl"
    first = Holder(path)
    assert first.read() == "holding"
    second = Holder(path)
    assert second.read().startswith(f"waiting: process {first.process.pid} on ")
    with locked(path.with_name("other"), "writes", None):
        pass  # another file is free
    with (
        pytest.raises(RlaifError, match=f"process {first.process.pid} on .* writes for a test; wait"),
        locked(path, ""),
    ):
        pass
    first.let_go()
    assert second.read() == "holding"
    third = Holder(path)  # comes after the first has cleaned up, while the second is at work
    assert third.read().startswith(f"waiting: process {second.process.pid} on ")
    second.let_go()
    assert third.read() == "holding"
    third.process.kill()  # the system releases its lock
    third.process.wait()
    with locked(path, "writes"):
        pass
    assert list(path.parent.iterdir()) == [], "a lock file was left"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder in which nobody can make files")
@pytest.mark.parametrize("tell", [None, print])
def test_a_folder_without_files_of_ones_own_is_not_a_lock(tell: Callable[[str], None] | None) -> None:
    with pytest.raises(OSError, match=r"/proc/\.labels\.lock"), locked(Path("/proc/labels"), "writes", tell):
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lock("sft", KEY, print):
        raise RuntimeError
    with store.lock("sft", KEY, print):  # or else this waits for ever
        pass
    assert list(tmp_path.iterdir()) == []


def dead_process() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model") as temporary:
        name = temporary.name
        temporary.touch()
    host = name.rpartition("@")[2]
    dead, alive = dead_process(), os.getppid()
    stale = [f".model.{dead}@{host}", f".model.{os.getpid()}@{host}", f".old.{alive}@elsewhere.tmp"]
    kept = [f".model.{alive}@{host}", f".new.{dead}@elsewhere.tmp", f"model.{dead}@{host}", ".model.tmp", "model"]
    for path in (*stale, *kept):
        (tmp_path / path).mkdir(exist_ok=True) if path != "model" else None
    (tmp_path / stale[0] / "weights").write_text("half")
    (tmp_path / f".link.{dead}@{host}").symlink_to(tmp_path / kept[0])
    os.utime(tmp_path / stale[2], (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "nowhere")
    assert DAY == 24 * 3600


@pytest.mark.parametrize("name", ["a\0b", "\ud800.py", "~/\0"])
def test_a_name_that_no_file_can_have_is_an_error(name: str) -> None:
    with pytest.raises(RlaifError, match="cannot be the name of a file") as caught:
        user_path(name)
    assert str(caught.value).isprintable()
    assert user_path(os.fsdecode(b"\xff")) == Path(os.fsdecode(b"\xff"))  # not UTF-8, but a file's


def test_a_home_folder_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RlaifError, match="the home folder of '~nobody-has-this' is unknown; write the path"):
        user_path("~nobody-has-this/x")

    def fail(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RLAIF_CACHE")
    monkeypatch.setattr(Path, "expanduser", fail)
    with pytest.raises(RlaifError, match="the home folder of '~' is unknown; set HOME or RLAIF_CACHE"):
        cache_folder()


class Record(BaseModel):
    steps: dict[str, int]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "{}", '{"steps": {"a": null}}', '{"steps": ' + "[" * 100_000, "\xff"]
)
def test_a_damaged_record_of_the_framework_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=f"^{path} is damaged: .*; rerun$"):
        read_own(Record, path, 10**6, "rerun")


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(DataError, match=f"^cannot read {path}: No such file or directory; rerun$"):
        read_own(Record, path, 10**6, "rerun")
    path.write_text('{"steps": {"a": 1}}')
    assert read_own(Record, path, 10**6, "rerun").steps == {"a": 1}
    with pytest.raises(DataError, match=f"^cannot read {path}: it is larger than 5 bytes; rerun$"):
        read_own(Record, path, 5, "rerun")
