"""Measure the peak memory of a process, and control when freed memory is returned to the system."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for later tensors, until `release_memory`.

    By default the activations of a step are returned to the system, and the next step waits while the same pages are
    zeroed again: a tenth of the time of training a 135M model on a virtual machine.
    """
    # By default a large block is a separate mapping, which is unmapped when the block is freed.
    _call_glibc("mallopt", _MMAP_MAX, 0)
    # -1: never return freed memory at the top of the heap automatically.
    _call_glibc("mallopt", _TRIM_THRESHOLD, -1)


def release_memory() -> None:
    """Collect garbage and return freed memory to the system.

    glibc keeps the memory of freed tensors of varying sizes: a training run of the 135M quickstart model grew to 6.3
    GB, of which 2.6 GB was in use. Separate mappings for large tensors (`M_MMAP_THRESHOLD`) would avoid that, but cost
    a tenth to a third of a step.
    """
    gc.collect()  # models are often kept alive by reference cycles
    trim_memory()


def trim_memory() -> None:
    """Return freed memory to the system, without collecting garbage."""
    _call_glibc("malloc_trim", 0)


def _call_glibc(function: str, *arguments: int) -> None:
    """Call a function of glibc; do nothing if the C library is another one."""
    if sys.platform == "linux":
        # OSError: there is no glibc, as on Alpine.
        with suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def reset_peak_memory() -> None:
    """Reset the peak memory, where the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes, since `reset_peak_memory` where that is supported."""
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024  # stated in kB
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
