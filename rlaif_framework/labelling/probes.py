"""Probes of a judge: changes to a response that make it no better, read from `probes.yaml`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.errors import SpecError, suggest
from rlaif_framework.records.preferences import Comparison

POSITION = "position"
"""The probe that shows each pair in both orders."""

OWN = "own"
"""The probe that looks at the responses that the labeler's model wrote."""

ROUNDS = 2
"""Number of wordings of each pair: some judges answer at random, and more answers make their mean more precise."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKDOWN = re.compile(r"^\s*(?:[-*+]|#{1,6}|\d+[.)])\s|\*\*|__|```", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wording:
    """The templates of a changed response, and of the one that it is compared with."""

    changed: str
    other: str = "{response}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A change to a response."""

    name: str
    change: str
    """The change, as the end of a sentence that begins with "The response is"."""
    wordings: tuple[Wording, ...]
    """Empty for `position` and `own`, which change no text."""
    either: bool
    """True if a judge should not punish the change either."""

    @property
    def needs_own(self) -> bool:
        """True if the probe needs the name of the labeler's model."""
        return self.name == OWN or any("{own}" in wording.changed for wording in self.wordings)

    @property
    def names_position(self) -> bool:
        """True if a text says which of the two responses it is."""
        return any(name in wording.changed for wording in self.wordings for name in ("{number}", "{ordinal}"))

    @property
    def rounds(self) -> range:
        """Numbers of the copies of each pair: as many, with a wording of their own each."""
        return range(min(ROUNDS, len(self.wordings)))

    def wording(self, number: int) -> Wording:
        """Return the wording with a number, or the first ones again."""
        return self.wordings[number % len(self.wordings)]

    def choose(self, pairs: Iterable[Comparison]) -> list[Comparison]:
        """Leave out pairs that have the change already: those with Markdown, for the probe `format`."""
        return [x for x in pairs if self.name != "format" or not any(map(_MARKDOWN.search, x.responses))]

    def change_pairs(self, pairs: Sequence[Comparison], index: int, own: str, round_: int = 0) -> list[Comparison]:
        """Return pairs with one response changed, each in the next wording.

        Args:
            pairs: The pairs that `choose` left.
            index: 0 to change their first responses, 1 for the second ones.
            own: Name of the labeler's model.
            round_: One of `rounds`.
        """
        return [_change_pair(pair, index, self.wording(number + round_), own) for number, pair in enumerate(pairs)]


def choose_probes(names: Collection[str] = ()) -> list[Probe]:
    """Read the probes with these names, or all of them.

    Raises:
        SpecError: There is no such probe.
    """
    data = read_mapping(Path(__file__).with_name("probes.yaml"), "probes")
    for name in names:
        if name not in data:
            raise SpecError(f"no probe is named '{name}'; {suggest(name, data)}")
    return [_make_probe(name, values) for name, values in data.items() if name in names or not names]


def _make_probe(name: str, data: Mapping[str, Any]) -> Probe:
    given = data.get("wordings", ())
    wordings = tuple(Wording(**x) if isinstance(x, Mapping) else Wording(x) for x in given)
    return Probe(name, data["change"], wordings, data.get("either", False))


def _change_pair(pair: Comparison, index: int, wording: Wording, own: str) -> Comparison:
    first, second = (
        _fill(wording.changed if position == index else wording.other, response, position, own)
        for position, response in enumerate(pair.responses)
    )
    return replace(pair, responses=(first, second))


def _fill(template: str, response: str, position: int, own: str) -> str:
    sentences = [part for part in _SENTENCE_END.split(response) if part] or [response]
    return template.format(
        response=response,
        last_sentence=sentences[-1],
        bullets="\n".join(f"- {sentence}" for sentence in sentences),
        bold=response.replace(sentences[0], f"**{sentences[0]}**", 1),
        number=position + 1,
        ordinal=("first", "second")[position],
        own=own,
        other=codecs.encode(own, "rot13"),
    )
