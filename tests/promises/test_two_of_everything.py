"""Two processes that do the same at the same time give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework import Spec
from rlaif_framework.files import locked
from support.fake_plugins import write_rows
from support.runs import digest

ROWS = [{"id": i, "prompt": f"Post {i}.", "responses": ["a" * (i % 7 + 1), "b" * (i % 5 + 2)]} for i in range(3000)]


def start(folder: Path, *argv: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rlaif_framework", *map(str, argv)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.fixture
def spec(tmp_path: Path, tiny_spec: Callable[..., Spec]) -> Path:
    """A run of supervised fine-tuning, and an arm that is trained on labels."""
    path = tmp_path / "spec.json"
    arm = {
        "feedback": {"kind": "ai", "labeler": "length", "pairs": {"limit": 16}, "allow_weak_labels": True},
        "algorithm": {"kind": "dpo", "lr": 1e-3, "batch_size": 8},
    }
    path.write_text(tiny_spec(arms={"a": arm}, evaluate=None).model_dump_json())
    return path


def test_labels_that_two_processes_write(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", ROWS)
    argv = ("label", "pairs.jsonl", "--labeler", "length", "--out", "labels.jsonl")
    found = [finish(process) for process in [start(tmp_path, *argv), start(tmp_path, *argv)]]
    codes = sorted(code for code, _, _ in found)
    assert codes in ([0, 0], [0, 2]), found  # [0, 0] if the second started after the first had finished
    for code, _, err in found:
        if code == 2:
            assert err.endswith("; wait until it has finished, or choose another name\n")
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(row["id"]) for row in ROWS]


def test_a_process_that_finds_its_labels_or_run_folder_taken(tmp_path: Path, spec: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", ROWS[:4])
    with locked(tmp_path / "labels.jsonl", "writes labels.jsonl"), locked(tmp_path / "out", "runs tiny in out"):
        label = finish(start(tmp_path, "label", "pairs.jsonl", "--labeler", "length", "--out", "labels.jsonl"))
        run = finish(start(tmp_path, "run", spec, "--out", "out"))
    for (code, _, err), work in ((label, "writes labels.jsonl"), (run, "runs tiny in out")):
        assert code == 2
        assert err.startswith(f"rlaif: process {os.getpid()} on ")
        assert err.endswith(f" {work}; wait until it has finished, or choose another name\n")
    assert not (tmp_path / "labels.jsonl").exists()
    assert not (tmp_path / "out").exists()


def test_runs_that_share_a_store_and_choose_their_folders(tmp_path: Path, spec: Path) -> None:
    found = [finish(process) for process in [start(tmp_path, "run", spec), start(tmp_path, "run", spec)]]
    assert [code for code, _, _ in found] == [0, 0], found
    first, second = sorted(path for path in (tmp_path / "runs").iterdir() if path.name != ".store")
    assert digest(first) == digest(second)
    assert "a/policy/model.safetensors" in digest(first)
    for stage in ("sft", "label", "improve"):
        assert len(list((tmp_path / "runs" / ".store").glob(f"{stage}-*"))) == 1
    assert not list((tmp_path / "runs").rglob(".*.lock"))
