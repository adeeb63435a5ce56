"""What stdout is for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is written to stdout within the block to stderr.

    Plugins are imported and called within such blocks, and results printed outside of them, so that JSON and YAML can
    be parsed whatever a plugin prints. This includes what child processes and libraries in C write.
    """
    with redirect_stdout(sys.stderr), _redirect_descriptor():
        yield


def end_stdout() -> None:
    """Send what the process still writes to stdout to stderr: plugins may print when Python exits."""
    _flush()
    with suppress(OSError):  # closed
        os.dup2(2, 1)


@contextmanager
def _redirect_descriptor() -> Iterator[None]:
    try:
        _flush()
        kept = os.dup(1)
    except OSError:  # stdout is closed
        yield
        return
    try:
        with suppress(OSError):  # stderr is closed
            os.dup2(2, 1)
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    # The stream of the process itself, which a plugin may use too; None without a stdout.
    if sys.__stdout__ is not None:
        with suppress(OSError, ValueError):
            sys.__stdout__.flush()
