"""The same spec gives the same run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlaif_framework import PluginManager, Spec
from support.runs import digest, execute


def test_the_same_spec_gives_the_same_run_bit_for_bit(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    execute(tiny_spec(), tmp_path / "again", manager)
    first, second = digest(run_folder), digest(tmp_path / "again")
    assert first == second
    assert len([name for name in first if name.endswith("safetensors")]) == 3


def test_another_seed_gives_another_run(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    execute(tiny_spec(seed=4, evaluate=None), tmp_path / "other", manager)
    assert (
        digest(run_folder)["rlaif/policy/model.safetensors"]
        != digest(tmp_path / "other")["rlaif/policy/model.safetensors"]
    )
