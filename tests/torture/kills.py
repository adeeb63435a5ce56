"""Kill runs at random file operations, and compare what they finish with an uninterrupted run bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.runs import digest
from torture.world import ALGORITHMS, in_child, make_model, make_spec, write_spec

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate", "shutil.rmtree"}
"""Audit events of Python that belong to operations on files."""

LEFT = (".tmp", ".lock", ".partial")
"""Endings of names that no finished run may leave."""


@dataclass(frozen=True)
class Whole:
    """A run that was not killed."""

    spec: Path
    digest: dict[str, str]
    events: int
    """Number of operations on files."""


def kill_runs(count: int, seed: int, folder: Path) -> str:
    """Kill `count` runs once to three times each, with one algorithm after another, and compare what they finish."""
    draw = random.Random(seed)
    os.chdir(folder)
    model, wholes = make_model(folder), dict[str, Whole]()
    kills, places = 0, Counter[str]()
    for case in range(count):
        algorithm = list(ALGORITHMS)[(case + seed) % len(ALGORITHMS)]
        whole = wholes.setdefault(algorithm, _run_whole(folder, model, algorithm))
        out = folder / f"killed-{case}"
        for _ in range(draw.randint(1, 3)):
            if _run(whole.spec, out, partial(_kill, at=draw.randint(1, whole.events), note=folder / "place")):
                kills += 1
                places[_place((folder / "place").read_text())] += 1
        _run(whole.spec, out)
        where = f"seed {seed}, case {case} ({algorithm})"
        found = digest(out)
        assert found == whole.digest, f"{where}: differs in {_differences(found, whole.digest)}"
        store = folder / f"killed-{case}.store"
        leftovers = [path for path in (*out.rglob("*"), *store.rglob("*")) if path.name.endswith(LEFT)]
        assert not leftovers, f"{where}: {leftovers} were left"
        shutil.rmtree(out)
        shutil.rmtree(store)
    return (
        f"kills: {kills} kills of {count} runs with {len(wholes)} algorithms, in {len(places)} kinds of places "
        f"({', '.join(sorted(places))}); every run resumed bit for bit"
    )


def _run_whole(folder: Path, model: Path, algorithm: str) -> Whole:
    spec = write_spec(folder / f"{algorithm}.json", make_spec(model, algorithm))
    count = folder / "events"

    def note(number: int, path: str) -> None:
        if number % 20 == 0:
            count.write_text(str(number))

    _run(spec, folder / algorithm, note)
    return Whole(spec, digest(folder / algorithm), int(count.read_text()))


def _kill(number: int, path: str, at: int, note: Path) -> None:
    """Kill this process at one of the operations, and note its path."""
    if number == at:
        note.write_text(path)
        os.kill(os.getpid(), signal.SIGKILL)


def _run(spec: Path, out: Path, on_event: Callable[[int, str], None] | None = None) -> bool:
    """Run a spec in a child process that calls a function at each operation on a file; return True if it was killed."""
    store = out.with_name(f"{out.name}.store")

    def work() -> None:
        from rlaif_framework import PluginManager, Store, load_spec, run_spec

        if on_event is not None:
            count, active = 0, False

            def audit(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal count, active
                if event in EVENTS and not active and str(out.parent) in str(arguments[0]):
                    active = True  # the function may open files
                    count += 1
                    on_event(count, str(arguments[0]))
                    active = False

            sys.addaudithook(audit)
        run_spec(load_spec(spec), out, Store(store), PluginManager.load(), checkpoint_seconds=0)

    code = in_child(work)
    killed = on_event is not None and code == -signal.SIGKILL
    assert code == 0 or killed, f"exit status {code}: {Path('child.log').read_text()[-2000:]}"
    return killed


def _place(path: str) -> str:
    """Name the place of a path: a stage of the store, or the run folder."""
    parts = [part for part in Path(path).parts if "-" in part and len(part) > 20]
    return parts[-1].lstrip(".").partition("-")[0] if parts else "run folder"


def _differences(found: dict[str, str], whole: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
