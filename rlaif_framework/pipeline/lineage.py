"""Describe what an artefact was made from, by the manifests in a run folder or a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rlaif_framework.errors import DataError
from rlaif_framework.pipeline.run_folder import RECORD
from rlaif_framework.pipeline.run_record import RunRecord
from rlaif_framework.store import MANIFEST, Manifest, Store

ARTEFACT = re.compile(r"[\w-]+-[0-9a-f]+")
"""Stage and key of an artefact."""

Find = Callable[[str, str], Path | None]
"""Returns the folder of the artefact of a stage and key; None if it is not there."""


class _Place(NamedTuple):
    """A run folder or a store."""

    root: Path
    find: Find


class Lineage(BaseModel):
    """An artefact, and those that it was made from."""

    model_config = ConfigDict(frozen=True)

    role: str
    """What it is for the artefact that was made from it, as a path in its settings; empty for the artefact itself."""
    name: str
    """Its path in the run folder or the store."""
    stage: str
    key: str
    path: Path | None
    """Its folder; None if it is not there any more."""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    seed: int | None = None
    settings: dict[str, Any] = {}
    """Everything else that it depends on: the settings of the stage and of the policy, and the contents of its data."""
    facts: dict[str, float | int | str] = {}
    environment: dict[str, Any] = {}
    """Versions and hardware."""
    inputs: list[Lineage] = []
    """The artefacts that it was made from. One that several need is complete at the first of them only."""
    repeated: bool = False
    """True if it is complete elsewhere in the tree."""


def trace_artefact(path: Path) -> Lineage:
    """Return what an artefact was made from.

    Args:
        path: Its folder, or a file or folder in it. Its inputs are looked for in the same run folder or store.

    Raises:
        DataError: The path belongs to no artefact, or its manifest is damaged.
    """
    start = path.absolute()
    folder = next((place for place in (start, *start.parents) if (place / MANIFEST).is_file()), None)
    if folder is None:
        hint = "; name an artefact in it, such as rlaif/policy" if (path / RECORD).exists() else ""
        raise DataError(f"{path} belongs to no artefact: no folder above it has an {MANIFEST}{hint}")
    manifest = Manifest.read(folder)
    return _trace("", manifest.stage, manifest.key, folder, _find_place(folder), set())


def _find_place(folder: Path) -> _Place:
    """Return where an artefact is. Others are found there by the record of the run, or by their names in the store."""
    run = next((place for place in folder.parents if (place / RECORD).is_file()), None)
    if run is None:
        store = Store(folder.parent)
        return _Place(folder.parent, lambda stage, key: store.path(stage, key) if store.has(stage, key) else None)
    record = RunRecord.read(run)
    names = {key: name for name, key in record.steps.items() if name in record.manifests}
    return _Place(run, lambda stage, key: run / names[key] if key in names else None)


def _trace(role: str, stage: str, key: str, folder: Path | None, place: _Place, seen: set[str]) -> Lineage:
    name = "" if folder is None else str(folder.relative_to(place.root))
    if folder is None or key in seen:
        return Lineage(role=role, name=name, stage=stage, key=key, path=folder, repeated=folder is not None)
    seen.add(key)
    manifest = Manifest.read(folder)
    inputs = [_trace(path, *own, place.find(*own), place, seen) for path, own in _find_inputs(manifest.recipe, "")]
    return Lineage(
        role=role,
        name=name,
        stage=stage,
        key=key,
        path=folder,
        seconds=manifest.seconds,
        peak_memory_bytes=manifest.peak_memory_bytes,
        seed=manifest.seed,
        settings={"policy": manifest.policy, **_drop_inputs(manifest.recipe)},
        facts=manifest.facts,
        environment=manifest.environment,
        inputs=inputs,
    )


def _find_inputs(value: Any, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the artefacts that a recipe names: their paths in it, with their stages and keys."""
    if _is_input(value):
        yield path, (value["stage"], value["key"])
    elif isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in items:
            yield from _find_inputs(inner, f"{path}.{name}" if path else str(name))


def _drop_inputs(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _drop_inputs(inner) for name, inner in value.items() if not _is_input(inner)}
    return [_drop_inputs(inner) for inner in value if not _is_input(inner)] if isinstance(value, list) else value


def _is_input(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"stage", "key"}:
        return False
    return ARTEFACT.fullmatch(f"{value['stage']}-{value['key']}") is not None
