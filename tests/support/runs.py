"""Run tiny specs and compare what they computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import PluginManager, Spec, Store, run_spec
from rlaif_framework.pipeline.engine import Run
from rlaif_framework.progress import Progress


def execute(spec: Spec, folder: Path, manager: PluginManager, store: Path | None = None, **settings: Any) -> Run:
    return run_spec(
        spec, folder, Store(store or folder.parent / f"{folder.name}-store"), manager, Progress(), **settings
    )


def digest(folder: Path) -> dict[str, str]:
    """Hashes of everything a run computed: weights, labels, responses, metrics; not times."""
    names = ("*.safetensors", "*.jsonl", "evaluation.json", "scores.json")
    files = [f for name in names for f in folder.rglob(name)]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Holds one run for the tests that only look at it."""
    return {"folder": tmp_path_factory.mktemp("runs") / "run"}


@pytest.fixture
def run_folder(finished: dict[str, Any], tiny_spec: Callable[..., Spec], manager: PluginManager) -> Path:
    folder: Path = finished["folder"]
    if not (folder / "report.html").exists():
        execute(tiny_spec(), folder, manager)
    return folder
