"""Who is given which pair, and in which order of responses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rlaif_framework.annotation.answers import AnswerFile
from rlaif_framework.annotation.assignment import (
    AHEAD,
    GOLD_EVERY,
    LEASE_SECONDS,
    REPEAT_GAP,
    AssignmentError,
    AssignmentSettings,
    Desk,
    order_items,
)
from support.annotation import answer_next, open_desk, read_small


@pytest.fixture
def file(tmp_path: Path) -> AnswerFile:
    return AnswerFile.create(tmp_path / "answers.sqlite")


def test_no_two_people_are_given_one_item(tmp_path: Path, file: AnswerFile) -> None:
    desk = open_desk(file, read_small(tmp_path, 21))
    given: dict[str, list[str]] = {"Ann": [], "Bob": [], "Cem": []}
    for turn in range(30):
        name = ("Ann", "Bob", "Cem")[turn % 3]
        shown = answer_next(desk, name)
        if shown is not None:
            given[name].append(shown.item)
    everything = [item for items in given.values() for item in items]
    assert len(everything) == len({*everything}) == 21
    assert min(map(len, given.values())) == 7
    assert [desk.count_left(name) for name in given] == [0, 0, 0]


def test_with_overlap_each_item_goes_to_so_many_different_people(tmp_path: Path, file: AnswerFile) -> None:
    desk = open_desk(file, read_small(tmp_path, 10), overlap=2)
    given = [(name, shown.item) for _ in range(12) for name in "ABC" if (shown := answer_next(desk, name))]
    assert len({*given}) == len(given) == 20
    assert {*Counter(item for _, item in given).values()} == {2}


def test_positions_are_random_and_kept(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 60)
    desk = open_desk(file, pairs)
    firsts = [shown.first for _ in range(60) if (shown := answer_next(desk, "Ann"))]
    assert 20 < sum(firsts) < 40
    assert [x.first for x in file.read_assignments()][:60] == firsts
    again = open_desk(file, pairs)
    assert [x.first for x in again.file.read_assignments()][:60] == firsts


def test_a_share_of_the_items_comes_again_in_the_other_order(tmp_path: Path, file: AnswerFile) -> None:
    desk = open_desk(file, read_small(tmp_path, 60), repeat=0.25)
    shown = [x for _ in range(100) if (x := answer_next(desk, "Ann"))]
    repeats = [x for x in shown if x.kind == "repeat"]
    assert 6 <= len(repeats) <= 24
    assert len(shown) == 60 + len(repeats)
    assert len({x.item for x in repeats}) == len(repeats)
    for repeat in repeats:
        (original,) = [x for x in shown if x.item == repeat.item and x.kind == "item"]
        assert repeat.first == 1 - original.first
        gap = shown.index(repeat) - shown.index(original)
        assert gap >= REPEAT_GAP or shown.index(repeat) >= 60  # at the end, what is left comes


def test_items_that_a_person_cannot_judge_do_not_come_again(tmp_path: Path, file: AnswerFile) -> None:
    desk = open_desk(file, read_small(tmp_path, 20), repeat=1.0)
    kinds = [x.kind for _ in range(30) if (x := answer_next(desk, "Ann", "skip"))]
    assert kinds == ["item"] * 20


def test_gold_items_are_mixed_in_for_everybody(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 50)
    gold = [*pairs.items][:3]
    settings = AssignmentSettings()
    desk = Desk(file, order_items([key for key in pairs.items if key not in gold], settings), gold, settings)
    for name in ("Ann", "Bob"):
        shown = [x for _ in range(20) if (x := answer_next(desk, name))]
        places = [number for number, x in enumerate(shown, 1) if x.kind == "gold"]
        assert places == [GOLD_EVERY, 2 * GOLD_EVERY]


@pytest.mark.parametrize(("repeat", "gold"), [(0.0, 0), (0.0, 3), (0.4, 0), (0.4, 3), (1.0, 12)])
def test_the_number_left_does_not_tell_repetitions_and_gold_items(
    repeat: float, gold: int, tmp_path: Path, file: AnswerFile
) -> None:
    keys = [*read_small(tmp_path, 45).items]
    desk = Desk(file, keys[gold:], keys[:gold], AssignmentSettings(repeat=repeat))
    left = [desk.count_left("Ann")]
    while answer_next(desk, "Ann"):
        left.append(desk.count_left("Ann"))
    assert left == [*range(len(left) - 1, -1, -1)]
    kinds = Counter(x.kind for x in file.read_assignments())
    assert (kinds["item"], kinds["gold"] > 0, kinds["repeat"] > 0) == (45 - gold, gold > 0, repeat > 0)


def test_what_others_hold_is_not_left_and_what_one_holds_is(tmp_path: Path, file: AnswerFile) -> None:
    desk = open_desk(file, read_small(tmp_path, 3))
    assert desk.count_left("Ann") == 3
    assert len(desk.open_items("Ann")) == AHEAD
    assert (desk.count_left("Ann"), desk.count_left("Bob")) == (3, 1)
    answer_next(desk, "Ann")
    assert desk.count_left("Ann") == 2


def test_upper_and_lower_case_do_not_tell_people_apart(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 3)
    desk = open_desk(file, pairs)
    assert desk.find_name("Ann") == "Ann"
    answer_next(desk, "Ann")
    assert [desk.find_name(name) for name in ("ann", "ANN", "Anna")] == ["Ann", "Ann", "Anna"]
    assert open_desk(file, pairs).find_name("ann") == "Ann"


class CountedKey(str):
    """A key that counts how often one is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedKey.compared += 1
        return str.__eq__(self, other)


def test_looking_for_items_of_people_who_left_takes_no_longer_with_more_pairs(file: AnswerFile) -> None:
    now = [1000.0]
    desk = Desk(file, [CountedKey(f"key{number}") for number in range(60)], clock=lambda: now[0])
    desk.open_items("Bob")
    while answer_next(desk, "Ann"):
        pass
    CountedKey.compared = 0
    assert desk.open_items("Cem") == []
    now[0] += LEASE_SECONDS + 1
    assert len(desk.open_items("Cem")) == AHEAD
    assert CountedKey.compared <= 60


def test_the_random_order_is_a_sample_that_grows_with_the_limit_and_the_file() -> None:
    settings, keys = AssignmentSettings(seed=3), [f"key{number}" for number in range(100)]
    order = order_items(keys, settings)
    assert order_items(reversed(keys), settings, limit=10) == order[:10]
    assert order != keys
    assert order != order_items(keys, AssignmentSettings(seed=4))
    assert [key for key in order if key in keys[:50]] == order_items(keys[:50], settings)


def test_the_uncertain_order_begins_where_a_labeler_is_least_sure() -> None:
    settings = AssignmentSettings(drawn="uncertain")
    opinion = {"sure": 0.99, "unsure": 0.45, "half": 0.5, "against": 0.2}
    assert order_items(["none", *opinion], settings, opinion) == ["half", "unsure", "against", "sure", "none"]


def test_assignments_say_how_the_item_was_drawn(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 4)
    answer_next(open_desk(file, pairs), "Ann")  # holds two items
    desk = open_desk(file, pairs, drawn="uncertain")
    while answer_next(desk, "Ann"):
        pass
    assert [x.drawn for x in file.read_assignments()] == ["random"] * 2 + ["uncertain"] * 2


def test_a_desk_that_is_opened_again_continues_where_it_stopped(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 8)
    desk = open_desk(file, pairs)
    for name in ("Ann", "Bob", "Ann"):
        answer_next(desk, name)
    opened = {name: desk.open_items(name) for name in ("Ann", "Bob")}
    again = open_desk(file, pairs)
    assert {name: again.open_items(name) for name in ("Ann", "Bob")} == opened
    assert again.answers == desk.answers
    assert again.count_left("Ann") == desk.count_left("Ann") == 3  # two that she holds, one that is free


def test_items_of_people_who_left_go_to_others_once_nothing_else_is_left(tmp_path: Path, file: AnswerFile) -> None:
    pairs, now = read_small(tmp_path, 5), [1000.0]
    settings = AssignmentSettings()
    desk = Desk(file, order_items(pairs.items, settings), (), settings, clock=lambda: now[0])
    held = desk.open_items("Ann")
    while answer_next(desk, "Bob"):
        pass
    assert len(desk.answers) == 3
    now[0] += LEASE_SECONDS + 1
    late = [x for _ in range(3) if (x := answer_next(desk, "Bob"))]
    assert {x.item for x in late} == {x.item for x in held}
    assert desk.open_items("Ann") == []
    desk.answer("Ann", held[0].id, "tie", None, 1.0, "late-answer")  # her page still showed it: it is not lost
    assert len(file.read_answers()) == 6


def test_items_that_are_no_longer_in_the_pairs_are_not_shown(tmp_path: Path, file: AnswerFile) -> None:
    pairs = read_small(tmp_path, 6)
    open_desk(file, pairs).open_items("Ann")
    held = {x.item for x in file.read_assignments()}
    order = [key for key in pairs.items if key not in held]
    assert not held & {x.item for x in Desk(file, order).open_items("Ann")}


def test_an_answer_to_an_item_that_is_no_longer_in_the_pairs_is_not_taken_back(
    tmp_path: Path, file: AnswerFile
) -> None:
    pairs = read_small(tmp_path, 3)
    given = answer_next(open_desk(file, pairs), "Ann")
    assert given is not None
    desk = Desk(file, [key for key in pairs.items if key != given.item])
    assert desk.last_answer("Ann") is None
    with pytest.raises(AssignmentError, match="is not among the pairs any more"):
        desk.take_back("Ann", given.id, "undo")
    assert len(file.read_answers()) == 1


def test_a_repetition_waits_for_its_person_however_long(tmp_path: Path, file: AnswerFile) -> None:
    pairs, now = read_small(tmp_path, 3), [1000.0]
    settings = AssignmentSettings(repeat=1.0)
    desk = Desk(file, order_items(pairs.items, settings), (), settings, clock=lambda: now[0])
    while desk.open_items("Ann")[0].kind != "repeat":
        answer_next(desk, "Ann")
    held = [x for x in desk.open_items("Ann") if x.kind == "repeat"]
    now[0] += LEASE_SECONDS + 1
    assert set(held) <= set(desk.open_items("Ann"))
