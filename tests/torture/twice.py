"""Start two of everything at the same moment."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

from support.runs import digest
from torture.world import command, in_child, make_model, make_spec, write_spec


def run_twice(count: int, seed: int, folder: Path) -> str:
    """Start two labelling commands, and two runs, `count` times each."""
    draw = random.Random(seed)
    os.chdir(folder)
    pairs = [{"id": f"c{i}", "prompt": f"Post {i}.", "responses": ["a" * (i % 7 + 1), "bb"]} for i in range(2000)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    spec = write_spec(folder / "spec.json", make_spec(make_model(folder), "dpo"))
    assert in_child(lambda: command("run", spec, "--out", "one", "--store", "one.store")) == 0, _log()
    one = digest(folder / "one")
    refused = 0
    for case in range(count):
        argv = ("label", "pairs.jsonl", "--labeler", "length", "--out", f"labels-{case}.jsonl")
        codes = _start_two(argv, argv)
        assert sorted(codes) in ([0, 0], [0, 2]), f"seed {seed}, case {case}: {codes}, {_log()}"
        refused += 2 in codes
        ids = [json.loads(line)["id"] for line in (folder / f"labels-{case}.jsonl").read_text().splitlines()]
        assert ids == [row["id"] for row in pairs], f"seed {seed}, case {case}: {len(ids)} rows"
        same = draw.random() < 0.5
        outs = [f"out-{case}", f"out-{case}" if same else f"out-{case}-2"]
        codes = _start_two(*(("run", spec, "--out", out, "--store", f"store-{case}") for out in outs))
        assert sorted(codes) in ([[0, 0], [0, 2]] if same else [[0, 0]]), f"seed {seed}, case {case}: {codes}, {_log()}"
        refused += 2 in codes
        for out in outs:
            assert digest(folder / out) == one, f"seed {seed}, case {case}: {out} differs"
        for path in folder.glob(f"*-{case}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return (
        f"two of everything: {2 * count} pairs of processes, {refused} times the second was refused; results as of one"
    )


def _start_two(*commands: tuple[object, ...]) -> list[int]:
    """Run commands at the same time; return their exit codes."""
    pids = []
    for argv in commands:
        pid = os.fork()
        if pid == 0:
            os._exit(max(0, in_child(lambda argv=argv: command(*argv))))  # type: ignore[misc]
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _log() -> str:
    return Path("child.log").read_text()[-2000:]
