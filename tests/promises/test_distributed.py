"""Two processes under `accelerate launch` do one run together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlaif_framework import PluginManager, Spec, Store, run_spec
from rlaif_framework.contracts import read_metrics
from rlaif_framework.progress import Progress


def test_two_processes_share_every_batch_and_one_writes(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = tiny_spec()
    arm = spec.arms["rlaif"].model_dump(mode="json")
    arm["feedback"]["labeler"] = "length"  # the oracle is known to this process only
    spec = tiny_spec(arms={"rlaif": arm}, evaluate=None)
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, "--module", "rlaif_framework", "run", str(file), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        [*command, "--store", str(tmp_path / "store")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rlaif/policy: done") == 1
    together = tmp_path / "two"
    assert [row["step"] for row in read_metrics(together / "rlaif/policy")] == [1, 2, 3]
    assert json.loads((together / "run.json").read_text())
    run_spec(spec, tmp_path / "one", Store(tmp_path / "own"), manager, Progress())
    # Gradients and losses are averages over all tokens, not of the averages of two processes with unlike lengths.
    for stage in ("sft", "rlaif/reward"):
        alone, shared = (read_metrics(tmp_path / name / stage) for name in ("one", "two"))
        assert len(shared) == len(alone) > 1
        for mine, ours in zip(alone, shared, strict=True):
            assert ours == pytest.approx(mine, rel=1e-3, abs=1e-5), stage
