"""Protect the artefacts that a run needs while `rlaif gc` may delete others in the same store.

A run writes the names of its artefacts into a file of the store, and holds a lock as long as it needs them. The file of
a killed run is not protected by a lock any more, and is ignored.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel

from rlaif_framework.files import is_locked, locked, read_own, remove_lock, write_atomic
from rlaif_framework.pipeline.run_folder import LARGEST_RECORD
from rlaif_framework.store import Store

USE = re.compile(r"\.(use-\d+-[0-9a-f]{8})\.json")
"""Names of the files of runs."""

CLEANING = "cleaning"
"""Name of the lock that is held while artefacts are deleted, or a run registers those that it needs."""

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class _Use(BaseModel):
    """The content of the file of a run."""

    artefacts: list[str]


@contextmanager
def used_artefacts(store: Store, steps: Iterable[tuple[str, str]], tell: Callable[[str], None]) -> Iterator[None]:
    """Protect artefacts within the block, whether they exist already or are made in it.

    Args:
        store: The store.
        steps: The stages and keys of the artefacts.
        tell: Called with a message before waiting for a process that deletes others.
    """
    name = f"use-{os.getpid()}-{secrets.token_hex(4)}"
    file = store.root / f".{name}.json"
    names = sorted({store.path(stage, key).name for stage, key in steps})
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(store.root / name, f"needs artefacts in {store.root}"))
            with locked_for_cleaning(store, tell):
                remove_stale_uses(store)
                write_atomic(file, json.dumps({"artefacts": names}))
            stack.callback(file.unlink, missing_ok=True)
        except OSError as error:
            if error.errno not in READ_ONLY:  # nothing can be deleted there either
                raise
        yield


@contextmanager
def locked_for_cleaning(store: Store, tell: Callable[[str], None]) -> Iterator[None]:
    """Let no other process delete artefacts, or begin to need some, within the block."""
    with locked(store.root / CLEANING, f"deletes artefacts in {store.root}, or registers a run", tell):
        yield


def find_used(store: Store) -> set[str]:
    """Return the names of the artefacts that running processes need.

    Raises:
        DataError: The file of a running process is damaged.
    """
    found: set[str] = set()
    for file, is_running in _list_uses(store):
        if is_running:
            found.update(read_own(_Use, file, LARGEST_RECORD, "wait until the run has ended").artefacts)
    return found


def remove_stale_uses(store: Store) -> None:
    """Remove the files of processes that were killed, some of which have only locked theirs."""
    for file in {path.with_suffix(".json") for path in store.root.glob(".use-*")}:
        name, lock = USE.fullmatch(file.name), file.with_suffix(".lock")
        if name is not None and not lock.is_symlink() and not is_locked(store.root / name[1]):
            file.unlink(missing_ok=True)
            remove_lock(lock)


def _list_uses(store: Store) -> Iterator[tuple[Path, bool]]:
    """Yield the files of runs, and whether each is still running."""
    for file in sorted(store.root.glob(".use-*.json")):
        name = USE.fullmatch(file.name)
        if name is not None and not file.is_symlink():
            yield file, is_locked(store.root / name[1])
