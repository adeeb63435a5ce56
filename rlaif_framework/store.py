"""Content-addressed artefacts: a folder that exists is complete, and the same key is never computed twice."""

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

MANIFEST = "artefact.json"


def hash_content(value: Any) -> str:
    """Hash plain JSON content, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a file whole or not at all: a full disk leaves what was there before."""
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if there is no file, or one that was broken off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


class Store:
    """A folder of artefacts, shared by runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Where the artefact of this stage and key is, or will be."""
        return self.root / f"{stage}-{key[:20]}"

    def has(self, stage: str, key: str) -> bool:
        """Whether the artefact is complete."""
        return (self.path(stage, key) / MANIFEST).exists()

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """What is recorded about a complete artefact: config, inputs, seconds, peak memory, versions."""
        return dict(json.loads((self.path(stage, key) / MANIFEST).read_text(encoding="utf-8")))

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Keep other processes from computing the same artefact at the same time."""
        self.root.mkdir(parents=True, exist_ok=True)
        # The empty lock file stays: removing it would let a third process lock a new one beside a waiting second.
        with FileLock(f"{self.path(stage, key)}.lock"):
            yield

    def begin(self, stage: str, key: str) -> tuple[Path, Path]:
        """Open the working folder of an artefact and its checkpoint folder; both outlive an interruption."""
        partial = self.path(stage, key).with_suffix(".partial")
        work, checkpoint = partial / "work", partial / "checkpoint"
        work.mkdir(parents=True, exist_ok=True)
        checkpoint.mkdir(parents=True, exist_ok=True)
        return work, checkpoint

    def commit(self, stage: str, key: str, manifest: Mapping[str, Any]) -> Path:
        """Complete an artefact: write its manifest, rename the folder into place, drop its checkpoints."""
        final = self.path(stage, key)
        partial = final.with_suffix(".partial")
        (partial / "work" / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        (partial / "work").rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        return final


def link_tree(source: Path, target: Path) -> None:
    """Put a copy of an artefact at `target`, as hard links where the file system allows, else as copies."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary, copy_function=_link_file)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def cache_folder() -> Path:
    """Folder of converted models and kept answers: RLAIF_CACHE, else `~/.cache/rlaif-framework`."""
    root = os.environ.get("RLAIF_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "rlaif-framework"
