"""A user's rows become comparisons, and every row that is not one is named with its line."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, DataError, Prompt
from rlaif_framework.data import Row, make_comparison, read_forms
from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.messages import decode
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs import IdRegistry
from rlaif_framework.data.pairs_file import scan_pairs
from support.fake_plugins import write_rows

GOOD = {"prompt": "p", "responses": ["a", "b"]}
HEAD = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How are you?"


def read_pair(row: dict[str, Any]) -> Comparison:
    (pair,) = read_forms(row)
    return make_comparison(pair, row)


def transcripts(chosen: str, rejected: str, head: str = HEAD, other: str | None = None) -> dict[str, str]:
    other = head if other is None else other
    return {"chosen": f"{head}\n\nAssistant: {chosen}", "rejected": f"{other}\n\nAssistant: {rejected}"}


def test_prompt_and_responses() -> None:
    row = {"id": 7, "prompt": " Post. ", "responses": [" one\n", "two"], "human": 0.7, "confidence": 1, "slice": "s"}
    found = read_pair(row)
    assert found.id == found.prompt.id == "7"
    assert (found.prompt.text, found.prompt.source) == (" Post. ", "Post.")
    assert found.responses == ("one", "two")
    assert found.raw_responses == (" one\n", "two")
    assert read_pair(GOOD).raw_responses is None
    assert (found.preference, found.preference_source, found.confidence, found.slice) == (0.7, "human", 1.0, "s")


def test_nothing_is_known_where_the_row_says_nothing() -> None:
    found = read_pair(GOOD)
    assert (found.preference, found.preference_source, found.confidence, found.slice) == (None, None, None, None)


@pytest.mark.parametrize(("label", "known"), [("a", 1.0), ("b", 0.0), ("tie", 0.5), (None, None)])
def test_labelled_responses(label: str | None, known: float | None) -> None:
    found = read_pair({"prompt": "p", "response_a": "x", "response_b": "y", "label": label})
    assert (found.responses, found.preference) == (("x", "y"), known)


def test_the_chosen_response_is_not_always_the_first() -> None:
    found = [read_pair({"prompt": f"p{i}", "chosen": "good", "rejected": "bad"}) for i in range(400)]
    firsts = sum(c.responses[0] == "good" for c in found)
    assert 160 < firsts < 240
    for c in found:
        assert c.preference == float(c.responses[0] == "good")


def test_the_order_of_chosen_and_rejected_does_not_tell_which_is_which() -> None:
    for i in range(50):
        one = read_pair({"prompt": f"p{i}", "chosen": "x", "rejected": "y"})
        other = read_pair({"prompt": f"p{i}", "chosen": "y", "rejected": "x"})
        assert one.responses == other.responses
        assert one.preference == 1 - (other.preference or 0)


def test_transcripts_are_split_at_the_last_assistant_turn() -> None:
    found = read_pair(transcripts("Fine.", "Bad."))
    assert found.prompt.text == f"{HEAD}\n\nAssistant:"
    assert found.prompt.source == HEAD.strip()
    assert set(found.responses) == {"Fine.", "Bad."}
    assert set(found.raw_responses or ()) == {" Fine.", " Bad."}
    assert found.preference == float(found.responses[0] == "Fine.")


def test_ids_made_from_the_content_are_stable_and_differ() -> None:
    assert read_pair(GOOD).id == read_pair(dict(GOOD)).id
    assert read_pair(GOOD).id != read_pair({**GOOD, "responses": ["a", "c"]}).id


BAD: list[tuple[Any, str]] = [
    ("", "the line is empty"),
    ("{", "not valid JSON"),
    ("[1]", "expected a JSON object, found list"),
    ('{"prompt": "\\ud800", "responses": ["a", "b"]}', "not valid UTF-8"),
    ({}, "expected prompt + responses"),
    ({"prompt": "p"}, "found prompt"),
    ({"responses": ["a", "b"]}, "'prompt' is missing"),
    ({**GOOD, "prompt": 3}, "'prompt' must be a string, not int"),
    ({**GOOD, "prompt": " \n"}, "'prompt' is empty"),
    ({**GOOD, "responses": ["a"]}, "not a list of two strings"),
    ({**GOOD, "responses": ["a", "b", "c"]}, "not a list of two strings"),
    ({**GOOD, "responses": ["a", 1]}, "not a list of two strings"),
    ({**GOOD, "responses": "ab"}, "not a list of two strings"),
    ({**GOOD, "responses": ["a", "  "]}, "a response is empty"),
    ({**GOOD, "responses": ["a", " a "]}, "the two responses are identical"),
    ({**GOOD, "human": 2}, "'human' is 2, not a number between 0 and 1"),
    ({**GOOD, "human": "yes"}, "'human' is 'yes'"),
    ({**GOOD, "human": True}, "'human' is True"),
    ('{"prompt": "p", "responses": ["a", "b"], "human": NaN}', "'human' is nan"),
    ({**GOOD, "confidence": -0.1}, "'confidence' is -0.1"),
    ({**GOOD, "slice": 4}, "'slice' must be a string, not int"),
    ({**GOOD, "id": [1]}, "'id' is [1]"),
    ({"prompt": "p", "response_a": "x", "response_b": "y", "label": "A"}, "'label' is 'A'"),
    ({"prompt": "p", "response_a": "x", "label": "a"}, "'response_b' is missing"),
    (
        {"prompt": "p", "response_a": "x", "response_b": "y", "label": "a", "human": 1},
        "the row states its preference twice",
    ),
    ({"prompt": "p", "chosen": "x"}, "'rejected' is missing"),
    ({"prompt": "p", "chosen": "x", "rejected": ["y"]}, "'rejected' must be a string, not list"),
    ({"prompt": "p", "chosen": [], "rejected": "y"}, "'chosen' must be a string, not list"),
    ({"chosen": "x", "rejected": "y"}, "'prompt' is missing, and 'chosen' is not a transcript"),
    (transcripts("x", "y", other="\n\nHuman: Something else"), "differ before their last"),
    (transcripts("", "y"), "a response is empty"),
    (transcripts("x", "x"), "the two responses are identical"),
    ({"chosen": "\n\nAssistant: x", "rejected": "\n\nAssistant: y"}, "'prompt' is empty"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, row: Any, reason: str) -> None:
    line = row if isinstance(row, str) else json.dumps(row)
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    with scan_pairs(path) as found:
        assert (found.count, found.skipped) == (2, 1)
        assert [pair.responses for pair in found.read()] == [("a", "b")] * 2
        (line,) = found.faults.describe(with_file=False)
    assert line.startswith("line 2: ")
    assert reason in line


def test_all_bad_rows_of_a_large_file_are_reported_together(tmp_path: Path) -> None:
    rows: list[Any] = [{**GOOD, "prompt": f"p{i}"} for i in range(100_000)]
    bad = [3, 17, 999, 5000, 5001, 40_000, 77_777, 88_888, 99_998, 99_999]
    for place in bad:
        rows[place] = {"prompt": "p"} if place < 1000 else {**GOOD, "human": place}
    scanned = scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows))
    assert (scanned.count, scanned.skipped) == (99_990, 10)
    with pytest.raises(DataError) as caught:
        scanned.check(skip_invalid=False)
    message = str(caught.value)
    assert "10 of 100000 rows are invalid" in message
    assert message.splitlines()[1:-1] == [
        "  line 4: " + message.splitlines()[1].partition("line 4: ")[2],
        "    likewise line 18, line 1000",
        "  line 5001: 'human' is 5000, not a number between 0 and 1",
        "    likewise line 5002, line 40001, line 77778, line 88889, line 99999 and 1 more",
    ]
    assert "use --skip-invalid to label the other 99990" in message
    scanned.check(skip_invalid=True)
    assert sum(1 for _ in scanned.read()) == 99_990


def test_a_fault_of_all_rows_is_said_once(tmp_path: Path) -> None:
    scanned = scan_pairs(write_rows(tmp_path / "pairs.jsonl", [GOOD, *({"x": 1} for _ in range(50))]))
    with pytest.raises(DataError, match="line 3, line 4, line 5, line 6, line 7 and 44 more") as caught:
        scanned.check(skip_invalid=False)
    assert len(str(caught.value).splitlines()) == 4


def test_more_kinds_of_faults_than_fit_a_screen_are_counted(tmp_path: Path) -> None:
    rows = [{f"column {i}": 1} for i in range(50)]
    with pytest.raises(DataError, match="and 30 more kinds of faults"):
        scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows)).check(skip_invalid=False)


def test_an_id_that_stands_there_twice_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{**GOOD, "id": 1}, {**GOOD, "id": 2}, {**GOOD, "id": "1"}, GOOD, GOOD, {**GOOD, "id": 2, "prompt": "q"}]
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    scanned = scan_pairs(path)
    assert (scanned.count, scanned.skipped) == (4, 2)  # rows that state no id may be equal
    assert scanned.faults.describe(with_file=False) == [
        "line 3: the id '1' is already used in line 1",
        "  likewise line 6",
    ]
    assert len(list(scanned.read())) == 4


def test_a_misspelt_key_is_doubted_once_and_a_column_of_ones_own_is_not(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "prompt_id": 3, "source": "x", "model": "y"},
        {**GOOD, "humn": 1},
        {**GOOD, "humn": 0, "Slice": "s"},
        {**GOOD, "human": 1, "humn": 1},  # the key it looks like is there
        {"prompt": "p", "respnses": ["a", "b"]},
    ]
    scanned = scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows))
    found = {x.name: (x.suggestion, x.place, x.count) for x in scanned.unknown_columns}
    assert found == {
        "humn": ("human", "line 2", 2),
        "Slice": ("slice", "line 3", 1),
        "respnses": ("responses", "line 5", 1),
    }
    assert any("2 rows have the unknown key 'humn', first in line 2" in text for text in scanned.find_warnings("tldr"))


def test_the_comparisons_are_those_that_were_validated(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", [{**GOOD, "prompt": f"p{i}", "human": 0.25} for i in range(5)])
    seen: list[tuple[int, Comparison]] = []

    def note(row: Row, pair: PairRow, comparison: Comparison) -> None:
        seen.append((row.number, comparison))

    with scan_pairs(path, note) as scanned:
        expected = [read_pair({**GOOD, "prompt": f"p{i}", "human": 0.25}) for i in range(5)]
        path.write_text("changed while labelling\n")
        assert list(scanned.read()) == list(scanned.read()) == expected
        assert list(scanned.read(3)) == expected[3:]
    assert seen == list(enumerate(expected, 1))


def test_dialogues_ask_for_their_task(tmp_path: Path) -> None:
    rows = [transcripts("a", "b"), {**GOOD, "prompt": f"{HEAD}\n\nAssistant:"}, GOOD]
    scanned = scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows))
    (warning,) = scanned.find_warnings("tldr")
    assert "2 prompts are dialogues" in warning
    assert "--task dialogue" in warning
    assert scanned.find_warnings("dialogue") == []


def test_texts_beside_a_prompt_that_are_left_out_are_told(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "Guten Tag", "system": "", "chosen": "Good day", "rejected": "Bye"}
    rows = [row, {**row, "input": ""}, {**row, "instruction": "Translate: Guten Tag"}, {**row, "system": "Be brief."}]
    with scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows), fields={"prompt": "instruction"}) as scanned:
        told = [text for text in scanned.find_warnings("tldr") if "not part of their prompts" in text]
        assert [text.partition(": ")[2].partition(",")[0] for text in told] == [
            "2 rows have a text in 'input'",
            "1 rows have a text in 'system'",
        ]
    with scan_pairs(write_rows(tmp_path / "pairs.jsonl", rows), fields={"prompt": "input"}) as scanned:
        assert not any("'input'" in text for text in scanned.find_warnings("tldr"))


def test_a_file_without_one_good_row_is_refused_either_way(tmp_path: Path) -> None:
    scanned = scan_pairs(write_rows(tmp_path / "pairs.jsonl", [{}]))
    with pytest.raises(DataError, match="nothing to label"):
        scanned.check(skip_invalid=True)


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(GOOD) + "\n").encode()))
    assert scan_pairs(path).count == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot read"):
        scan_pairs(path)


def test_what_is_no_file_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "pairs.txt").write_text("pairs")
    for name, reason in [
        ("nowhere.jsonl", "no data file"),
        ("nowhere", "no file or folder at"),
        ("empty.jsonl", "is empty"),
        ("folder.jsonl", "has no file of rows"),
        ("pairs.txt", "names end in .jsonl, .jsonl.gz, .json,"),
    ]:
        with pytest.raises(DataError, match=reason):
            scan_pairs(tmp_path / name)


def test_a_repeated_id_of_another_file_is_a_fault_that_names_both_files(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", [{**GOOD, "id": 1}])
    second = write_rows(tmp_path / "b.jsonl", [{**GOOD, "id": 1}, {"prompt": "p"}])
    with scan_pairs(tmp_path) as found, pytest.raises(DataError) as raised:
        found.check(skip_invalid=False)
    assert f"line 1: the id '1' is already used in {first}, line 1" in str(raised.value)
    assert f"{second}, line 2: " in str(raised.value)


def test_made_ids_are_those_of_no_other_pair() -> None:
    ids, row = IdRegistry(), Row("file", 1)
    pairs = [Comparison(name, Prompt("p", text, text), ("x", "y")) for name, text in zip("aab", "ppq", strict=True)]
    pairs.insert(1, replace(pairs[2], id="a-2"))
    assert [ids.make_unique(pair, row).id for pair in pairs] == ["a", "a-2", "a-3", "b"]
    assert (ids.repeated, ids.contradicted) == (1, 0)
    other = Comparison("a", Prompt("p", "other", "other"), ("x", "y"))
    assert ids.make_unique(other, row).id == "a-4"
    assert ids.repeated == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{{"answer": 42}}', None),  # a set of a set, for Python
        ("['Hi' 'And?']", None),  # as numpy prints it
        ("['Hi', 'And?']", ["Hi", "And?"]),
        ('["Hi", "And?"]', ["Hi", "And?"]),
        ("[1, 2", None),
    ],
)
def test_texts_that_look_like_lists_are_decoded_or_stay_as_they_are(value: str, expected: list[str] | None) -> None:
    assert decode(value) == (value if expected is None else expected)


def test_a_response_with_doubled_braces_is_a_text() -> None:
    found = read_pair({"prompt": "Write JSON", "response_a": '{{"answer": 42}}', "response_b": "x"})
    assert found.responses == ('{{"answer": 42}}', "x")


@pytest.mark.parametrize("value", ['["a \\ud83d b"]', "['a \\ud83d b']"], ids=["json", "python"])
def test_lists_with_lone_surrogates_are_faults(value: str) -> None:
    with pytest.raises(RowFault, match="lone surrogate"):
        decode(value)
