"""Open the folder of a run, which has its record, its resolved spec, and a copy of each artefact.

A run folder may come from a stranger. Only folders with the manifest of an artefact are removed or replaced, and no
link is followed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from rlaif_framework.data.mappings import YamlDumper
from rlaif_framework.errors import SpecError
from rlaif_framework.files import read_regular, remove_atomic, remove_leftovers, user_path, write_atomic
from rlaif_framework.pipeline.environment import describe_environment
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.report.card_file import CARD, is_edited
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import MANIFEST, link_tree

RECORD = "run.json"
REPORTS = ("report.html", "report.json", "report.md")

LARGEST_RECORD = 2**24
"""Maximum size of a record in bytes."""

StepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
"""The name of a step, such as `rlaif/reward`."""


class StepKeys(BaseModel):
    """The content of `run.json`."""

    model_config = ConfigDict(frozen=True)

    steps: dict[StepName, str]
    """The keys of the steps by name, in order."""


def default_store() -> Path:
    """Return the default folder of artefacts: `RLAIF_STORE`, or else `runs/.store` in the current folder."""
    return user_path(os.environ.get("RLAIF_STORE") or "runs/.store")


def create_folder(title: str) -> Path:
    """Create a new run folder: `runs/<name>-<time>`, with a number if another run has started in the same second."""
    name = f"{title}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable")


def check_folder(folder: Path) -> None:
    """Refuse a path that exists and is not a run folder.

    Raises:
        SpecError: The path is a file, or a folder with other content, or a folder with links, or its record was not
            written by a run.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECORD).exists())):
        raise SpecError(f"{folder} exists and is not a run folder; choose another --out")
    for place, folders, files in os.walk(folder):  # follows no links
        for name in (*folders, *files):
            check_link(Path(place, name))
    _read_steps(folder)


def check_link(place: Path) -> None:
    """Refuse a link, through which a run would write, replace or delete files elsewhere.

    Raises:
        SpecError: It is one.
    """
    if place.is_symlink():
        raise SpecError(f"{place} is a link, and runs write only into their own folder; remove it")


def _read_steps(folder: Path) -> dict[str, str]:
    """Return the keys of the steps of earlier runs by name; empty without a record, or if it is truncated."""
    try:
        record = json.loads(read_regular(folder / RECORD, LARGEST_RECORD))
    except (FileNotFoundError, ValueError):
        return {}
    except (OSError, RecursionError) as error:
        raise SpecError(f"cannot read {folder / RECORD}: {error}; choose another --out") from error
    try:
        return StepKeys.model_validate(record).steps
    except ValidationError:
        raise SpecError(
            f"{folder / RECORD} was not written by a run: its steps are not the names and keys of artefacts in this "
            "folder; choose another --out"
        ) from None


def _find_place(folder: Path, name: str) -> Path:
    """Return the path of a step's artefact in a run folder.

    Raises:
        SpecError: It leads through a link, or something that no run wrote is there.
    """
    place = folder
    for part in name.split("/"):
        place /= part
        check_link(place)
    if place.exists() and not (place / MANIFEST).is_file():
        raise SpecError(f"{place} was not written by a run; move it away, or choose another --out")
    return place


def place_artefact(source: Path, folder: Path, name: str) -> None:
    """Copy an artefact into a run folder, in place of the one of an earlier version of the spec; an edited card stays.

    Raises:
        SpecError: Its place leads through a link, or something that no run wrote is there.
    """
    place = _find_place(folder, name)
    link_tree(source, place, keep=CARD if is_edited(place / CARD) else None)


def open_folder(folder: Path, spec: Spec, steps: Sequence[Step]) -> None:
    """Create or update a run folder, and remove artefacts and reports of earlier versions of the spec from it.

    What a killed run left is removed as well.

    Raises:
        SpecError: The record of the folder was not written by a run, or the place of an artefact is not free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    current = {step.name: step.key for step in steps}
    previous = _read_steps(folder)
    places = {name: _find_place(folder, name) for name in {**previous, **current}}
    for parent in {folder, *(place.parent for place in places.values())}:
        remove_leftovers(parent)
    for name in set(previous) - set(current):
        if places[name].exists():
            remove_atomic(places[name])
    if previous != current:  # the report would describe other artefacts
        for name in REPORTS:
            (folder / name).unlink(missing_ok=True)
    write_atomic(record, json.dumps({"steps": current}, indent=1))
    resolved = yaml.dump(spec.model_dump(mode="json"), Dumper=YamlDumper, sort_keys=False, allow_unicode=True)
    write_atomic(folder / "spec.yaml", resolved)
    write_atomic(folder / "environment.json", json.dumps(describe_environment(), indent=1))
