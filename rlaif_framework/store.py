"""A content-addressed store of artefacts: a folder that exists is complete."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import DAY, atomic_path, locked, read_own, remove_atomic, remove_leftovers, remove_lock

MANIFEST = "artefact.json"
"""Name of the file that makes a folder a complete artefact."""

LARGEST_MANIFEST = 2**26
"""Maximum size of a manifest in bytes."""

HASHED_BYTES = 4 * 2**20
"""Files up to this size are recorded with a hash, larger ones (weights) with their size only."""

ABANDONED = 30 * DAY
"""Age in seconds at which the checkpoints of an unfinished step are removed."""

UNFINISHED = re.compile(r"[\w-]+-[0-9a-f]{20}\.partial")
"""Names of the folders of unfinished artefacts."""

STEP_LOCK = re.compile(r"\.[\w-]+-[0-9a-f]{20}\.lock")
"""Names of the lock files of steps."""


def hash_content(value: Any) -> str:
    """Return a hash of JSON content. It does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Names of files that are not UTF-8 have surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Manifest(BaseModel):
    """The record of a complete artefact: what its key is computed from, its cost, facts, files and environment."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    stage: str
    key: str
    seed: int | None
    policy: dict[str, Any]
    """The settings of the policy that the artefact depends on."""
    recipe: dict[str, Any]
    """The settings of the stage, the contents of its data, and the artefacts that it was made from."""
    seconds: NonNegativeFloat
    peak_memory_bytes: NonNegativeInt
    facts: dict[str, float | int | str]
    environment: dict[str, Any]
    files: dict[str, dict[str, int | str]]
    """The size or the hash of each file, by its path."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest in the folder of an artefact, in a store or a run folder.

        Raises:
            DataError: It is missing or damaged.
        """
        return read_own(cls, folder / MANIFEST, LARGEST_MANIFEST, _remedy(folder))


class Store:
    """A folder of artefacts that runs share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Return the folder of the artefact of a stage and key, whether it exists or not."""
        # 80 bits of the hash make collisions improbable and keep paths short.
        return self.root / f"{stage}-{key[:20]}"

    def has(self, stage: str, key: str) -> bool:
        """Return True if the artefact is complete."""
        return (self.path(stage, key) / MANIFEST).exists()

    def manifest(self, stage: str, key: str) -> Manifest:
        """Return the record of a complete artefact.

        Raises:
            DataError: The record is damaged.
        """
        return Manifest.read(self.path(stage, key))

    def check(self, stage: str, key: str) -> None:
        """Check that the files of a complete artefact are as they were written.

        Raises:
            DataError: A file is missing, or its size or content has changed. Weights are checked by their size.
        """
        folder = self.path(stage, key)
        for name, written in self.manifest(stage, key).files.items():
            path = folder / name
            if not path.is_file():
                raise DataError(f"{path} is missing; {_remedy(folder)}")
            if _describe_file(path) != written:
                raise DataError(f"{path} is damaged: it has changed since it was written; {_remedy(folder)}")

    def lock(self, stage: str, key: str, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Prevent other processes from computing the same artefact at the same time.

        Args:
            stage: The stage.
            key: The key.
            tell: Called with a message before waiting for another process.
        """
        return locked(self.path(stage, key), f"computes {stage} in {self.root}", tell)

    def begin(self, stage: str, key: str) -> tuple[Path, Path]:
        """Create the working folder and the checkpoint folder of an artefact. Both survive an interruption.

        Raises:
            RlaifError: One of them is a link, through which the artefact would be written elsewhere.
        """
        partial = self.path(stage, key).with_suffix(".partial")
        work, checkpoint = partial / "work", partial / "checkpoint"
        for folder in (partial, work, checkpoint):
            if folder.is_symlink():
                raise RlaifError(f"{folder} is a link, and artefacts are written only into the store; remove it")
        for folder in (work, checkpoint):
            folder.mkdir(parents=True, exist_ok=True)
            for place in [folder, *filter(Path.is_dir, folder.rglob("*"))]:
                remove_leftovers(place)  # of a run that was killed while it wrote a file
        return work, checkpoint

    def commit(self, stage: str, key: str, manifest: Mapping[str, Any]) -> Path:
        """Complete an artefact: write its manifest, rename the folder to its final name, delete its checkpoints."""
        final = self.path(stage, key)
        partial = final.with_suffix(".partial")
        work = partial / "work"
        files = {str(path.relative_to(work)): path for path in sorted(work.rglob("*")) if path.is_file()}
        files.pop(MANIFEST, None)  # of an earlier attempt
        written = {name: _describe_file(path) for name, path in files.items()}
        # Written before the folder is renamed: a folder with the final name then always has its manifest.
        text = json.dumps({**manifest, "files": written}, indent=1, ensure_ascii=False)
        (work / MANIFEST).write_text(text, encoding="utf-8")
        work.rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        return final

    def remove_leftovers(self) -> None:
        """Remove what killed runs left: temporary files, locks, and checkpoints that no run will resume from.

        These are the checkpoints of finished steps, and those of steps that nobody resumed for 30 days.
        """
        remove_leftovers(self.root)
        for lock in self.root.glob(".*.lock"):
            if STEP_LOCK.fullmatch(lock.name):
                remove_lock(lock)
        for partial in self.root.glob("*.partial"):
            if not UNFINISHED.fullmatch(partial.name) or partial.is_symlink():
                continue  # not of this store
            with suppress(FileNotFoundError):  # another run has just finished it
                finished = (partial.with_suffix("") / MANIFEST).exists()
                if finished or _newest(partial) < time.time() - ABANDONED:
                    shutil.rmtree(partial, ignore_errors=True)


def _remedy(folder: Path) -> str:
    return f"delete the folder {folder} and rerun the same spec to compute it again"


def _describe_file(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size} if size > HASHED_BYTES else {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _newest(folder: Path) -> float:
    """Return the time of the last change in a folder."""
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)


def link_tree(source: Path, target: Path, keep: str | None = None) -> None:
    """Copy an artefact to `target`, with hard links if the file system supports them.

    Args:
        source: The artefact.
        target: Its place, whose content is replaced.
        keep: Name of a file at the place that stays, unless the artefact has one of this name.
    """
    with atomic_path(target) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)  # left by an earlier process with the same id
        shutil.copytree(source, temporary, copy_function=_link_file)
        if keep is not None and not (source / keep).exists():
            _link_file(str(target / keep), str(temporary / keep))
        if target.exists():  # a folder that is not empty cannot be replaced by renaming
            remove_atomic(target)


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
    return target
