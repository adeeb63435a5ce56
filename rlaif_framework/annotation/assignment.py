"""Who compares which item next: each item goes to as many people as are asked for, in random or in uncertain order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlaif_framework.annotation.answers import Answer, AnswerFile, Assignment, Choice, Drawn, Kind
from rlaif_framework.errors import RlaifError
from rlaif_framework.seeds import derive_seed

REPEAT_GAP = 10
"""Number of items between an item and its repetition, unless there are fewer left."""

GOLD_EVERY = 10
"""One in so many items is a gold item, until a person has compared all of them."""

AHEAD = 2
"""Number of items that a page holds: the one that is shown and the next."""

LEASE_SECONDS = 1800.0
"""After this time, an item that a person was given and did not answer may go to another one, if no other is left."""


class AssignmentError(RlaifError):
    """An answer does not fit what the person was given."""


@dataclass(frozen=True)
class AssignmentSettings:
    """How items are given to people."""

    overlap: int = 1
    """Number of people that compare each item."""
    repeat: float = 0.0
    """Share of the items that a person compares again in the other order."""
    drawn: Drawn = "random"
    seed: int = 0


def order_items(
    keys: Iterable[str],
    settings: AssignmentSettings,
    opinion: Mapping[str, float] | None = None,
    limit: int | None = None,
) -> list[str]:
    """Return the keys of the items in the order in which they are given.

    The random order depends on each item only, so that the first items are a random sample, also of a file that has
    grown.

    Args:
        keys: The keys.
        settings: With the order and the seed.
        opinion: For `uncertain`, a labeler's probability that the first response is better; items without are last.
        limit: Maximum number of items.
    """
    found = sorted(keys, key=lambda key: derive_seed(settings.seed, "annotate", key))
    if settings.drawn == "uncertain":
        known = opinion or {}
        found.sort(key=lambda key: abs(known[key] - 0.5) if key in known else 1.0)
    return found[:limit]


class Desk:
    """Gives items to people and takes their answers. Everything is in the file first, then in memory.

    Args:
        file: The file of answers, whose assignments and answers are continued.
        order: The keys of the items in the order in which they are given.
        gold: The keys of the gold items.
        settings: How items are given.
        clock: Returns the Unix time.
    """

    def __init__(
        self,
        file: AnswerFile,
        order: Sequence[str],
        gold: Sequence[str] = (),
        settings: AssignmentSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.file = file
        self.order = order
        self.gold = gold
        self.settings = settings or AssignmentSettings()
        self.clock = clock
        self._ordered = {*order}
        self._known = {*order, *gold}
        self._assignments: dict[int, Assignment] = {}
        self._by_annotator: dict[str, list[Assignment]] = {}
        self._names: dict[str, str] = {}
        self._given: dict[tuple[str, str], set[Kind]] = {}
        self._by_item: dict[str, list[Assignment]] = {}
        self._unanswered: dict[int, Assignment] = {}
        """Of `_by_item`: those that may expire."""
        self._free: dict[str, dict[str, bool]] = {}
        """The items that each person may still be given, and if so, whether they come again."""
        self._to_repeat: dict[str, list[Assignment]] = {}
        self._answers: dict[int, Answer] = {}
        self.version = 0
        """Number of times that answers were changed."""
        for assignment in file.read_assignments():
            self._note(assignment)
        for answer in file.read_answers():
            self._answers[answer.assignment.id] = answer
            self._unanswered.pop(answer.assignment.id, None)

    @property
    def answers(self) -> list[Answer]:
        """The answers that were not taken back, in the order in which they were given."""
        return list(self._answers.values())

    def find_name(self, name: str) -> str:
        """Return a name as the person first typed it: upper and lower case do not tell people apart."""
        return self._names.get(name.casefold(), name)

    def count_left(self, annotator: str) -> int:
        """Return the number of items that a person still has to compare, if nobody else takes them.

        Repetitions and gold items count as others do: the number does not tell which those are.
        """
        own = self._by_annotator.get(annotator, [])
        free = self._find_free_items(annotator)
        coming = len(free) + sum(free.values()) + sum(map(self._comes_again, self._to_repeat.get(annotator, ())))
        # A gold item comes as each `GOLD_EVERY`th item, also right after the last of the others.
        slots = (coming + len(own) % GOLD_EVERY) // (GOLD_EVERY - 1)
        gold = min(slots, sum(not self._given.get((annotator, key)) for key in self.gold))
        return sum(map(self._is_open, own)) + coming + gold

    def open_items(self, annotator: str) -> list[Assignment]:
        """Return the next items of a person, `AHEAD` of them if so many are left, giving out new ones if necessary."""
        found = [x for x in self._by_annotator.get(annotator, ()) if self._is_open(x)][:AHEAD]
        while len(found) < AHEAD:
            chosen = self._choose(annotator)
            if chosen is None:
                break
            key, kind = chosen
            first = self._choose_first(annotator, key, kind)
            new = self.file.assign(annotator, key, kind, first, self._find_drawn(annotator, key, kind), self.clock())
            self._note(new)
            found.append(new)
        return found

    def last_answer(self, annotator: str) -> Answer | None:
        """Return the last answer of a person, which can be taken back."""
        own = (x for x in reversed(self._answers.values()) if x.assignment.annotator == annotator)
        found = next(own, None)
        # An item that is not among the pairs any more could not be shown again.
        return found if found is not None and found.assignment.item in self._known else None

    def answer(
        self, annotator: str, assignment: int, choice: Choice, strength: int | None, seconds: float, request: str
    ) -> Answer:
        """Take an answer, and return once it is on the disk. The same request is taken once.

        Raises:
            AssignmentError: The person was not given this item, or has answered it.
        """
        given = self._find(annotator, assignment)
        if self.file.has_request(request):
            return self._answers.get(assignment) or Answer(given, choice, strength, seconds, self.clock())
        if assignment in self._answers:
            raise AssignmentError("this pair has been answered already, perhaps in another window")
        answer = Answer(given, choice, strength, seconds, self.clock())
        self.file.record(answer, request)
        self._answers[assignment] = answer
        self._unanswered.pop(assignment, None)
        self.version += 1
        return answer

    def take_back(self, annotator: str, assignment: int, request: str) -> None:
        """Take back an answer, so that its item is the next one of the person.

        Raises:
            AssignmentError: The person has not given this answer, or its item is not among the pairs any more.
        """
        given = self._find(annotator, assignment)
        if self.file.has_request(request):
            return
        if given.item not in self._known:
            raise AssignmentError("this pair is not among the pairs any more")
        if assignment not in self._answers:
            raise AssignmentError("there is no answer to take back")
        self.file.take_back(assignment, self.clock(), request)
        del self._answers[assignment]
        if given.kind == "item":
            self._unanswered[assignment] = given
        self.version += 1

    def find(self, assignment: int) -> Assignment:
        """Return an assignment.

        Raises:
            AssignmentError: There is none with this number, or its item is not there any more.
        """
        found = self._assignments.get(assignment)
        if found is None or found.item not in self._known:
            raise AssignmentError("nobody was given this pair")
        return found

    def count_answers(self, annotator: str) -> int:
        """Return the number of answers of a person, with repetitions and gold items."""
        return sum(x.id in self._answers for x in self._by_annotator.get(annotator, ()))

    def _find(self, annotator: str, assignment: int) -> Assignment:
        found = self._assignments.get(assignment)
        if found is None or found.annotator != annotator:
            raise AssignmentError(f"{annotator} was not given this pair")
        return found

    def _note(self, new: Assignment) -> None:
        self._assignments[new.id] = new
        self._names.setdefault(new.annotator.casefold(), new.annotator)
        self._by_annotator.setdefault(new.annotator, []).append(new)
        self._given.setdefault((new.annotator, new.item), set()).add(new.kind)
        if new.kind != "item":
            return
        given = self._by_item.setdefault(new.item, [])
        given.append(new)
        self._unanswered[new.id] = new
        for name, free in self._free.items():
            if name == new.annotator or len(given) >= self.settings.overlap:
                free.pop(new.item, None)
        if self._is_repeated(new.annotator, new.item):
            self._to_repeat.setdefault(new.annotator, []).append(new)

    def _is_open(self, assignment: Assignment) -> bool:
        if assignment.id in self._answers or assignment.item not in self._known:  # the pairs may have changed
            return False
        if assignment.kind != "item":  # nobody else gets it
            return True
        # Given to somebody else after a long time; the person who has answered first keeps it.
        if not self._has_expired(assignment):
            return True
        answered = sum(x.id in self._answers for x in self._by_item[assignment.item])
        return answered < self.settings.overlap

    def _choose(self, annotator: str) -> tuple[str, Kind] | None:
        own = self._by_annotator.get(annotator, [])
        gold = next((key for key in self.gold if not self._given.get((annotator, key))), None)
        if gold is not None and (len(own) + 1) % GOLD_EVERY == 0:
            return gold, "gold"
        waiting = self._to_repeat.get(annotator, ())
        repeats = [x for x in waiting if x.id in self._answers and self._comes_again(x)]
        if repeats and len(own) - own.index(repeats[0]) > REPEAT_GAP:
            return repeats[0].item, "repeat"
        free = next(iter(self._find_free_items(annotator)), None)
        if free is not None:
            return free, "item"
        if repeats:
            return repeats[0].item, "repeat"
        expired = self._find_expired(annotator)
        return None if expired is None else (expired, "item")

    def _is_repeated(self, annotator: str, key: str) -> bool:
        return derive_seed(self.settings.seed, "repeat", annotator, key) < self.settings.repeat * 2**63

    def _comes_again(self, assignment: Assignment) -> bool:
        """Return True if the repetition of an item that is to be repeated is to come."""
        answer = self._answers.get(assignment.id)
        if "repeat" in self._given[assignment.annotator, assignment.item] or assignment.item not in self._known:
            return False
        return self._is_open(assignment) if answer is None else answer.choice != "skip"

    def _find_free_items(self, annotator: str) -> Mapping[str, bool]:
        """Return the items that the person has not got and too few others have, in order."""
        if annotator not in self._free:
            self._free[annotator] = {
                key: self._is_repeated(annotator, key)
                for key in self.order
                if len(given := self._by_item.get(key, [])) < self.settings.overlap
                and all(x.annotator != annotator for x in given)
            }
        return self._free[annotator]

    def _find_expired(self, annotator: str) -> str | None:
        """Return an item that others were given long ago and have not answered."""
        for waiting in self._unanswered.values():
            if not self._has_expired(waiting) or waiting.item not in self._ordered:
                continue
            given = self._by_item[waiting.item]
            fresh = sum(x.id not in self._unanswered or not self._has_expired(x) for x in given)
            if fresh < self.settings.overlap and all(x.annotator != annotator for x in given):
                return waiting.item
        return None

    def _has_expired(self, assignment: Assignment) -> bool:
        return self.clock() - assignment.time > LEASE_SECONDS

    def _choose_first(self, annotator: str, key: str, kind: Kind) -> int:
        """Choose the response that is shown first: at random, or the other one if the item is repeated."""
        if kind == "repeat":
            return 1 - self._find_item(annotator, key).first
        return derive_seed(self.settings.seed, "order", annotator, key) % 2

    def _find_drawn(self, annotator: str, key: str, kind: Kind) -> Drawn:
        return self._find_item(annotator, key).drawn if kind == "repeat" else self.settings.drawn

    def _find_item(self, annotator: str, key: str) -> Assignment:
        return next(x for x in self._by_annotator[annotator] if x.item == key and x.kind == "item")
