"""Compare the memory that `rlaif plan` estimates for training stages with the measured memory.

python benchmarks/memory.py [--spec specs/quickstart.yaml] [--steps 3]

Runs the first steps of each training stage of a spec. Prints one line per stage: planned and measured peak of the
memory in use, their ratio such as `1.05x`, and the peak of the resident memory. On a GPU, memory in use is what torch
has allocated. On a CPU, it is the memory that the C library has allocated and the pages of mapped files (Linux with
glibc). The resident memory is larger, because freed blocks are kept.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from rlaif_framework import PluginManager, Store, hookimpl, load_spec, plan_spec, run_spec
from rlaif_framework.contracts.lifecycle import RunInfo, StepInfo
from rlaif_framework.memory import keep_freed_memory, peak_memory
from rlaif_framework.pipeline.planning import PlannedStep
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.progress import Progress

ROOT = Path(__file__).parents[1]
PAGE = os.sysconf("SC_PAGE_SIZE")
FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def read_resident() -> tuple[int, int]:
    """Return the resident bytes, and how many of them are pages of files: libraries and mapped weights."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[1]) * PAGE, int(pages[2]) * PAGE


def bytes_in_use() -> int:
    """Return the bytes that the C library has allocated, on its heap and in separate mappings, and pages of files."""
    ask = ctypes.CDLL("libc.so.6").mallinfo2
    ask.restype = Mallinfo
    info = ask()
    return int(info.uordblks + info.hblkhd) + read_resident()[1]


class Meter:
    """Measures the peak memory of each stage, by sampling fifty times per second."""

    def __init__(self) -> None:
        self.peak = 0
        self.measured: dict[str, tuple[int, int]] = {}
        # Resident memory that the C library does not count, such as stacks and the interpreter.
        self.base = read_resident()[0] - bytes_in_use()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, bytes_in_use())
            time.sleep(0.02)

    def start(self) -> None:
        """Reset the peak before a stage."""
        self.peak = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def finish(self, name: str) -> None:
        """Store the peaks of a stage: bytes in use, and resident bytes."""
        held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self.base + self.peak
        self.measured[name] = (held, peak_memory())


def make_plugin(meter: Meter) -> Plugin:
    """Create a plugin that calls the meter in the lifecycle hooks."""
    module = ModuleType("rlaif_meter")

    @hookimpl
    def rlaif_stage_started(run: RunInfo, step: StepInfo) -> None:
        meter.start()

    @hookimpl
    def rlaif_stage_finished(run: RunInfo, step: StepInfo) -> None:
        meter.finish(step.name)

    module.rlaif_stage_started = rlaif_stage_started  # type: ignore[attr-defined]
    module.rlaif_stage_finished = rlaif_stage_finished  # type: ignore[attr-defined]
    return Plugin("meter", "rlaif-meter", "1.0", module=module)


def shorten(spec: Path, steps: int) -> list[str]:
    """Return overrides that reduce each stage to a few steps and keep the sizes of its batches."""
    found = load_spec(spec)
    changes = ["evaluate=null"]
    if found.sft is not None:
        changes.append(f"sft.limit={steps * found.sft.batch_size}")
    for name, arm in found.arms.items():
        changes.append(f"arms.{name}.algorithm.steps={steps}")
        if arm.feedback is not None:
            changes += [f"arms.{name}.feedback.pairs.{key}=24" for key in ("limit", "prompts")]
            changes.append(f"arms.{name}.feedback.allow_weak_labels=true")
    return changes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", type=Path, default=ROOT / "specs" / "quickstart.yaml")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--set", dest="changes", nargs="*", default=[], help="more overrides, as for `rlaif run`")
    given = parser.parse_args(arguments)
    keep_freed_memory()
    manager, meter = PluginManager.load(), Meter()
    manager.add(make_plugin(meter))
    spec = load_spec(given.spec, [*shorten(given.spec, given.steps), *given.changes], manager)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        steps = plan_spec(spec, store, manager)
        run_spec(spec, Path(scratch) / "run", store, manager, Progress())
    for step in steps:
        if step.peak_bytes and any(load.activation_bytes for load in step.loads):
            print(compare(step, *meter.measured[step.name]), flush=True)


def compare(step: PlannedStep, held: int, resident: int) -> str:
    """Format one line."""
    planned = step.peak_bytes or 0
    gib = [f"{size / 2**30:.2f} GiB" for size in (planned, held, resident)]
    return f"{step.name}: {planned / held:.2f}x  ({gib[0]} in use planned, {gib[1]} measured; {gib[2]} resident)"


if __name__ == "__main__":
    main()
