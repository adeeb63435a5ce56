"""Measure what installed plugins add to the start of a command.

Writes fake distributions with one labeler, one tracker and one command each, as pip would leave them, and compares the
processor time of commands with and without them: `python benchmarks/plugins.py [COUNT]`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 9
CODE = '''
from typing import Literal
from rlaif_framework import Command, Component, LabelerConfig, TrackerConfig, hookimpl

class VoteConfig(LabelerConfig):
    """Vote."""
    kind: Literal["{name}/vote"] = "{name}/vote"
    votes: int = 3
    """Number of votes."""

class LogConfig(TrackerConfig):
    """Log."""
    kind: Literal["{name}/log"] = "{name}/log"
    path: str = "log.jsonl"
    """File."""

@hookimpl
def rlaif_labelers():
    yield Component("{name}/vote", VoteConfig, "rlaif_{name}.vote:Vote")

@hookimpl
def rlaif_trackers():
    yield Component("{name}/log", LogConfig, "rlaif_{name}.log:Log")

@hookimpl
def rlaif_commands():
    yield Command("{name}", "Do something.", "rlaif_{name}.cli:app")
'''


def install(folder: Path, name: str) -> None:
    """Write a distribution."""
    (folder / f"rlaif_{name}.py").write_text(CODE.format(name=name))
    info = folder / f"rlaif_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rlaif-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rlaif_framework.plugins]\n{name} = rlaif_{name}\n")


def seconds(command: list[str], path: str) -> float:
    """Return the processor time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "rlaif_framework", *command],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line for each command."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    own = os.environ.get("PYTHONPATH", "")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            install(Path(folder), f"p{i:02d}")
        paths = {"without": own, "with": os.pathsep.join(filter(None, [folder, own]))}
        for command in (["--help"], ["run", "--help"], ["plugins"]):
            times: dict[str, list[float]] = {name: [] for name in paths}
            for name in paths:
                seconds(command, paths[name])  # writes the bytecode
            for _ in range(REPEATS):  # in turn, because other programs slow the machine down at times
                for name in paths:
                    times[name].append(seconds(command, paths[name]))
            found = {name: min(values) for name, values in times.items()}
            more = found["with"] - found["without"]
            print(f"rlaif {' '.join(command)}: {found['without']:.3f} s, with {count} plugins {more:+.3f} s")


if __name__ == "__main__":
    main()
