"""Ctrl-C ends a command with one line and exit code 130, wherever it arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_framework.cli.interrupts import CODE, MESSAGE
from rlaif_framework.prompting.chunks import MIN_CHUNK
from support.fake_plugins import Site, write_rows

# The interrupt is raised by the process itself, so that it arrives at the same place each time.
PLUGIN = """
import os, signal
from typing import Literal
from rlaif_framework import Component, Evidence, LabelerConfig, Preference, hookimpl

WHERE = os.environ["INTERRUPT"]

def interrupt():
    signal.raise_signal(signal.SIGINT)

class Finaliser:
    def __del__(self):
        interrupt()

if WHERE == "import":
    try:
        interrupt()
    except BaseException as error:
        raise ImportError("cannot import a library") from error

class InterruptConfig(LabelerConfig):
    kind: Literal["interrupt/x"] = "interrupt/x"

class InterruptLabeler:
    def __init__(self, config, context):
        pass

    def label(self, comparisons):
        for c in comparisons:
            if c.id == f"{WHERE}":
                interrupt()
            yield Preference(c.id, (1.0, 0.0), Evidence("interrupt/x"))

@hookimpl
def rlaif_labelers():
    yield Component("interrupt/x", InterruptConfig, "rlaif_interrupt:InterruptLabeler")

@hookimpl
def rlaif_step_logged(number):
    if number != 2 or WHERE in ("import", "nowhere"):
        return
    if WHERE == "finaliser":
        Finaliser()
    elif WHERE == "caught":
        try:
            interrupt()
        except BaseException:
            while True:
                signal.pause()
    else:
        interrupt()

@hookimpl
def rlaif_run_finished(error):
    if WHERE == "twice":
        interrupt()
    print(f"finished with {type(error).__name__}", flush=True)
"""


def start(folder: Path, where: str, *argv: object, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command with the plugin, which interrupts it."""
    if not (folder / "site").exists():
        (folder / "site").mkdir()
        Site(folder / "site").install("rlaif-interrupt", PLUGIN)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
        "RLAIF_PLUGINS": "interrupt",
        "INTERRUPT": where,
    }
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    return subprocess.run(
        [sys.executable, "-m", "rlaif_framework", *map(str, argv)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        # Whoever runs the tests in the background of a shell has them ignore Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Path:
    """A run of supervised fine-tuning with several steps."""
    path = tmp_path / "spec.json"
    policy = {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 4}
    content = {"task": "tldr", "policy": policy, "sft": {"limit": 8, "batch_size": 2}, "evaluate": None}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("where", ["step", "finaliser", "caught", "twice"])
def test_an_interrupted_run_says_how_to_resume_and_resumes(tmp_path: Path, spec: Path, where: str) -> None:
    found = start(tmp_path, where, "run", spec, "--out", "out")
    assert (found.returncode, found.stderr) == (130, f"{MESSAGE}\n"), found
    assert list((tmp_path / "runs" / ".store").glob("sft-*.partial")), "the log of the first steps is gone"
    assert ("finished with KeyboardInterrupt" in found.stdout) == (where == "step")
    resumed = start(tmp_path, "nowhere", "run", spec, "--out", "out")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert "sft: done" in resumed.stdout


def test_an_interrupt_in_an_import_that_catches_it(tmp_path: Path, spec: Path) -> None:
    found = start(tmp_path, "import", "check", spec)
    assert (found.returncode, found.stdout, found.stderr) == (CODE, "", f"{MESSAGE}\n")


def test_interrupted_labels_keep_what_was_done_and_resume(tmp_path: Path) -> None:
    pairs = [{"id": f"c{i}", "prompt": f"Post {i}.", "responses": ["a", "b"]} for i in range(2 * MIN_CHUNK)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    argv = ("label", "pairs.jsonl", "--labeler", "interrupt/x", "--out", "labels.jsonl")
    found = start(tmp_path, f"c{MIN_CHUNK + 1}", *argv)
    assert (found.returncode, found.stderr) == (130, f"{MESSAGE}\n"), found
    assert len((tmp_path / "labels.jsonl.partial").read_text().splitlines()) == MIN_CHUNK
    resumed = start(tmp_path, "nowhere", *argv)
    assert f"resuming after {MIN_CHUNK} of {2 * MIN_CHUNK} comparisons" in resumed.stdout
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in pairs]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [], "a lock was left"


def test_a_process_that_is_to_ignore_ctrl_c_does(tmp_path: Path, spec: Path) -> None:
    found = start(tmp_path, "step", "run", spec, "--out", "out", ignored=True)
    assert found.returncode == 0, found.stderr
    assert "finished with NoneType" in found.stdout


# Raises an interrupt when the module with the name in the second argument is about to be imported.
INTERRUPTED_START = """
import signal, sys
def interrupt(event, args):
    if event == "import" and args[0] == sys.argv[1]:
        signal.raise_signal(signal.SIGINT)
sys.addaudithook(interrupt)
from rlaif_framework.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["rlaif_framework.cli.interrupts", "rlaif_framework.cli.main", "typer", "pydantic"])
def test_an_interrupt_while_the_command_starts(name: str) -> None:
    found = run_python(INTERRUPTED_START, name)
    assert (found.returncode, found.stdout, found.stderr) == (CODE, "", f"{MESSAGE}\n")


def test_the_handler_is_set_before_anything_else_is_imported() -> None:
    script = "import sys; old = set(sys.modules); import rlaif_framework.__main__; print(*set(sys.modules) - old)"
    imported = set(run_python(script).stdout.split())
    assert {name for name in imported if not name.startswith("rlaif_framework")} <= {"__future__", "_signal"}


def run_python(script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
