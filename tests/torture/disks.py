"""Run on small file systems: one message while they are full, and the same result once there is room."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from support.runs import digest
from torture.world import command, in_child, make_model, make_spec, write_spec

LARGE = 64 * 2**20


def fill_disks(count: int, seed: int, folder: Path) -> str:
    """Run a spec on `count` file systems of random sizes, which then grow."""
    draw = random.Random(seed)
    os.chdir(folder)
    spec = write_spec(folder / "spec.json", make_spec(make_model(folder), "dpo"))
    assert in_child(lambda: command("run", spec, "--out", "whole", "--store", "whole.store")) == 0
    whole = digest(folder / "whole")
    needed = sum(path.stat().st_size for path in (folder / "whole.store").rglob("*") if path.is_file())
    full = 0
    for case in range(count):
        disk = folder / f"disk-{case}"
        disk.mkdir()
        size = draw.randint(4096, needed)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return "full disks: not run, since this system lets no test mount a file system"
        try:
            argv = ("run", spec, "--out", disk / "out", "--store", disk / "store")
            Path("child.log").unlink(missing_ok=True)
            code = in_child(lambda argv=argv: command(*argv))  # type: ignore[misc]
            log = Path("child.log").read_text()
            assert code in (0, 2), f"seed {seed}, case {case}, {size} bytes: {code}, {log[-2000:]}"
            if code:
                full += 1
                assert "the disk is full" in log.splitlines()[-1], (
                    f"seed {seed}, case {case}, {size} bytes: {log[-500:]}"
                )
                assert "Traceback" not in log, f"seed {seed}, case {case}, {size} bytes: {log[-2000:]}"
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True)
            code = in_child(lambda argv=argv: command(*argv))  # type: ignore[misc]
            assert code == 0, f"seed {seed}, case {case}, {size} bytes: {Path('child.log').read_text()[-2000:]}"
            assert digest(disk / "out") == whole, f"seed {seed}, case {case}, {size} bytes: another result"
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return (
        f"full disks: {count} disks of 4 kB to {needed // 2**20 + 1} MB, {full} were full; all finished after they grew"
    )
