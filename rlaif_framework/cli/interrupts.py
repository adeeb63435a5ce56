"""End on Ctrl-C, at any moment, with one line and exit code 130.

The process ends at once. That is safe, since finished work is on disk, complete or not there at all. Only a run raises
a KeyboardInterrupt first, so that plugins can close their files. It may not arrive: Python discards exceptions in
finalisers, and libraries catch them during their import. Both are noticed here.
"""

from __future__ import annotations

# Nothing is imported here that Python has not loaded already: until the handler is set, Ctrl-C gives a traceback.
# `signal` takes as long to import as everything else together, because of its enumerations.
import _signal  # type: ignore[import-not-found]  # typeshed describes `signal` only
import _thread
import os
import sys
import time

from rlaif_framework.processes import is_first_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

MESSAGE = "rlaif: interrupted; rerun the same command to resume"
CODE = 128 + _signal.SIGINT
"""Exit code of a command that was interrupted, as shells report it."""

GRACE_SECONDS = 5.0
"""Time for plugins to close their files, until the process ends anyway."""

CLEAR_LINE, SHOW_CURSOR = "\r\x1b[2K", "\x1b[?25h"

_raises = False
_is_quiet = False
_interrupted = False


def handle_interrupts() -> None:
    """Handle Ctrl-C from now on, unless the caller has this process ignore it, as shells do in the background."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _handle)
        sys.unraisablehook = _notice_discarded


class raise_interrupts:
    """Context manager that raises a KeyboardInterrupt on Ctrl-C in its block, and ends the process afterwards."""

    def __enter__(self) -> None:
        global _raises
        _raises = True

    def __exit__(self, *error: object) -> None:
        global _raises
        _raises = False
        if _interrupted:  # whatever the interrupt was turned into, such as an ImportError
            end_interrupted()


class end_quietly:
    """Context manager in whose block Ctrl-C is a usual way to end a command, which nothing needs to be said about."""

    def __enter__(self) -> None:
        global _is_quiet
        _is_quiet = True

    def __exit__(self, *error: object) -> None:
        global _is_quiet
        _is_quiet = False


def end_interrupted() -> NoReturn:
    """Print one line and end the process, without waiting for threads or finalisers."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()
        except Exception:  # closed, or in use by the code that was interrupted
            pass
    try:
        if is_first_process():
            # On a terminal, there may be a progress bar, which hides the cursor.
            restore = CLEAR_LINE + SHOW_CURSOR if os.isatty(2) else ""
            os.write(2, restore.encode() + (b"\n" if _is_quiet else f"{MESSAGE}\n".encode()))
    except OSError:  # stderr is closed
        pass
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
