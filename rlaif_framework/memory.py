"""Peak memory of a stage, and memory that was freed given back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path


def use_huge_pages() -> None:
    """Let torch ask for huge pages, so that touching fresh memory takes less time.

    To be called before torch allocates anything.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def release_memory() -> None:
    """Collect garbage and hand freed memory back.

    glibc keeps what tensors of changing sizes free: a training run of the 135M quickstart model grew to 6.3 GB of which
    2.6 GB was in use. Pages of their own for large tensors (`M_MMAP_THRESHOLD`) would keep resident memory at what is
    in use, and cost a tenth to a third of a step.
    """
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


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
