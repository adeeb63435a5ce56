"""Read the rows of a data set from files, folders or the hub, and divide them into splits that share no text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any, Generic, TypeVar

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.messages import drop_system
from rlaif_framework.data.row_files import SUFFIXES, Row, is_row_file, load_hub, read_row_file, split_hub_id
from rlaif_framework.errors import DataError
from rlaif_framework.files import user_path
from rlaif_framework.records.preferences import Split

# Names of splits in published data sets. OpenAI selected models on valid1 and kept valid2 for the final evaluation.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "valid1", "dev", "val"),
    "test": ("test", "valid2"),
}

_SHARD = re.compile(r"(-\d+-of-\d+(-[0-9a-f]{16})?|[-_]\d+)$")  # the hub's names had a hash at their end until 2023
_PRIORITY: Mapping[Split, int] = {"train": 0, "validation": 1, "test": 2}

T = TypeVar("T")


def read_data_set(place: str | Mapping[Split, str]) -> Iterator[Row]:
    """Yield the rows of a data set, with the splits that the names of its files or parts state.

    Args:
        place: A file, a folder, a hub id `owner/name` or `owner/name:split`, or one of these for each split.

    Raises:
        DataError: There is no such data set, or it cannot be read.
    """
    if not isinstance(place, str):
        for split in SPLIT_NAMES:
            if split in place:
                yield from _name_split(read_part(place[split]), split)
        return
    path = user_path(place)
    if path.is_dir():
        yield from _read_folder(path)
    elif (hub := split_hub_id(place)) is None:  # a missing file is reported as such, and not as an unknown data set
        yield from read_row_file(path)
    elif hub[1] is not None:
        yield from read_part(place)
    else:
        yield from _read_hub(place)


def read_part(place: str) -> Iterator[Row]:
    """Yield the rows of a file, of all files of a folder, or of one split of a hub data set.

    Raises:
        DataError: There is no such data set, it cannot be read, or a hub data set has several splits.
    """
    path = user_path(place)
    if path.is_dir():
        for file in _list_files(path):
            yield from read_row_file(file)
    elif split_hub_id(place) is None:
        yield from read_row_file(path)
    else:
        parts = load_hub(place)
        if len(parts) > 1:
            raise DataError(
                f"{place} has the splits {', '.join(parts)}; choose one, such as {place}:{next(iter(parts))}"
            )
        for rows in parts.values():
            yield from rows


def _read_folder(folder: Path) -> Iterator[Row]:
    parts: dict[str, list[Path]] = {}
    for file in _list_files(folder):
        parts.setdefault(_SHARD.sub("", file.name.partition(".")[0]), []).append(file)
    named = _select_splits(parts)
    begun = {} if named else _find_beginnings(parts)
    if len(begun) > 1:  # to mix them would lose which rows are held out
        chosen = ", ".join(f"{split}: '{folder / parts[name][0].name}'" for split, name in begun.items())
        raise DataError(
            f"{folder} has {', '.join(parts)}, of which none is named train, validation or test; choose a file, or "
            f"give one for each split, such as {{{chosen}}}"
        )
    if set(named) <= {"train"}:  # without held-out rows: divided like a single file
        for files in [named["train"]] if named else parts.values():
            for file in files:
                yield from read_row_file(file)
        return
    for split, files in named.items():
        for file in files:
            yield from _name_split(read_row_file(file), split)


def _list_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if is_row_file(file) and file.is_file())
    if not files:
        raise DataError(f"{folder} has no file of rows; their names end in {', '.join(SUFFIXES)}")
    return files


def _read_hub(place: str) -> Iterator[Row]:
    parts = load_hub(place)
    named = _select_splits(parts)
    if not named and len(parts) > 1:
        first = next(iter(parts))
        raise DataError(
            f"{place} has the splits {', '.join(parts)}, of which none is named train, validation or test; "
            f"choose one, such as {place}:{first}, or give one for each split, such as {{train: '{place}:{first}'}}"
        )
    if set(named) <= {"train"}:
        for rows in [named["train"]] if named else parts.values():
            yield from rows
        return
    for split, rows in named.items():
        yield from _name_split(rows, split)


def _select_splits(parts: Mapping[str, T]) -> dict[Split, T]:
    """Select the items that are named like a split. If a split has several names, the first one that occurs is used."""
    return {
        split: parts[name]
        for split, names in SPLIT_NAMES.items()
        for name in [next((n for n in names if n in parts), "")]
        if name
    }


def _find_beginnings(parts: Collection[str]) -> dict[Split, str]:
    """Return the first name that begins with that of each split, such as `train_sft`."""
    found: dict[Split, str] = {}
    for split, names in SPLIT_NAMES.items():
        beginnings = tuple(begin + end for begin in names for end in "_-")
        for name in parts:
            if name.startswith(beginnings):
                found.setdefault(split, name)
    return found


def _name_split(rows: Iterable[Row], split: Split) -> Iterator[Row]:
    return (replace(row, split=split) for row in rows)


def read_split(row: Row) -> Split | None:
    """Return the split that the data set names for a row, in the name of its file or in its column `split`.

    Raises:
        RowFault: There is no such split.
    """
    named = row.values.get("split")
    if row.split is not None or named is None:
        return row.split
    if not isinstance(named, str):
        raise RowFault(f"'split' is {short(named)}, not the name of a split")
    split = next((split for split, names in SPLIT_NAMES.items() if named in names), None)
    if split is None:
        known = ", ".join(name for names in SPLIT_NAMES.values() for name in names)
        raise RowFault(f"unknown split '{named}'; known splits: {known}")
    return split


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """An item of a data set, with what determines its split."""

    item: T
    text: str
    """The text that it is about, such as a post. Items about the same text are in the same split."""
    split: Split | None
    """The split that the data set names for it, if any."""


class Divider:
    """Divides data sets into splits that share no text.

    An item without a named split gets the one that another item names for its text; else a hash of its text decides.
    If the data sets name several splits for a text, it stays in one of them: test before validation before train.
    If they name `train` and one of the other two, the third is taken from `train`. The system prompt of a dialogue is
    no part of its text.

    Args:
        fractions: Fractions of validation and test, for texts for which no split is named.
        data: All items of all data sets.
    """

    def __init__(self, fractions: tuple[float, float], data: Iterable[Placed[Any]]) -> None:
        self.fractions = fractions
        self.notes: list[str] = []
        """One sentence for each group of items that were dropped, taken from `train` or placed by another data set."""
        self._owners: dict[str, Split] = {}
        for placed in data:
            if placed.split is not None:
                text = _normalise(placed.text)
                self._owners[text] = max(placed.split, self._owners.get(text, placed.split), key=_PRIORITY.__getitem__)
        missing = SPLIT_NAMES.keys() - self._owners.values()
        self._taken: Split | None = missing.pop() if len(missing) == 1 and "train" not in missing else None
        """The split that no data set names and that is taken from `train`, if any."""
        for text, split in self._owners.items():
            if split == "train" and _hash_split(text, fractions) == self._taken:
                self._owners[text] = self._taken

    def divide(self, data: Sequence[Placed[T]], name: str) -> dict[Split, list[T]]:
        """Return the items of each split, in order; `name` says what they are, in the notes."""
        found: dict[Split, list[T]] = {split: [] for split in SPLIT_NAMES}
        dropped: Counter[tuple[Split, Split]] = Counter()
        followed = taken = 0
        for placed in data:
            text = _normalise(placed.text)
            hashed = _hash_split(text, self.fractions)
            split = self._owners.get(text, hashed)
            if placed.split == "train" and split == self._taken:
                taken += 1
            elif placed.split not in (None, split):
                dropped[placed.split or "train", split] += 1
                continue
            followed += placed.split is None and split != hashed
            found[split].append(placed.item)
        totals = Counter(placed.split for placed in data)
        self.notes += [
            f"dropped {count} of {totals[split]} {name} of split '{split}', because their text is also in '{owner}'"
            for (split, owner), count in dropped.items()
        ]
        if taken:
            self.notes.append(
                f"took {taken} of {totals['train']} {name} of split 'train' as '{self._taken}', which the data does "
                f"not name; see task.{self._taken}_fraction"
            )
        if followed:
            self.notes.append(f"{followed} {name} without a split are in the split that the data names for their text")
        return found


def _normalise(text: str) -> str:
    # The split depends on the text only: not on its file, the order of rows, their ids, white space, or the system
    # prompt, with which the same question would be in two splits.
    return " ".join(drop_system(text).split())


def _hash_split(text: str, fractions: tuple[float, float]) -> Split:
    # A point in [0, 1) that is uniformly distributed over texts.
    point = int.from_bytes(hashlib.sha256(_normalise(text).encode()).digest()[:8], "big") / 2**64
    if point < fractions[1]:
        return "test"
    return "validation" if point < fractions[0] + fractions[1] else "train"
