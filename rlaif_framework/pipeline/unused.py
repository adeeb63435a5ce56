"""Find the artefacts of a store that no run folder uses, and delete them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.files import is_locked, remove_atomic, remove_leftovers
from rlaif_framework.pipeline.run_folder import RECORD
from rlaif_framework.pipeline.run_record import RunRecord, read_family_keys
from rlaif_framework.pipeline.store_use import find_used, locked_for_cleaning, remove_stale_uses
from rlaif_framework.report.family_report import FAMILY
from rlaif_framework.store import MANIFEST, UNFINISHED, Manifest, Store

FINISHED = re.compile(r"[\w-]+-[0-9a-f]{20}")
"""Names of the folders of artefacts."""

Use = Literal["used", "held", "unused", "foreign"]


class StoredArtefact(BaseModel):
    """An artefact of a store, or the checkpoints of an unfinished one."""

    model_config = ConfigDict(frozen=True)

    path: Path
    stage: str
    unfinished: bool
    use: Use
    """`used` by a run folder or a running process; `held` by hard links of a folder elsewhere; `unused`; `foreign` if
    it has something that the store did not write."""
    size: int
    """Size of its files in bytes."""
    frees: int
    """Size of those that no other folder has a hard link to, which deleting it frees."""


class StoreUse(BaseModel):
    """What is in a store, and what uses it."""

    model_config = ConfigDict(frozen=True)

    store: Path
    runs: list[Path]
    """The run folders that were found."""
    artefacts: list[StoredArtefact]

    def select(self, *uses: Use) -> list[StoredArtefact]:
        """Return the artefacts with these uses."""
        return [artefact for artefact in self.artefacts if artefact.use in uses]


def measure_store(store: Store, folders: Sequence[Path]) -> StoreUse:
    """Find out which artefacts of a store are used. Nothing is changed.

    Args:
        store: The store.
        folders: Folders of run folders and families, or such folders themselves.

    Raises:
        SpecError: There is no such folder or store.
        DataError: The record of a run is damaged, so that it is not known what it uses.
    """
    _check_places(store, folders)
    return _measure(store, folders)


def delete_unused(store: Store, folders: Sequence[Path], tell: Callable[[str], None]) -> StoreUse:
    """Delete the unused artefacts of a store. Runs that start meanwhile wait.

    Args:
        store: The store.
        folders: As for `measure_store`.
        tell: Called with a message before waiting for another process, and for an artefact that is in use after all.

    Returns:
        What was there before.

    Raises:
        RlaifError: As for `measure_store`.
    """
    _check_places(store, folders)
    with locked_for_cleaning(store, tell):
        remove_stale_uses(store)
        found = _measure(store, folders)
        for artefact in found.select("unused"):
            if is_locked(artefact.path.with_suffix("")):  # of a process of an earlier version
                tell(f"kept: another process computes {artefact.path}")
            else:
                remove_atomic(artefact.path)
        remove_leftovers(store.root)
    return found


def _check_places(store: Store, folders: Iterable[Path]) -> None:
    if not store.root.is_dir():
        raise SpecError(f"no store at {store.root}; name it with --store")
    for folder in folders:
        if not folder.is_dir():
            raise SpecError(f"no folder of runs at {folder}; name the folders that have your run folders with --runs")


def _measure(store: Store, folders: Sequence[Path]) -> StoreUse:
    used, runs = find_used(store), list[Path]()
    for path in find_runs(folders):
        runs.append(path)
        # Folders of artefacts have the first digits of the key.
        used |= {key[:20] for key in _list_keys(path)}
    artefacts = [_describe(path, used) for path in sorted(store.root.iterdir()) if _is_artefact(path)]
    return StoreUse(store=store.root, runs=runs, artefacts=artefacts)


def find_runs(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the run folders and families in folders, or these folders themselves. Each family is before its members."""
    for folder in folders:
        for path in (folder, *sorted(folder.iterdir())):
            if not path.is_dir():
                continue
            if (path / RECORD).exists():
                yield path
            elif (path / FAMILY).exists():
                yield path
                yield from (member for member in sorted(path.iterdir()) if (member / RECORD).exists())


def _list_keys(path: Path) -> list[str]:
    if (path / RECORD).exists():
        return list(RunRecord.read(path).steps.values())
    return list(read_family_keys(path))


def _is_artefact(path: Path) -> bool:
    named = FINISHED.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)
    return bool(named) and path.is_dir() and not path.is_symlink()


def _describe(path: Path, used: set[str]) -> StoredArtefact:
    name = path.name.removesuffix(".partial")
    stage, _, key = name.rpartition("-")
    unfinished = path.name != name
    files = [Path(place, file).lstat() for place, _, files in os.walk(path) for file in files]
    size, frees = sum(file.st_size for file in files), sum(file.st_size for file in files if file.st_nlink == 1)
    use: Use = "unused"
    if not unfinished and not _is_own(path, stage, key):
        use = "foreign"
    elif key in used or name in used:
        use = "used"
    elif any(file.st_nlink > 1 for file in files):
        use = "held"
    return StoredArtefact(path=path, stage=stage, unfinished=unfinished, use=use, size=size, frees=frees)


def _is_own(path: Path, stage: str, key: str) -> bool:
    """Return True if a folder has a manifest of this artefact, and no other files than those that it lists."""
    try:
        manifest = Manifest.read(path)
    except DataError:
        return False
    if manifest.stage != stage or not manifest.key.startswith(key):
        return False
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_symlink() or not file.is_dir()}
    return found <= {*manifest.files, MANIFEST}
