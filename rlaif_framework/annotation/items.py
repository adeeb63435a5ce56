"""What people are shown: the pairs of a file, or those of the matchups of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlaif_framework.annotation.item import Item, name_sides
from rlaif_framework.annotation.opinions import Opinions, name_labeler, read_opinions
from rlaif_framework.annotation.runs import FinishedMatchups, find_pairs, is_run
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs_file import scan_pairs
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison


@dataclass(frozen=True)
class ItemSet:
    """All pairs to compare, in the order of their files."""

    name: str
    """The file or the run."""
    items: Mapping[str, Item]
    """By key."""
    repeated: int = 0
    """Number of pairs that were left out, because an earlier one has the same texts."""
    notes: tuple[str, ...] = ()
    """Warnings about the pairs, one line each."""
    opinions: Opinions = field(default_factory=dict)
    """For each labeler, its probability that the first response of an item is better, by key; those of named files of
    labels first."""


def read_items(
    place: Path, labels: Iterable[Path] = (), fields: Mapping[str, str] | None = None, skip_invalid: bool = False
) -> ItemSet:
    """Read the pairs to compare.

    Args:
        place: Pairs in any form that `rlaif label` reads, or the folder of a run, whose matchups are compared.
        labels: Files of labels that `rlaif label` wrote, for the opinions of labelers.
        fields: The column of the pairs for each field whose column has another name.
        skip_invalid: If True, invalid rows are left out.

    Raises:
        DataError: A file is missing or invalid, or the run has no pairs.
    """
    matchups = FinishedMatchups.read(place) if is_run(place) else None
    sources = find_pairs(place) if matchups is not None else [place]
    items: dict[str, Item] = {}
    repeated, notes = 0, list[str]()
    for source in sources:
        sides: dict[str, tuple[str, str]] = {}

        def note_sides(
            row: Row, pair: PairRow, comparison: Comparison, sides: dict[str, tuple[str, str]] = sides
        ) -> None:
            sides[comparison.id] = name_sides(row, pair)

        with scan_pairs(source, note_sides, fields) as pairs:
            pairs.check(skip_invalid)
            notes += [f"{pairs.name}: skipped {pairs.skipped} invalid rows of {pairs.rows}"] if pairs.skipped else []
            for comparison in pairs.read():
                own = sides[comparison.id] if matchups is None else matchups.name_sides(source.stem, comparison)
                item = Item.create(comparison, own)
                repeated += item.key in items
                items.setdefault(item.key, item)
    if not items:
        raise DataError(f"{place}: there are no pairs to compare")
    opinions: Opinions = {}
    for path in labels:
        name = name_labeler(path)
        opinions[str(path) if name in opinions else name] = read_opinions(path, items)
    judges = {} if matchups is None else matchups.read_opinions(items.values())
    opinions |= {name: found for name, found in judges.items() if name not in opinions}
    return ItemSet(str(place), items, repeated, tuple(notes), opinions)
