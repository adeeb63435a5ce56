"""Atomic files, and a content-addressed store of artefacts: a folder that exists is complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from rlaif_framework.errors import RlaifError

MANIFEST = "artefact.json"
"""Name of the file that makes a folder a complete artefact."""


def hash_content(value: Any) -> str:
    """Return a hash of JSON content. It does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, and rename it to `path` at the end of the block.

    If the block fails, e.g. because the disk is full, the temporary path is removed and `path` stays as it was.
    """
    # In the same folder, since renaming across file systems is not atomic. The process id allows concurrent writers.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or invalid, e.g. truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


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

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """Return the record of a complete artefact: what its key is computed from, its cost, facts, environment."""
        return dict(json.loads((self.path(stage, key) / MANIFEST).read_text(encoding="utf-8")))

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Prevent other processes from computing the same artefact at the same time."""
        self.root.mkdir(parents=True, exist_ok=True)
        # The empty lock file is kept: if it were removed, a third process could lock a new file while a second still
        # waits for the old one.
        with FileLock(f"{self.path(stage, key)}.lock"):
            yield

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
        work.mkdir(parents=True, exist_ok=True)
        checkpoint.mkdir(parents=True, exist_ok=True)
        return work, checkpoint

    def commit(self, stage: str, key: str, manifest: Mapping[str, Any]) -> Path:
        """Complete an artefact: write its manifest, rename the folder to its final name, delete its checkpoints."""
        final = self.path(stage, key)
        partial = final.with_suffix(".partial")
        # Written before the folder is renamed: a folder with the final name then always has its manifest.
        (partial / "work" / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        (partial / "work").rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        return final


def link_tree(source: Path, target: Path) -> None:
    """Copy an artefact to `target`, with hard links if the file system supports them."""
    with atomic_path(target) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)  # left by an earlier process with the same id
        shutil.copytree(source, temporary, copy_function=_link_file)
        shutil.rmtree(target, ignore_errors=True)  # a folder that is not empty cannot be replaced by renaming


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
    return target


def cache_folder() -> Path:
    """Return the folder of converted models and cached answers: $RLAIF_CACHE or `~/.cache/rlaif-framework`."""
    root = os.environ.get("RLAIF_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "rlaif-framework"
