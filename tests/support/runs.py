"""Run tiny specs and compare what they computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

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


def run_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run_folder(shared: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> Path:
    """One finished run for all tests that only look at it."""
    with FileLock(shared / "run.lock"):
        if not (shared / "run" / "report.html").exists():
            execute(tiny_spec(), shared / "run", manager)
    return shared / "run"
