"""The pairs on which a judge is checked: a sample of the prompts, with the columns that say more about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rlaif_framework.data.authors import read_authors
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import SpecError, suggest
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.seeds import derive_seed, sample_subset


@dataclass
class PairNotes:
    """What the rows say about pairs besides their texts."""

    column: str | None
    """The column to slice by; None for `slice`."""
    columns: set[str] = field(default_factory=set)
    """Names of all columns."""
    slices: dict[str, str] = field(default_factory=dict)
    """Value of the column, by the id of the pair."""
    authors: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Models that wrote the two responses, by the id of the pair."""

    def add(self, row: Row, pair: PairRow, comparison: Comparison) -> None:
        """Note what a row says about a pair."""
        self.columns.update(map(str, row.values))
        if self.column is not None and (value := row.values.get(self.column)) is not None:
            self.slices[comparison.id] = str(value)
        if (found := read_authors(row, pair)) is not None:
            self.authors[comparison.id] = found

    def apply(self, pair: Comparison) -> Comparison:
        """Return a pair with its value of the column as slice."""
        return pair if self.column is None else replace(pair, slice=self.slices.get(pair.id))

    def find_own(self, pair: Comparison, own: str) -> bool | None:
        """Return True if the first response of a pair is by a model, False if the second; None if neither or both."""
        first, second = (name.casefold() == own.casefold() for name in self.authors.get(pair.id, ("", "")))
        return None if first == second else first

    def check(self) -> None:
        """Check that there is a column to slice by.

        Raises:
            SpecError: No row has it.
        """
        if self.column is not None and not self.slices:
            known = suggest(self.column, self.columns)
            raise SpecError(f"slice by '{self.column}': no row has a value in such a column; {known}")


def choose_pairs(pairs: Iterable[Comparison], limit: int, seed: int) -> list[Comparison]:
    """Sample at most `limit` prompts, and return all of their pairs in order.

    A larger sample contains the smaller ones of the same seed.
    """
    given = list(pairs)
    prompts = list(dict.fromkeys(pair.prompt.text for pair in given))
    chosen = {*sample_subset(prompts, limit, derive_seed(seed, "check-judge"))}
    return [pair for pair in given if pair.prompt.text in chosen]
