"""End the command on Ctrl-C, at any moment, with one line and exit code 130.

The process ends at once. That is safe, since finished work is on disk, complete or not there at all. Only a run raises
a KeyboardInterrupt first, so that plugins can close their files. It may not arrive: Python discards exceptions in
finalisers, and libraries catch them during their import. Both are noticed here.

This module imports nothing slow, because it is loaded before everything else.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from rlaif_framework.processes import is_first_process

MESSAGE = "rlaif: interrupted; rerun the same command to resume"
CODE = 128 + signal.SIGINT
"""Exit code of a command that was interrupted, as shells report it."""

GRACE_SECONDS = 5.0
"""Time for plugins to close their files, until the process ends anyway."""

CLEAR_LINE, SHOW_CURSOR = "\r\x1b[2K", "\x1b[?25h"

_raises = False
_interrupted = False


def handle_interrupts() -> None:
    """Handle Ctrl-C from now on, unless the caller has this process ignore it, as shells do in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle)
        sys.unraisablehook = _notice_discarded


@contextmanager
def raise_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt on Ctrl-C in this block, and end the process afterwards."""
    global _raises
    _raises = True
    try:
        yield
    finally:
        _raises = False
        if _interrupted:  # whatever the interrupt was turned into, such as an ImportError
            end_interrupted()


def end_interrupted() -> NoReturn:
    """Print one line and end the process, without waiting for threads or finalisers."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or in use by the code that was interrupted
            stream.flush()
    with suppress(OSError):
        if is_first_process():
            # On a terminal, there may be a progress bar, which hides the cursor.
            restore = CLEAR_LINE + SHOW_CURSOR if os.isatty(2) else ""
            os.write(2, f"{restore}{MESSAGE}\n".encode())
    os._exit(CODE)


def _handle(number: int, frame: FrameType | None) -> NoReturn:
    global _interrupted
    if _interrupted or not _raises:
        end_interrupted()
    _interrupted = True
    _thread.start_new_thread(_end_later, ())
    raise KeyboardInterrupt


def _end_later() -> None:
    time.sleep(GRACE_SECONDS)
    end_interrupted()


def _notice_discarded(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process if Python discards a KeyboardInterrupt, e.g. in a finaliser."""
    if _interrupted:
        end_interrupted()
    sys.__unraisablehook__(unraisable)
