"""Find a data set's rows by split: files, folders, or the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Split

# What data sets call their splits; OpenAI selected models on valid1 and kept valid2 for the final evaluation.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "valid1", "dev", "val"),
    "test": ("test", "valid2"),
}


T = TypeVar("T")


CUE = "\n\nAssistant:"


HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set and where it stands."""

    values: Mapping[str, Any]
    where: str
    """File and line, for error messages."""
    number: int = 0
    """The line, counted from 1."""


Splits = dict[Split, list[Row]]


Subject = Callable[[Mapping[str, Any]], str]


def find_subject(values: Mapping[str, Any]) -> str:
    """The text a row is about: its post or prompt, or a transcript up to its last turn; its id if it has no text."""
    text = next((values[name] for name in ("post", "prompt") if values.get(name)), None)
    if text is None and isinstance(chosen := values.get("chosen"), str):
        text = chosen.rpartition(CUE)[0]
    return str(text).removesuffix(CUE) if text else str(values.get("id") or "")


def read_splits(
    place: str | dict[Split, str],
    shares: tuple[float, float],
    subject: Subject = find_subject,
) -> Splits:
    """Read all rows of a data set, by split; all of them, so that a bad row is met before anything is computed.

    Args:
        place: A file, a folder, a hub id, or a file for each split.
        shares: Shares of validation and test where the data itself has no splits.
        subject: Gives the text a row is about. Rows about one text are put into one split, whichever file they are in.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    if isinstance(place, dict):
        return {split: list(_read_file(Path(place[split]))) if split in place else [] for split in SPLIT_NAMES}
    path = Path(place).expanduser()
    if path.is_dir():
        return _read_folder(path, shares, subject)
    if path.exists() or not HUB_ID.match(place) or place.endswith((".jsonl", ".json", ".gz")):
        return _divide(_read_file(path), shares, subject)
    return _read_hub(place, shares, subject)


def _read_file(path: Path) -> Iterator[Row]:
    for number, values in read_rows(path):
        yield Row(values, f"{path}, line {number}", number)


def _read_folder(folder: Path, shares: tuple[float, float], subject: Subject) -> Splits:
    files = sorted(f for pattern in ("*.jsonl", "*.jsonl.gz", "*.json") for f in folder.glob(pattern))
    if not files:
        raise DataError(f"{folder} holds no .jsonl file")
    found = _pick_named({f.name.partition(".")[0]: f for f in files})
    if found:
        return {split: list(_read_file(found[split])) if split in found else [] for split in SPLIT_NAMES}
    return _divide((row for file in files for row in _read_file(file)), shares, subject)


def _read_hub(place: str, shares: tuple[float, float], subject: Subject) -> Splits:
    from datasets import load_dataset

    try:
        data = load_dataset(place)
    except Exception as error:  # datasets raises many kinds: no network, no such set, a loading script, a bad file
        raise DataError(
            f"there is no '{place}' here, and it cannot be loaded from the hub: {type(error).__name__}: {error}. "
            f"A set that is a loading script no longer loads: download its JSON Lines files and give their folder"
        ) from error
    rows = {name: [Row(dict(r), f"{place}, {name}, row {i}", i) for i, r in enumerate(data[name])] for name in data}
    found = _pick_named(rows)
    if set(found) == {"train"}:
        return _divide(iter(found["train"]), shares, subject)
    return {split: found.get(split, []) for split in SPLIT_NAMES}


def _pick_named(given: Mapping[str, T]) -> dict[Split, T]:
    """What goes by a split's name, the first of its names that is there."""
    return {
        split: given[name]
        for split, names in SPLIT_NAMES.items()
        for name in [next((n for n in names if n in given), "")]
        if name
    }


def _divide(rows: Iterator[Row], shares: tuple[float, float], subject: Subject) -> Splits:
    """Sort rows into splits by their `split` field, else by a hash of what they are about."""
    found: Splits = {split: [] for split in SPLIT_NAMES}
    for row in rows:
        named = row.values.get("split")
        if isinstance(named, str):
            split = next((s for s, names in SPLIT_NAMES.items() if named in names), None)
            if split is None:
                known = ", ".join(name for names in SPLIT_NAMES.values() for name in names)
                raise DataError(f"{row.where}: unknown split '{named}'; known: {known}")
        elif named is not None:
            raise DataError(f"{row.where}: 'split' is {short(named)}, not the name of a split")
        else:
            split = _hash_split(subject(row.values) or str(row.values), shares)
        found[split].append(row)
    return found


def _hash_split(subject: str, shares: tuple[float, float]) -> Split:
    # All rows about one text go to one split, whatever file they are in, its order, their ids and their spaces.
    words = " ".join(subject.split())
    point = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
    if point < shares[1]:
        return "test"
    return "validation" if point < shares[0] + shares[1] else "train"
