"""Find a data set's rows by split: the embedded set, files, folders, or the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_framework import DataError, Split, read_rows

MINI = Path(__file__).with_name("tldr_mini.jsonl")
# What data sets call their splits; OpenAI selected models on valid1 and kept valid2 for the final evaluation.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "valid1", "dev", "val"),
    "test": ("test", "valid2"),
}
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set and where it stands."""

    values: Mapping[str, Any]
    where: str
    """File and line, for error messages."""


def read_split(place: str | dict[Split, str], split: Split, shares: tuple[float, float]) -> Iterator[Row]:
    """Yield the rows of a split.

    Args:
        place: `mini`, a file, a folder, a hub id, or a file for each split.
        split: Which.
        shares: Shares of validation and test where the data itself has no splits.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    if isinstance(place, dict):
        yield from _read_file(Path(place[split])) if split in place else ()
    elif place == "mini":
        yield from _divide(_read_file(MINI), split, shares)
    elif Path(place).expanduser().is_dir():
        yield from _read_folder(Path(place).expanduser(), split, shares)
    elif Path(place).expanduser().exists() or not HUB_ID.match(place) or place.endswith((".jsonl", ".json", ".gz")):
        yield from _divide(_read_file(Path(place).expanduser()), split, shares)
    else:
        yield from _read_hub(place, split, shares)


def _read_file(path: Path) -> Iterator[Row]:
    for number, values in read_rows(path):
        yield Row(values, f"{path}, line {number}")


def _read_folder(folder: Path, split: Split, shares: tuple[float, float]) -> Iterator[Row]:
    files = sorted(f for pattern in ("*.jsonl", "*.jsonl.gz", "*.json") for f in folder.glob(pattern))
    if not files:
        raise DataError(f"{folder} holds no .jsonl file")
    named = {name: f for f in files for name in [f.name.partition(".")[0]]}
    if any(name in named for names in SPLIT_NAMES.values() for name in names):
        for name in SPLIT_NAMES[split]:
            if name in named:
                yield from _read_file(named[name])
                return
        return
    for file in files:
        yield from _divide(_read_file(file), split, shares)


def _read_hub(place: str, split: Split, shares: tuple[float, float]) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        data = load_dataset(place)
    except Exception as error:  # datasets raises many kinds: no network, no such set, a loading script, a bad file
        raise DataError(
            f"cannot load the data set '{place}' from the hub: {type(error).__name__}: {error}. A set that is "
            f"a loading script no longer loads: download its JSON Lines files and give their folder"
        ) from error
    if not any(name in data for names in SPLIT_NAMES.values() for name in names if name != "train"):
        rows = (Row(dict(r), f"{place}, row {i}") for i, r in enumerate(data["train"]))
        yield from _divide(rows, split, shares)
        return
    for name in SPLIT_NAMES[split]:
        if name in data:
            yield from (Row(dict(r), f"{place}, {name}, row {i}") for i, r in enumerate(data[name]))
            return


def _divide(rows: Iterator[Row], split: Split, shares: tuple[float, float]) -> Iterator[Row]:
    """Pick a split's rows by their `split` field, else by a hash of their content."""
    for row in rows:
        named = row.values.get("split")
        if isinstance(named, str):
            if named in SPLIT_NAMES[split]:
                yield row
        elif _hash_split(row.values, shares) == split:
            yield row


def _hash_split(values: Mapping[str, Any], shares: tuple[float, float]) -> Split:
    # All rows of one post go to one split, whatever order the file is in.
    info = values.get("info")
    identity = info.get("id") if isinstance(info, dict) else values.get("id") or values.get("prompt") or values
    point = int.from_bytes(hashlib.sha256(str(identity).encode()).digest()[:8], "big") / 2**64
    if point < shares[1]:
        return "test"
    return "validation" if point < shares[0] + shares[1] else "train"
