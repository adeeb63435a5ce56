"""Read files that users and specs name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

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
