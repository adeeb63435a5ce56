"""An interrupted run resumes to the same result as an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif_framework import DataError, PluginManager, Spec, Stage, Store, TrainingError, load_spec
from rlaif_framework.prompting.chunks import MIN_CHUNK
from rlaif_framework.records.rows import load_comparisons
from support.fake_plugins import Site
from support.runs import digest, execute


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def copy_store(run_folder: Path, store: Path, without: str) -> Path:
    """The store of a finished run, in which the artefacts of one stage are to be made again."""
    shutil.copytree(run_folder.with_name("run-store"), store)
    for artefact in store.glob(f"{without}-*/"):
        shutil.rmtree(artefact)
    return store


@pytest.mark.parametrize("stage", ["sft", "reward", "improve"])
def test_killed_in_training_and_resumed_equals_uninterrupted(
    stage: str,
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Stage.log

    def kill(self: Stage, number: int, metrics: Any) -> None:
        log(self, number, metrics)
        if self.name == stage and number == 2:
            raise Killed

    store = copy_store(run_folder, tmp_path / "store", without=stage)
    monkeypatch.setattr(Stage, "log", kill)
    with pytest.raises(Killed):
        execute(tiny_spec(), tmp_path / "killed", manager, store, checkpoint_seconds=0)
    monkeypatch.setattr(Stage, "log", log)
    (partial,) = store.glob(f"{stage}-*.partial")
    assert (partial / "checkpoint" / "step-1").is_dir(), "resuming must be from a checkpoint, not from scratch"
    execute(tiny_spec(), tmp_path / "killed", manager, store, checkpoint_seconds=0)
    assert digest(tmp_path / "killed") == digest(run_folder)


@pytest.mark.parametrize("stage", ["sample", "label", "respond", "score", "judge", "evaluate"])
def test_killed_in_any_other_stage_and_resumed_equals_uninterrupted(
    stage: str,
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = Store.commit

    def kill(self: Store, name: str, *rest: Any) -> Path:
        if name == stage:
            raise Killed
        return commit(self, name, *rest)

    store = copy_store(run_folder, tmp_path / "store", without=stage)
    monkeypatch.setattr(Store, "commit", kill)
    with pytest.raises(Killed):
        execute(tiny_spec(), tmp_path / "killed", manager, store)
    monkeypatch.setattr(Store, "commit", commit)
    execute(tiny_spec(), tmp_path / "killed", manager, store)
    assert digest(tmp_path / "killed") == digest(run_folder)


RUN = """
import sys
from pathlib import Path
from rlaif_framework import PluginManager, Store, load_spec, run_spec
spec, out, store = map(Path, sys.argv[1:])
run_spec(load_spec(spec), out, Store(store), PluginManager.load(), checkpoint_seconds=0)
"""


WAITING = """
import os, signal
from typing import Literal
from rlaif_framework import Component, LabelerConfig, Evidence, Preference, hookimpl

def wait_to_be_killed():
    print("waiting", flush=True)
    while True:
        signal.pause()

class WaitingConfig(LabelerConfig):
    kind: Literal["waiting/x"] = "waiting/x"

class WaitingLabeler:
    def __init__(self, config, context):
        pass

    def label(self, comparisons):
        for c in comparisons:
            if os.environ["WAIT_IN"] == f"label {c.id}":
                wait_to_be_killed()
            first = len(c.responses[0]) / (len(c.responses[0]) + len(c.responses[1]))
            yield Preference(c.id, (first, 1 - first), Evidence("waiting/x"))

@hookimpl
def rlaif_labelers():
    yield Component("waiting/x", WaitingConfig, "rlaif_waiting:WaitingLabeler")

@hookimpl
def rlaif_step_logged(step, number):
    if os.environ["WAIT_IN"] == f"{step.stage} {number}":
        wait_to_be_killed()
"""


def test_a_process_killed_in_labelling_and_in_training_goes_on_to_the_same_result(
    tmp_path: Path, tiny_spec: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("RLAIF_PLUGINS", "waiting")
    monkeypatch.setenv("WAIT_IN", "nothing")
    Site(tmp_path / "site").install("rlaif-waiting", WAITING)
    spec = tiny_spec(sft=None, evaluate=None, arms={}).model_dump(mode="json")
    feedback = {"kind": "ai", "labeler": "waiting/x", "pairs": {"limit": 96}, "allow_weak_labels": True}
    spec["arms"] = {"a": {"feedback": feedback, "algorithm": {"kind": "dpo", "lr": 1e-3, "batch_size": 16}}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    manager = PluginManager.load()
    loaded = load_spec(tmp_path / "spec.json", (), manager)
    execute(loaded, tmp_path / "whole", manager, checkpoint_seconds=0)
    store = tmp_path / "killed-store"

    def kill_in(place: str) -> None:
        argv = [str(tmp_path / name) for name in ("spec.json", "killed", "killed-store")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WAIT_IN": place}
        process = subprocess.Popen([sys.executable, "-c", RUN, *argv], env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert any(line == "waiting\n" for line in process.stdout), "it ended before it could be killed"
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    comparisons = load_comparisons(tmp_path / "whole/a/pairs/comparisons.jsonl")
    kill_in(f"label {comparisons[MIN_CHUNK + 1].id}")
    (labels,) = store.glob("label-*.partial/checkpoint/preferences.jsonl")
    assert len(labels.read_bytes().splitlines()) >= MIN_CHUNK
    assert not list(store.glob("label-*/artefact.json"))
    kill_in("improve 2")
    assert not list(store.glob("improve-*/artefact.json"))
    assert list(store.glob("improve-*.partial/checkpoint/step-*"))
    execute(loaded, tmp_path / "killed", manager, store, checkpoint_seconds=0)
    killed, whole = digest(tmp_path / "killed"), digest(tmp_path / "whole")
    assert "a/policy/model.safetensors" in whole
    if torch.cuda.is_available():  # training there is not bit for bit, see docs/determinism.md
        killed, whole = ({n: d for n, d in x.items() if not n.startswith("a/policy")} for x in (killed, whole))
    assert killed == whole


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff" * 100])
def test_a_damaged_checkpoint_is_named_with_what_to_do(
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
) -> None:
    log = Stage.log

    def kill(self: Stage, number: int, metrics: Any) -> None:
        log(self, number, metrics)
        if self.name == "sft" and number == 2:
            raise Killed

    store = copy_store(run_folder, tmp_path / "store", without="sft")
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "log", kill)
        with pytest.raises(Killed):
            execute(tiny_spec(), tmp_path / "killed", manager, store, checkpoint_seconds=0)
    (checkpoint,) = store.glob("sft-*.partial/checkpoint")
    (checkpoint / "step-1" / name).write_bytes(content)
    with pytest.raises(TrainingError, match=f"left in {checkpoint} cannot be read .*; delete {checkpoint} and "):
        execute(tiny_spec(), tmp_path / "killed", manager, store, checkpoint_seconds=0)
    for folder in (checkpoint, checkpoint.with_name("work")):
        shutil.rmtree(folder)
    execute(tiny_spec(), tmp_path / "killed", manager, store)
    assert digest(tmp_path / "killed") == digest(run_folder)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("sft", "config.json"),
        ("evaluation/scores/rlaif", "scores.json"),
        ("evaluation/wins/rlaif-vs-sft", "*.jsonl"),
        ("rlaif/labels", "artefact.json"),
    ],
)
def test_a_damaged_artefact_is_named_with_what_to_do(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, step: str, name: str
) -> None:
    store = copy_store(run_folder, tmp_path / "store", without="nothing")
    key = json.loads((run_folder / "run.json").read_text())["steps"][step]
    (path,) = store.glob(f"*-{key[:20]}/{name}")  # the store may have artefacts of other runs
    path.write_text("[]")
    remedy = f"{path} is damaged: .*; delete the folder {path.parent} and rerun"
    with pytest.raises(DataError, match=remedy):
        execute(tiny_spec(), tmp_path / "again", manager, store)
    shutil.rmtree(path.parent)
    execute(tiny_spec(), tmp_path / "again", manager, store)
    assert digest(tmp_path / "again") == digest(run_folder)
