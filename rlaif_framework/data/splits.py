"""Read the rows of a data set by split, from files, folders or the Hugging Face Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from rlaif_framework.config import HUB_ID
from rlaif_framework.data.transcripts import ASSISTANT_CUE
from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Split

# Names of splits in published data sets. OpenAI selected models on valid1 and kept valid2 for the final evaluation.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "valid1", "dev", "val"),
    "test": ("test", "valid2"),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set and its location."""

    values: Mapping[str, Any]
    where: str
    """File and line, for error messages."""
    number: int = 0
    """The line number, from 1."""


Splits = dict[Split, list[Row]]

Subject = Callable[[Mapping[str, Any]], str]
"""Returns the text that a row is about. Rows about the same text must be in the same split."""


def find_subject(values: Mapping[str, Any]) -> str:
    """Return the text that a row is about: its post, its prompt, or its transcript up to the last turn; else its id."""
    text = next((values[name] for name in ("post", "prompt") if values.get(name)), None)
    if text is None and isinstance(chosen := values.get("chosen"), str):
        text = chosen.rpartition(ASSISTANT_CUE)[0]
    return str(text).removesuffix(ASSISTANT_CUE) if text else str(values.get("id") or "")


def read_splits(
    place: str | dict[Split, str],
    fractions: tuple[float, float],
    subject: Subject = find_subject,
) -> Splits:
    """Read all rows of a data set by split. All are read at once, so that invalid rows are found before training.

    Args:
        place: A file, a folder, a hub id, or a file for each split.
        fractions: Fractions of validation and test rows, for data without splits.
        subject: Returns the text a row is about. Rows about the same text are put into the same split, even if they
            are in different files.

    Raises:
        DataError: There is no such data set, or it cannot be read.
    """
    if isinstance(place, dict):
        return {split: list(_read_file(Path(place[split]))) if split in place else [] for split in SPLIT_NAMES}
    path = Path(place).expanduser()
    if path.is_dir():
        return _read_folder(path, fractions, subject)
    hub_id = "/" in place and HUB_ID.fullmatch(place)
    # A missing file is reported as such, and not as an unknown data set of the hub.
    if path.exists() or not hub_id or place.endswith((".jsonl", ".json", ".gz")):
        return _divide(_read_file(path), fractions, subject)
    return _read_hub(place, fractions, subject)


def _read_file(path: Path) -> Iterator[Row]:
    for number, values in read_rows(path):
        yield Row(values, f"{path}, line {number}", number)


def _read_folder(folder: Path, fractions: tuple[float, float], subject: Subject) -> Splits:
    files = sorted(f for pattern in ("*.jsonl", "*.jsonl.gz", "*.json") for f in folder.glob(pattern))
    if not files:
        raise DataError(f"{folder} has no .jsonl file")
    found = _select_splits({f.name.partition(".")[0]: f for f in files})
    if found:
        return {split: list(_read_file(found[split])) if split in found else [] for split in SPLIT_NAMES}
    return _divide((row for file in files for row in _read_file(file)), fractions, subject)


def _read_hub(place: str, fractions: tuple[float, float], subject: Subject) -> Splits:
    from datasets import load_dataset

    try:
        data = load_dataset(place)
    except Exception as error:  # datasets raises many types: no network, no such data set, a loading script, a bad file
        raise DataError(
            f"no file or folder '{place}', and it cannot be loaded from the hub: {type(error).__name__}: {error}. "
            f"Data sets with a loading script are no longer supported: download the JSON Lines files and use the path "
            "of their folder"
        ) from error
    rows = {name: [Row(dict(r), f"{place}, {name}, row {i}", i) for i, r in enumerate(data[name])] for name in data}
    found = _select_splits(rows)
    if set(found) == {"train"}:  # without held-out rows, like a single file
        return _divide(iter(found["train"]), fractions, subject)
    return {split: found.get(split, []) for split in SPLIT_NAMES}


def _select_splits(named: Mapping[str, T]) -> dict[Split, T]:
    """Select the items that are named like a split. If a split has several names, the first one that occurs is used."""
    return {
        split: named[name]
        for split, names in SPLIT_NAMES.items()
        for name in [next((n for n in names if n in named), "")]
        if name
    }


def _divide(rows: Iterator[Row], fractions: tuple[float, float], subject: Subject) -> Splits:
    """Divide rows by their `split` field, or by a hash of the text they are about."""
    found: Splits = {split: [] for split in SPLIT_NAMES}
    for row in rows:
        named = row.values.get("split")
        if isinstance(named, str):
            split = next((s for s, names in SPLIT_NAMES.items() if named in names), None)
            if split is None:
                known = ", ".join(name for names in SPLIT_NAMES.values() for name in names)
                raise DataError(f"{row.where}: unknown split '{named}'; known splits: {known}")
        elif named is not None:
            raise DataError(f"{row.where}: 'split' is {short(named)}, not the name of a split")
        else:
            split = _hash_split(subject(row.values) or str(row.values), fractions)
        found[split].append(row)
    return found


def _hash_split(subject: str, fractions: tuple[float, float]) -> Split:
    # The split depends on the text only: not on its file, the order of rows, their ids, or white space.
    words = " ".join(subject.split())
    # A point in [0, 1) that is uniformly distributed over texts.
    point = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
    if point < fractions[1]:
        return "test"
    return "validation" if point < fractions[0] + fractions[1] else "train"
