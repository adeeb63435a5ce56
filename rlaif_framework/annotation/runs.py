"""The pairs of a finished run, whose responses they are, and what its judges think of them.

The files of pairs for annotators name no policy. Both are found by comparing their texts with those of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlaif_framework.annotation.item import Item
from rlaif_framework.annotation.opinions import Opinions
from rlaif_framework.errors import DataError
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.records.rows import load_preferences

RECORD = "run.json"
PAIRS = Path("evaluation/summary/pairs")
RESPONSES = Path("evaluation/responses")
REFERENCE = "reference"

Texts = tuple[str, str]
"""The responses of the first and the second policy of a matchup, without differences in white space."""


def is_run(place: Path) -> bool:
    """Return True for the folder of a run."""
    return (place / RECORD).is_file()


def find_pairs(run: Path) -> list[Path]:
    """Return the files of pairs for annotators that are not empty, one for each matchup.

    Raises:
        DataError: There are none.
    """
    files = [path for path in sorted((run / PAIRS).glob("*.jsonl")) if path.stat().st_size]
    if not files:
        raise DataError(
            f"{run} has no pairs to compare: {PAIRS} is missing or empty; finish the run with `evaluate.matchups`"
        )
    return files


@dataclass(frozen=True)
class Matchup:
    """Two policies, and their responses to each prompt; for the reference responses, which no file has, None."""

    first: str
    second: str
    responses: tuple[Sequence[str] | None, Sequence[str] | None]
    judges: dict[str, list[float | None]]
    """For each judge, its probability of the first policy's response."""

    def find(self, pair: Comparison) -> tuple[bool, list[int]] | None:
        """Find a pair of texts.

        Returns:
            True if the first response of the pair is by the first policy, and the numbers of the prompts with these
            responses; None if the texts are not there, or are there in both orders.
        """
        found = {}
        for forward in (True, False):
            texts = pair.responses if forward else pair.responses[::-1]
            given = [_normalise(text) if own else "" for text, own in zip(texts, self.responses, strict=True)]
            if numbers := self._index.get((given[0], given[1])):
                found[forward] = numbers
        return next(iter(found.items())) if len(found) == 1 else None

    @cached_property
    def _index(self) -> dict[Texts, list[int]]:
        first, second = self.responses
        index: dict[Texts, list[int]] = {}
        for number in range(len(first or second or ())):
            texts = first[number] if first else "", second[number] if second else ""
            index.setdefault(texts, []).append(number)
        return index


@dataclass(frozen=True)
class FinishedMatchups:
    """The matchups of a run, by name."""

    run: Path
    matchups: dict[str, Matchup]

    @classmethod
    def read(cls, run: Path) -> FinishedMatchups:
        """Read the responses and the judges' preferences of a run.

        Raises:
            DataError: A file is damaged.
        """
        responses = {path.parent.name: _read_responses(path) for path in (run / RESPONSES).glob("*/responses.jsonl")}
        found = {}
        for path in find_pairs(run):
            names = _split_name(path.stem, {*responses, REFERENCE})
            if names is not None:
                both = responses.get(names[0]), responses.get(names[1])
                found[path.stem] = Matchup(*names, both, _read_judges(run, path.stem))
        return cls(run, found)

    def name_sides(self, matchup: str, pair: Comparison) -> tuple[str, str]:
        """Name the policies that wrote the first and the second response of a pair.

        If this cannot be found out, e.g. because the run folder lacks the responses, they have names that say so.
        """
        known = self.matchups.get(matchup)
        found = known.find(pair) if known else None
        if known is None or found is None:
            return (f"unknown ({matchup})", f"unknown ({matchup})")
        names = known.first, known.second
        return names if found[0] else names[::-1]

    def read_opinions(self, items: Iterable[Item]) -> Opinions:
        """Return the judges' probabilities for the items; none where several prompts have the same two responses."""
        opinions: Opinions = {}
        for item in items:
            for matchup in self.matchups.values():
                found = matchup.find(item.comparison) if {*item.sides} == {matchup.first, matchup.second} else None
                if found is None or len(found[1]) > 1:
                    continue
                forward, (number,) = found
                for judge, stated in matchup.judges.items():
                    first = stated[number] if number < len(stated) else None
                    if first is not None:
                        opinions.setdefault(judge, {})[item.key] = first if forward else 1 - first
        return opinions


def _split_name(stem: str, policies: set[str]) -> tuple[str, str] | None:
    """Split the name of a matchup, `A-vs-B`, into names of policies, which may contain `-vs-` themselves."""
    parts = stem.split("-vs-")
    for cut in range(1, len(parts)):
        first, second = "-vs-".join(parts[:cut]), "-vs-".join(parts[cut:])
        if first in policies and second in policies:
            return first, second
    return None


def _read_responses(path: Path) -> list[str]:
    if path.stat().st_size == 0:
        return []
    return [_normalise(str(row.get("response", ""))) for _, row in read_rows(path)]


def _read_judges(run: Path, matchup: str) -> dict[str, list[float | None]]:
    places = {"judge": run / "evaluation/wins" / matchup}
    places |= {path.name: path / matchup for path in sorted((run / "evaluation/judges").glob("*"))}
    found: dict[str, list[float | None]] = {}
    for name, folder in places.items():
        path = folder / "preferences.jsonl"
        if path.is_file():
            try:
                stated = [preference.probabilities for preference in load_preferences(path)]
            except (KeyError, TypeError) as error:
                raise DataError(f"{path} is damaged: {error}; finish the run again") from error
            found[name] = [None if x is None else x[0] for x in stated]
    return found


def _normalise(text: str) -> str:
    return " ".join(text.split())
