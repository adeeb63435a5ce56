"""Open the folder of a run, which has its record, its resolved spec, and a copy of each artefact."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import yaml

from rlaif_framework.errors import SpecError
from rlaif_framework.files import read_json, remove_leftovers, write_atomic
from rlaif_framework.pipeline.environment import describe_environment
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.spec.model import Spec

RECORD = "run.json"
REPORTS = ("report.html", "report.json")


def default_store() -> Path:
    """Return the default folder of artefacts: `RLAIF_STORE`, or else `runs/.store` in the current folder."""
    return Path(os.environ.get("RLAIF_STORE") or "runs/.store")


def create_folder(spec: Spec) -> Path:
    """Create a new run folder: `runs/<name>-<time>`, with a number if another run has started in the same second."""
    name = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable")


def check_folder(folder: Path) -> None:
    """Refuse a path that exists and is not a run folder.

    Raises:
        SpecError: The path is a file, or a folder with other content.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECORD).exists())):
        raise SpecError(f"{folder} exists and is not a run folder; choose another --out")


def open_folder(folder: Path, spec: Spec, steps: Sequence[Step]) -> None:
    """Create or update a run folder, and remove artefacts and reports of earlier versions of the spec from it.

    What a killed run left is removed as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for parent in {folder, *((folder / step.name).parent for step in steps)}:
        remove_leftovers(parent)
    record = folder / RECORD
    current = {step.name: step.key for step in steps}
    previous = (read_json(record) or {"steps": {}})["steps"]
    for name in set(previous) - set(current):
        shutil.rmtree(folder / name, ignore_errors=True)
    if previous != current:  # the report would describe other artefacts
        for name in REPORTS:
            (folder / name).unlink(missing_ok=True)
    write_atomic(record, json.dumps({"steps": current}, indent=1))
    resolved = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(folder / "spec.yaml", resolved)
    write_atomic(folder / "environment.json", json.dumps(describe_environment(), indent=1))
