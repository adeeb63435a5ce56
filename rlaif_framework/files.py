"""Read files that users name, and write files that several processes may write."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from rlaif_framework.errors import DataError, RlaifError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")

TEMPORARY = re.compile(r"^\..+\.(?P<process>\d+)@(?P<host>[\w-]*)\.tmp$")
"""Names of temporary files and folders of `atomic_path`."""

LONGEST_NAME = 255
"""Maximum length of the name of a file in bytes, on most file systems."""

DAY = 86_400.0


def cache_folder() -> Path:
    """Return the folder of converted models and cached answers: $RLAIF_CACHE or `~/.cache/rlaif-framework`.

    Raises:
        RlaifError: The home folder that it is in is unknown.
    """
    root = os.environ.get("RLAIF_CACHE")
    return user_path(root or "~/.cache/rlaif-framework")


def user_path(text: str) -> Path:
    """Return a path with `~` and `~user` replaced by the home folder.

    Raises:
        RlaifError: There is no such user, the user has no home folder, or no file can have this name.
    """
    try:
        path = Path(text).expanduser()
        if b"\0" in os.fsencode(path):
            raise ValueError("it has a null character")
        return path
    except ValueError as error:  # also a character that cannot be encoded
        raise RlaifError(f"{text!a} cannot be the name of a file: {error}") from None
    except RuntimeError:
        user = Path(text).parts[0]
        remedy = "set HOME or RLAIF_CACHE to a folder" if user == "~" else "write the path of the folder"
        raise RlaifError(f"{text}: the home folder of '{user}' is unknown; {remedy}") from None


# --- Files that users and specs name ---------------------------------------------------------------------------------

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular(path: Path) -> None:
    """Check that a path is a regular file, or a link to one. Reading anything else may never end.

    Raises:
        OSError: It is not, or cannot be read.
    """
    _check_mode(path.stat().st_mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: It is something else, or cannot be read.
    """
    check_regular(path)  # first, because opening a device may already have an effect

    def open_it(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK)  # or opening a pipe would wait for a writer
        try:
            _check_mode(os.fstat(descriptor).st_mode)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, "rb", opener=open_it)


def read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: It is something else, larger, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it is larger than {limit:,} bytes")
    return content


def _check_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "a special file")
        raise OSError(f"it is {kind}, not a regular file")


# --- Atomic writes ---------------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, and rename it to `path` at the end of the block.

    If the block fails, e.g. because the disk is full, the temporary path is removed and `path` stays as it was. What a
    killed process leaves is removed by `remove_leftovers`.
    """
    # In the same folder, since renaming across file systems is not atomic. The process id allows concurrent writers.
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        _remove(temporary)


def remove_atomic(folder: Path) -> None:
    """Remove a folder at once, and then its files; `remove_leftovers` removes what a killed process left of them."""
    # Not the name of `atomic_path`, which may be writing what comes in place of the folder.
    temporary = _temporary(folder.with_name(f"{folder.name}.old"))
    folder.rename(temporary)
    shutil.rmtree(temporary)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}@{_host()}.tmp")


def check_name(path: Path) -> None:
    """Check that the name of a file is short enough for `atomic_path`, before the work that is written into it.

    Raises:
        RlaifError: It is too long.
    """
    excess = len(os.fsencode(_temporary(path).name)) - LONGEST_NAME
    if excess > 0:
        raise RlaifError(f"the name of {path} is too long by {excess} bytes; choose a shorter one")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that `atomic_path` left in a folder, because the process was killed."""
    with suppress(FileNotFoundError, PermissionError):
        for path in folder.iterdir():
            found = TEMPORARY.match(path.name)
            if found and not _may_be_written(path, int(found["process"]), found["host"]):
                _remove(path)


def _may_be_written(path: Path, process: int, host: str) -> bool:
    """Return True if the process that writes a temporary path may be alive."""
    if host != _host():  # a shared disk, or another container
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime < DAY
        return False
    # In a container, all processes have the same id.
    return process != os.getpid() and is_running(process)


def is_running(process: int) -> bool:
    """Return True if there is a process with this id on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number as large as that
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a file or folder if it exists. Links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname(), flags=re.ASCII)[:64]


# --- Locks -----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, work: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of a file or folder that several processes could write.

    The lock file is `.NAME.lock` in the same folder. It describes the process that holds the lock. The system releases
    the lock when that process ends, however it ends.

    Args:
        path: The file or folder; the folder that contains it is created.
        work: What this process does, e.g. `writes labels.jsonl`; shown to others that want the lock.
        tell: Called with a message before waiting for another process. If None, don't wait.

    Raises:
        RlaifError: Another process holds the lock, and `tell` is None. The message says which process.
        OSError: No file can be made in this folder.
    """
    path = Path(os.path.realpath(path))  # `.` has no name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # which does not name the path
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        file.open("ab").close()  # fails if no file can be made here, which filelock takes for a lock
        holder = _describe_holder(file)
        if tell is None:
            raise RlaifError(f"{holder}; wait until it has finished, or choose another name") from None
        tell(f"waiting: {holder}")
        lock.acquire()
    try:
        with suppress(OSError):  # on a full disk, the lock holds without a description
            file.write_text(f"process {os.getpid()} on {_host()} {work}", encoding="utf-8", errors="backslashreplace")
        yield
    finally:
        # Removed while the lock is held: a process that has opened the file already notices that it is gone.
        file.unlink(missing_ok=True)
        lock.release()


def is_locked(path: Path) -> bool:
    """Return True if a process holds the lock of a file or folder."""
    path = Path(os.path.realpath(path))
    file = path.with_name(f".{path.name}.lock")
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # it may not be written, so no run of this user holds it
        return False
    lock.release()
    return False


def remove_lock(file: Path) -> None:
    """Remove the lock file that a killed process left, unless another process holds the lock."""
    lock = FileLock(file)
    with suppress(Timeout, OSError):  # of another process, or of another user
        lock.acquire(blocking=False)
        file.unlink(missing_ok=True)
        lock.release()


def _describe_holder(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):  # it may have finished meanwhile
        for _ in range(20):
            text = file.read_text(encoding="utf-8").strip()
            if text:
                return text
            time.sleep(0.05)  # the holder has locked the file and not described itself yet
    return f"another process holds {file}"


# --- Files of the framework ------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or invalid, e.g. truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def read_own(kind: type[M], path: Path, limit: int, remedy: str) -> M:
    """Read a record that the framework wrote as JSON. The file may be damaged, or come from a stranger.

    Args:
        kind: The type of the record.
        path: The file.
        limit: Maximum size in bytes.
        remedy: What the user can do if the file is damaged.

    Raises:
        DataError: The file cannot be read, or does not hold such a record.
    """
    from pydantic import ValidationError  # takes time to import, and most commands read no record

    try:
        return kind.model_validate_json(read_regular(path, limit))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {describe_first(error)}; {remedy}") from None


def describe_first(error: ValidationError) -> str:
    """Describe the first problem of a record, with its place."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"{part}: " for part in first["loc"])
    return place + first["msg"].removeprefix("Value error, ")
