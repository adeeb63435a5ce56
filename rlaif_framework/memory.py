"""Peak memory of a stage, and memory that was freed given back to the system."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free for those that follow, until `release_memory`.

    By default the activations of a step go back to the system as they are freed, and the next step waits for the same
    pages to be zeroed again: a tenth of the time of training a 135M model on a virtual machine.
    """
    _ask_glibc("mallopt", _MMAP_MAX, 0)  # no block gets pages of its own, which go back with it
    _ask_glibc("mallopt", _TRIM_THRESHOLD, -1)  # never


def release_memory() -> None:
    """Collect garbage and hand freed memory back.

    glibc keeps what tensors of changing sizes free: a training run of the 135M quickstart model grew to 6.3 GB of which
    2.6 GB was in use. Pages of their own for large tensors (`M_MMAP_THRESHOLD`) would keep resident memory at what is
    in use, and cost a tenth to a third of a step.
    """
    gc.collect()
    _ask_glibc("malloc_trim", 0)


def _ask_glibc(function: str, *arguments: int) -> None:
    """Call a function of the C library; another library than glibc is left alone."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def reset_peak_memory() -> None:
    """Let the peak start anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, since `reset_peak_memory` where the system can tell."""
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
