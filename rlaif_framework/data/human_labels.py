"""Human labels of the pairs of responses that an evaluation compares: files to fill in, and how they are matched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.pair_forms import read_forms
from rlaif_framework.data.pairs_file import scan_pairs
from rlaif_framework.errors import DataError
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.seeds import derive_seed

Texts = tuple[str, str, str]
"""A prompt and two responses, without differences in white space."""


def list_unlabelled(pairs: Iterable[Comparison], seed: int) -> list[dict[str, str | None]]:
    """Return rows for annotators, each pair of texts once: rows and responses are in random order, and name no policy.

    Because of the random order, the first rows are a random sample, however many are labelled. Both orders depend on
    the texts of each pair only, so that they stay when there are more pairs. Pairs that need no label (see
    `find_known`) or that cannot be read back are left out.
    """
    rows: dict[Texts, dict[str, str | None]] = {}
    for pair in pairs:
        texts, swapped = sort_texts(pair)
        swap = derive_seed(seed, "responses", *texts) % 2 == 1
        first, second = pair.responses if swap == swapped else pair.responses[::-1]
        row = {"prompt": pair.prompt.text, "response_a": first, "response_b": second, "label": None}
        if find_known(pair) is None and _is_readable(row):
            rows.setdefault(texts, row)
    return [rows[texts] for texts in sorted(rows, key=lambda texts: derive_seed(seed, "rows", *texts))]


def _is_readable(row: Mapping[str, str | None]) -> bool:
    try:
        read_forms(row)
    except RowFault:  # such as a turn of the user in a response
        return False
    return True


def find_known(pair: Comparison) -> float | None:
    """Return the human preference for the first response if it needs no label, else None.

    Equal responses are a tie, and an empty response loses.
    """
    first, second = (response.strip() for response in pair.responses)
    if first == second:
        return 0.5
    return None if first and second else float(bool(first))


def read_human_labels(path: Path) -> list[Comparison]:
    """Read the rows that have a preference, from files of pairs in any form that `rlaif label` reads.

    Raises:
        DataError: There is no such file, a row is invalid, or no row has a preference.
    """
    with scan_pairs(path) as found:
        if found.faults.count:
            raise DataError("\n  ".join([f"{path}: invalid rows", *found.faults.describe(with_file=found.files > 1)]))
        labels = [comparison for comparison in found.read() if comparison.preference is not None]
    if not labels:
        raise DataError(f"{path}: none of the {found.rows} rows has a preference; set their 'label' to a, b or tie")
    return labels


class HumanLabels:
    """Finds the human label of a pair by its texts, in either order of the responses."""

    def __init__(self, labels: Iterable[Comparison]) -> None:
        self._votes: dict[Texts, list[float]] = {}
        for label in labels:
            if label.preference is not None:
                texts, swapped = sort_texts(label)
                self._votes.setdefault(texts, []).append(1 - label.preference if swapped else label.preference)

    def find(self, pair: Comparison) -> float | None:
        """Return the mean label of a pair: 1 if its first response is preferred; None if nobody has labelled it."""
        texts, swapped = sort_texts(pair)
        votes = self._votes.get(texts)
        if votes is None:
            return None
        return 1 - fmean(votes) if swapped else fmean(votes)

    def count_unused(self, pairs: Iterable[Comparison]) -> int:
        """Count the labels of texts that are in none of the pairs."""
        compared = {sort_texts(pair)[0] for pair in pairs}
        return sum(len(votes) for texts, votes in self._votes.items() if texts not in compared)

    def __len__(self) -> int:
        return sum(map(len, self._votes.values()))


def sort_texts(pair: Comparison) -> tuple[Texts, bool]:
    """Return the texts of a pair with the responses in sorted order, and True if these are swapped."""
    prompt, *responses = (_normalise(text) for text in (pair.prompt.text, *pair.responses))
    first, second = sorted(responses)
    return (prompt, first, second), [first, second] != responses


def _normalise(text: str) -> str:
    return " ".join(text.split())
