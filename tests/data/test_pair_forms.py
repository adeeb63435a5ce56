"""Published preference data is read in the form in which it is published, or refused row by row."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif_framework import Comparison, DataError, SpecError
from rlaif_framework.data import make_comparison, read_forms
from rlaif_framework.data.fields import parse_fields, suggest_fields
from rlaif_framework.data.messages import decode
from rlaif_framework.data.pairs_file import scan_pairs
from support.fake_plugins import write_rows

H, A = "\n\nHuman: ", "\n\nAssistant: "


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"content": text, "role": "assistant"}


def read(row: dict[str, Any]) -> list[Comparison]:
    return [make_comparison(pair, row) for pair in read_forms(row)]


def outcome(row: dict[str, Any]) -> tuple[str, dict[str, float | None]]:
    """The prompt, and for each response the probability that it is the better one."""
    (found,) = read(row)
    first, second = found.responses
    p = found.preference
    return found.prompt.text, {first: p, second: None if p is None else 1 - p}


GOOD_BAD = {"Soak it.": 1.0, "No.": 0.0}
DIALOGUE = "Human: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        # TRL: standard and conversational, with the prompt beside or inside the responses
        ({"prompt": "Why?", "chosen": "Soak it.", "rejected": "No."}, "Why?"),
        ({"prompt": [user("Why?")], "chosen": [assistant("Soak it.")], "rejected": [assistant("No.")]}, "Why?"),
        ({"chosen": [user("Why?"), assistant(" Soak it.")], "rejected": [user("Why?"), assistant("No.")]}, "Why?"),
        # UltraFeedback-binarized repeats the prompt, as text and in each dialogue
        (
            {
                "prompt": "Why?",
                "prompt_id": "x",
                "chosen": [user("Why?"), assistant("Soak it.")],
                "rejected": [user("Why?"), assistant("No.")],
                "messages": [user("Why?"), assistant("Soak it.")],
                "score_chosen": 8.0,
                "score_rejected": 2.0,
            },
            "Why?",
        ),
        # several turns, of which some data sets have the first as `prompt`
        (
            {
                "prompt": [user("Hi"), assistant("Hello!"), user("Why?")],
                "chosen": [assistant("Soak it.")],
                "rejected": [assistant("No.")],
            },
            DIALOGUE,
        ),
        (
            {
                "prompt": "Hi",
                "chosen": [user("Hi"), assistant("Hello!"), user("Why?"), assistant("Soak it.")],
                "rejected": [user("Hi"), assistant("Hello!"), user("Why?"), assistant("No.")],
            },
            DIALOGUE,
        ),
        (
            {
                "prompt": [user("Why?")],
                "chosen": [user("Why?"), assistant("Soak it.")],
                "rejected": [user("Why?"), assistant("No.")],
            },
            "Why?",
        ),
        ({"prompt": [user("Why?")], "chosen": "Soak it.", "rejected": "No."}, "Why?"),
        # one message instead of a list
        ({"prompt": [user("Why?")], "chosen": assistant("Soak it."), "rejected": assistant("No.")}, "Why?"),
        (
            {
                "chosen": [{"role": "system", "content": "Be brief."}, user("Why?"), assistant("Soak it.")],
                "rejected": [{"role": "system", "content": "Be brief."}, user("Why?"), assistant("No.")],
            },
            "System: Be brief.\n\nHuman: Why?\n\nAssistant:",
        ),
        # ShareGPT's names, and contents as lists of parts
        (
            {
                "chosen": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Soak it."}],
                "rejected": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "No."}],
            },
            "Why?",
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
                "chosen": [assistant("Soak it.")],
                "rejected": [assistant("No.")],
            },
            "Why?",
        ),
        # messages that are stored as text, in JSON or as pandas writes them
        (
            {
                "prompt": json.dumps([user("Why?")]),
                "chosen": str([assistant("Soak it.")]),
                "rejected": json.dumps([assistant("No.")]),
            },
            "Why?",
        ),
        # TRL's standard form with an implicit prompt, which ends with a whole word
        ({"chosen": "Why? Soak it.", "rejected": "Why? No."}, "Why?"),
        ({"chosen": "Why is it?\nSoak it.", "rejected": "Why is it?\nNo."}, "Why is it?"),
        # Anthropic's HH, with and without the prompt
        ({"chosen": f"{H}Why?{A}Soak it.", "rejected": f"{H}Why?{A}No."}, f"{H}Why?\n\nAssistant:"),
        ({"prompt": f"{H}Why?{A}", "chosen": "Soak it.", "rejected": "No."}, f"{H}Why?{A}"),
        (
            {"prompt": f"{H}Why?{A}", "chosen": f"{H}Why?{A}Soak it.", "rejected": f"{H}Why?{A}No."},
            f"{H}Why?{A}",
        ),
        # SHP: 1 means A
        ({"history": "Why?", "human_ref_A": "Soak it.", "human_ref_B": "No.", "labels": 1, "score_A": 3}, "Why?"),
        ({"history": "Why?", "human_ref_A": "No.", "human_ref_B": "Soak it.", "labels": 0}, "Why?"),
        # HelpSteer2's and HelpSteer3's preferences: negative means the first
        ({"prompt": "Why?", "response_1": "Soak it.", "response_2": "No.", "preference_strength": -2}, "Why?"),
        (
            {
                "context": [user("Hi"), assistant("Hello!"), user("Why?")],
                "response1": "No.",
                "response2": "Soak it.",
                "overall_preference": 3,
            },
            DIALOGUE,
        ),
        (
            {
                "prompt": "Hi<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWhy?",
                "response_1": "Soak it.",
                "response_2": "No.",
                "preference_strength": -1,
            },
            DIALOGUE,
        ),
        # PKU-SafeRLHF
        (
            {
                "prompt": "Why?",
                "response_0": "No.",
                "response_1": "Soak it.",
                "better_response_id": 1,
                "safer_response_id": 0,
            },
            "Why?",
        ),
        # Chatbot Arena
        (
            {
                "conversation_a": [user("Why?"), assistant("No.")],
                "conversation_b": [user("Why?"), assistant("Soak it.")],
                "winner": "model_b",
                "model_a": "x",
                "model_b": "y",
            },
            "Why?",
        ),
        (
            {
                "id": 1,
                "prompt": '["Why?"]',
                "response_a": '["Soak it."]',
                "response_b": '["No."]',
                "winner_model_a": 1,
                "winner_model_b": 0,
                "winner_tie": 0,
            },
            "Why?",
        ),
        ({"prompt": "Why?", "responses": ["No.", "Soak it."], "winner": "model_b"}, "Why?"),
        ({"prompt": "Why?", "responses": ["No.", "Soak it."], "label": "b"}, "Why?"),
    ],
)
def test_a_form_is_read_with_its_prompt_and_its_preference(row: dict[str, Any], prompt: str) -> None:
    assert outcome(row) == (prompt, GOOD_BAD)


@pytest.mark.parametrize("winner", ["tie", "tie (bothbad)", "both_bad"])
def test_votes_for_neither_are_ties(winner: str) -> None:
    (found,) = read({"prompt": "p", "response_a": "a", "response_b": "b", "winner": winner})
    assert found.preference == 0.5


def test_a_preference_strength_is_a_confidence() -> None:
    row = {"prompt": "p", "response_1": "a", "response_2": "b"}
    found = [read({**row, "preference_strength": s})[0] for s in (-3, 0, 1, None)]
    assert [(c.preference, c.confidence) for c in found] == [
        (1.0, 1.0),
        (0.5, 0.0),
        (0.0, pytest.approx(1 / 3)),
        (None, None),
    ]


def test_every_two_of_ranked_responses_are_a_pair() -> None:
    """Nectar: seven answers, of which rank 1 is the best."""
    texts = ["best", "second", "third", "second ", ""]
    row = {
        "prompt": f"{H}Why?{A}",
        "answers": [{"answer": text, "model": "m", "rank": rank} for rank, text in enumerate(texts, 1)],
    }
    found = read(row)
    for pair in found:
        better = pair.responses[0 if pair.preference == 1.0 else 1]
        assert texts.index(better) == min(map(texts.index, pair.responses))
    assert {frozenset(pair.responses) for pair in found} == {
        frozenset(pair) for pair in (("best", "second"), ("best", "third"), ("second", "third"))
    }
    assert [pair.id for pair in read({**row, "id": "n1"})] == ["n1/1-2", "n1/1-3", "n1/2-3"]
    assert {pair.prompt.id for pair in read({**row, "id": "n1"})} == {"n1"}


def test_scores_of_several_responses_are_compared() -> None:
    completions = [{"response": "a", "overall_score": 7.5}, {"response": "b", "overall_score": 8}]
    (found,) = read({"prompt": "p", "completions": completions})
    assert found.responses[0 if found.preference == 1.0 else 1] == "b"
    (found,) = read({"prompt": "p", "responses": ["a", "b"], "ratings": [4, 4]})
    assert found.preference == 0.5
    (found,) = read({"prompt": "p", "responses": ["a", "b"], "ranks": [2, 1]})
    assert found.responses[0 if found.preference == 1.0 else 1] == "b"
    objects = [{"text": "a"}, {"text": "b"}]
    silent: list[dict[str, Any]] = [{}, {"scores": {"a": 1}}]
    for beside in silent:
        (found,) = read({"prompt": "p", "answers": objects, **beside})
        assert found.preference is None
    stated: list[dict[str, Any]] = [
        {"scores": [1, 2]},
        {"ranks": [2, 1]},
        {"human": 0},
        {"label": "b"},
        {"winner": "b"},
    ]
    for beside in stated:
        (found,) = read({"prompt": "p", "responses": objects, **beside})
        assert found.responses[0 if found.preference == 1.0 else 1] == "b"


def test_consecutive_rated_responses_to_a_prompt_are_pairs(tmp_path: Path) -> None:
    """HelpSteer: one response and its ratings a row; the responses to a prompt follow each other."""

    def rated(prompt: str, response: str, score: int) -> dict[str, Any]:
        return {"prompt": prompt, "response": response, "helpfulness": score, "correctness": 4, "verbosity": 1}

    rows = [rated("p", "a", 3), rated("p", "b", 1), rated("q", "c", 2), rated("r", "d", 0), rated("r", "e", 0)]
    with scan_pairs(write_rows(tmp_path / "hs.jsonl", rows)) as found:
        pairs = list(found.read())
        assert found.faults.describe(with_file=False) == [
            "line 3: the row has one response, and the rows around it have other prompts, so there is no pair"
        ]
    assert [pair.prompt.text for pair in pairs] == ["p", "r"]
    assert pairs[0].responses[0 if pairs[0].preference == 1.0 else 1] == "a"
    assert pairs[1].preference == 0.5
    with scan_pairs(write_rows(tmp_path / "null.jsonl", [{**row, "score": None} for row in rows[:2]])) as found:
        (pair,) = found.read()
    assert pair == pairs[0]


def test_a_wrong_rating_is_named_by_its_column(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "p", "response": "a", "helpfulness": "high"}
    with scan_pairs(write_rows(tmp_path / "hs.jsonl", [row, row])) as found:
        assert found.faults.describe(with_file=False) == ["line 1: 'helpfulness' is 'high', not a number"]
    row = {"prompt": "p", "response": None, "helpfulness": 3}
    with scan_pairs(write_rows(tmp_path / "hs.jsonl", [row, row])) as found:
        assert found.faults.describe(with_file=False) == ["line 1: 'response' is missing"]


def test_a_long_row_of_line_breaks_is_read_at_once() -> None:
    (found,) = read({"prompt": "\n" * 1_000_000 + "p", "response_1": "a", "response_2": "b", "preference_strength": 1})
    assert found.prompt.source == "p"


def test_texts_that_are_nearly_literals_of_python_cause_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    for text in ("[1if]", "['\\\x1b']", "[0xfor x]"):
        (found,) = read({"prompt": "p", "responses": [text, "b"], "human": 1})
        assert found.responses == (text, "b")
        assert decode(text) in (text, ["\\\x1b"])
    assert not recwarn.list


def test_openais_comparisons_are_read_without_the_task() -> None:
    row = {"info": {"post": "Why?"}, "summaries": [{"text": " No."}, {"text": " Soak it."}], "choice": 1}
    assert outcome(row) == ("Why?", GOOD_BAD)
    assert read({**row, "info": {"article": "CNN"}}) == []


BASE = f"{H}Is dough safe?"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": f"{BASE}{A}No.{H}Why?", "rejected": f"{BASE}{A}Yes.{H}Why?"}, "'chosen' ends with a turn of Human"),
        ({"chosen": f"{BASE}{A}No.", "rejected": f"{BASE}{A}Yes.{H}Why?"}, "'rejected' ends with a turn of Human"),
        ({"chosen": f"{BASE}{A}No.", "rejected": f"{BASE}{A}No.{H}Why?{A}Germs."}, "differ before their last"),
        (
            {"chosen": f"{BASE}{A}No.{H}Why?{A}Germs.", "rejected": f"{BASE}{A}Yes.{H}Why?{A}Fun."},
            "differ before their last",
        ),
        ({"chosen": f"{BASE}{H}Well?{A}No.", "rejected": f"{BASE}{H}Well?{A}Yes."}, "two turns of Human in a row"),
        ({"prompt": f"{BASE}{A}No.", "responses": ["a", "b"]}, "the prompt ends with a turn of Assistant"),
        ({"prompt": f"{BASE}{A}", "responses": [f"No.{H}Why?", "b"]}, "a response holds another turn"),
        (
            {"chosen": [user("q"), assistant("a"), user("r")], "rejected": [user("q"), assistant("b")]},
            "ends with a turn",
        ),
        (
            {
                "chosen": [user("q"), assistant("a"), user("r"), assistant("x")],
                "rejected": [user("q"), assistant("b"), user("r"), assistant("y")],
            },
            "'chosen' and 'rejected' differ before their last turn",
        ),
        (
            {"chosen": [user("q"), user("r"), assistant("a")], "rejected": [user("q"), user("r"), assistant("b")]},
            "in a row",
        ),
        ({"prompt": [user("q"), assistant("a")], "chosen": "x", "rejected": "y"}, "nothing to answer"),
        ({"prompt": [{"role": "tool", "content": "q"}], "chosen": "x", "rejected": "y"}, "a message of role 'tool'"),
        ({"prompt": [{"role": "user", "content": None}], "chosen": "x", "rejected": "y"}, "a message without text"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "x", "rejected": "y"},
            "a message without text",
        ),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "'prompt' is missing, and 'chosen' has no turn"),
        (
            {"prompt": "q", "chosen": "[{'content': 'a' 'role': 'assistant'}]", "rejected": "b"},
            "looks like a list of messages",
        ),
        ({"prompt": "p", "response_a": "a", "response_b": "b", "winner": "x"}, "'winner' is 'x', not one of a, b"),
        ({"prompt": "p", "responses": ["a", "b"], "winner": "a", "human": 1}, "states its preference twice"),
        (
            {"prompt": "p", "response_a": "a", "response_b": "b", "winner_model_a": 1, "winner_model_b": 1},
            "do not add up to 1",
        ),
        (
            {"prompt": '["p", "q"]', "response_a": '["a", "b"]', "response_b": '["c", null]'},
            "'response_a' and 'response_b' differ before their last turn",
        ),
        ({"prompt": '["p"]', "response_a": '["\\ud83d"]', "response_b": '["c"]'}, "lone surrogate"),
        ({"prompt": "p", "answers": [{"answer": "a", "rank": 1}]}, "fewer than two different responses"),
        ({"prompt": "p", "answers": [{"answer": "a", "rank": "first"}, {"answer": "b"}]}, "'answers.rank' is 'first'"),
        ({"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 2]}, "without a rank or score for each"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": -7}, "between -3 and 3"),
        ({"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": True}, "'labels' is True"),
        ({"prompt": "p", "completion": "a", "label": True}, "expected prompt + responses"),
    ],
)
def test_a_row_that_cannot_be_read_right_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as raised:
        read(row)
    assert reason in str(raised.value)


# Files


ROWS = [
    {"id": "1", "prompt": "p\nq", "response_a": 'a "long", one', "response_b": "b", "label": "a", "human": None},
    {"id": "2", "prompt": "é", "response_a": "a", "response_b": "b", "label": None, "human": "0.25"},
]


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def pack(path: Path, name: str) -> None:
    path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))


def write_packed_csv(path: Path) -> None:
    write_csv(path.with_suffix(""))
    pack(path.with_suffix(""), path.name)


def write_folder(path: Path) -> None:
    path.mkdir()
    write_csv(path / "a.csv")


WRITERS: dict[str, Callable[[Path], object]] = {
    "p.jsonl": lambda path: write_rows(path, ROWS),
    "p.json": lambda path: path.write_text(json.dumps(ROWS)),
    "pretty.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "array.jsonl": lambda path: path.write_text("\ufeff" + json.dumps(ROWS, indent=1)),
    "array.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "p.csv": write_csv,
    "semicolons.csv": lambda path: write_csv(path, ";"),
    "p.tsv": lambda path: write_csv(path, "\t"),
    "p.csv.gz": write_packed_csv,
    "p.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "folder": write_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_pairs_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    expected = scan_pairs(write_rows(tmp_path / "expected.jsonl", ROWS))
    WRITERS[name](tmp_path / name)
    with scan_pairs(tmp_path / name) as found:
        assert list(found.read()) == list(expected.read())
        assert found.digest == expected.digest, "the labels would be made again"
    assert [c.preference for c in expected.read()] == [1.0, 0.25]


def test_messages_are_read_from_parquet(tmp_path: Path) -> None:
    row = {"chosen": [user("Why?"), assistant("Soak it.")], "rejected": [user("Why?"), assistant("No.")]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    (found,) = scan_pairs(tmp_path / "p.parquet").read()
    assert found == read(row)[0]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("p.json", '{\n "rows": []\n}', "holds a JSON object over several lines"),
        ("p.json", '[{"a": 1},\n {"b" 2}]', "not a valid JSON array: Expecting ':' delimiter in line 2, column 7"),
        ("p.json", "[]", "is empty"),
        ("p.csv", "", "is empty"),
        ("p.csv", "prompt,chosen\n", "is empty"),
        ("p.csv", "prompt,prompt\na,b\n", "the column 'prompt' is there twice"),
        ("p.csv", 'prompt,chosen,rejected\na,"b,c\nd,e,f\n', "p.csv, line 2: not valid CSV"),
        ("p.csv", "prompt,chosen\n\udce9,b\n", "save the file as UTF-8"),
        ("p.parquet", "no table", "as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_gets_one_message(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(DataError) as raised:
        scan_pairs(tmp_path / name)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_that_are_not_objects_and_lines_of_another_length_are_faults(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([ROWS[0], 3, "x", ROWS[1]]))
    assert scan_pairs(tmp_path / "p.json").faults.describe(with_file=False) == [
        "row 2: expected a JSON object, found int",
        "row 3: expected a JSON object, found str",
    ]
    (tmp_path / "p.csv").write_text('prompt,response_a,response_b\n"p\nq",a,b\nr,c\n\ns,c,d\n')
    with scan_pairs(tmp_path / "p.csv") as found:
        assert found.faults.describe(with_file=False) == ["line 4: the row has 2 fields, the header has 3"]
        assert found.count == 2


def test_a_hub_data_set_is_read_split_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    parts = {name: datasets.Dataset.from_list(ROWS) for name in ("train_prefs", "test_prefs")}

    def load(name: str, split: str | None = None) -> Any:
        assert name == "some/data"
        return datasets.DatasetDict(parts) if split is None else parts[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="has the splits train_prefs, test_prefs; choose one, such as some/data:train_"):
        scan_pairs(Path("some/data"))
    expected = scan_pairs(write_rows(tmp_path / "p.jsonl", ROWS))
    assert scan_pairs(Path("some/data:test_prefs")).digest == expected.digest


# Names of columns


def test_other_columns_are_mapped(tmp_path: Path) -> None:
    rows = [{"meta": {"question": "Why?"}, "chosen": "x", "output1": "Soak it.", "output2": "No.", "vote": "model_a"}]
    fields = parse_fields(["prompt=meta.question, response_a=output1", "response_b=output2,winner=vote"])
    with scan_pairs(write_rows(tmp_path / "p.jsonl", rows), fields=fields) as found:
        (pair,) = found.read()
    assert (pair.prompt.text, pair.responses, pair.preference) == ("Why?", ("Soak it.", "No."), 1.0)


def test_a_mapped_column_that_is_missing_is_not_replaced_by_another(tmp_path: Path) -> None:
    rows = [{"question": "q", "responses": ["a", "b"]}, {"prompt": "p", "responses": ["a", "b"]}]
    with scan_pairs(write_rows(tmp_path / "p.jsonl", rows), fields={"prompt": "question"}) as found:
        (line,) = found.faults.describe(with_file=False)
    told = "--fields names the column 'question', for which the row has no value; known: responses."
    assert line == f"line 2: 'prompt' is missing: {told}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prompt", "expected NAME=COLUMN"),
        ("prompt=", "expected NAME=COLUMN"),
        ("prmpt=x", "no field is named 'prmpt'; did you mean 'prompt'?"),
        ("prompt=x,prompt=y", "mapped twice"),
    ],
)
def test_a_wrong_mapping_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=r"--fields") as raised:
        parse_fields([text])
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["system", "question", "chosen", "rejected"], {"prompt": "question"}),
        (
            ["instruction", "output_1", "output_2", "annotator"],
            {"prompt": "instruction", "response_a": "output_1", "response_b": "output_2"},
        ),
        (
            ["id", "Question", "answer_0", "answer_1"],
            {"prompt": "Question", "response_a": "answer_0", "response_b": "answer_1"},
        ),
        (["query", "better", "worse"], {"prompt": "query", "chosen": "better", "rejected": "worse"}),
        (["source", "target"], {}),
        (["prompt", "chosen"], {}),
        (["prompt", "response", "helpfulness"], {}),
    ],
)
def test_a_mapping_is_suggested_where_the_columns_say_enough(columns: list[str], expected: dict[str, str]) -> None:
    assert suggest_fields(columns) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Why?", "chosen_response": "Soak it.", "rejected_response": "No."},
        {"question": "Why?", "response_chosen": "Soak it.", "response_rejected": "No."},
        {"input": "Why?", "winner_response": "Soak it.", "loser_response": "No."},
        # lvwerra/stack-exchange-paired
        {"qid": 1, "question": "Why?", "response_j": "Soak it.", "response_k": "No."},
        # Intel/orca_dpo_pairs: the words that both texts begin with are not the prompt
        {"system": "", "question": "Why?", "chosen": "So. Soak it.", "rejected": "So. No."},
        {"query": "Why?", "completion_a": "Soak it.", "completion_b": "No.", "preference": "a"},
        # HuggingFaceH4/stack-exchange-preferences
        {"question": "Why?", "answers": [{"text": "No.", "pm_score": 1}, {"text": "Soak it.", "pm_score": 3}]},
        # openbmb/UltraFeedback
        {
            "instruction": "Why?",
            "completions": [{"response": "No.", "overall_score": 2.0}, {"response": "Soak it.", "overall_score": 8.0}],
        },
        # LLaMA-Factory's preferences: one message instead of a list
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Soak it."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        # tatsu-lab/alpaca_farm: a preference in another notation is not a part of the mapping
        {"instruction": "Why?", "input": "", "output_1": "Soak it.", "output_2": "No.", "preference": 1},
    ],
    ids=lambda row: ",".join(row),
)
def test_the_suggested_mapping_of_published_data_works_as_printed(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write_rows(tmp_path / "p.jsonl", [row])
    with scan_pairs(path) as found:
        (line,) = found.faults.describe(with_file=False)
    fields = line.partition("did you mean --fields ")[2].removesuffix("?")
    with scan_pairs(path, fields=parse_fields([fields])) as found:
        assert not found.faults.count, found.faults.describe(with_file=False)
        (comparison,) = found.read()
    assert comparison.prompt.text == "Why?"
    preferred = {1.0: comparison.responses[0], 0.0: comparison.responses[1], None: None}[comparison.preference]
    assert (preferred or "").removeprefix("So. ") == ("" if row.get("preference") == 1 else "Soak it.")


def test_an_implicit_prompt_ends_before_the_word_that_differs() -> None:
    """TRL cuts this in the middle of the word: "The sky is bl"."""
    (found,) = read({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert (found.prompt.text, set(found.responses)) == ("The sky is", {"blue.", "black."})


def test_the_suggestion_is_a_part_of_the_error(tmp_path: Path) -> None:
    rows = [{"instruction": "p", "output1": "a", "output2": "b"}] * 2
    with scan_pairs(write_rows(tmp_path / "p.jsonl", rows)) as found:
        line, likewise = found.faults.describe(with_file=False)
    assert line.endswith("did you mean --fields prompt=instruction,response_a=output1,response_b=output2?")
    assert likewise == "  likewise line 2"


def test_a_mapping_to_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"email": "p", "date": "a", "wrong": "b"}])
    with pytest.raises(DataError) as raised:
        scan_pairs(path, fields={"prompt": "email", "chosen": "date", "rejected": "wrongg"})
    told = f"--fields: no row of {path} has the column 'wrongg', mapped to 'rejected'; did you mean 'wrong'?"
    assert str(raised.value) == told


def test_a_mapping_of_a_column_that_is_optional_is_checked_too(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b", "meta": {"kind": "x"}}])
    with pytest.raises(DataError, match=r"no row of .* has the column 'meta\.kin', mapped to 'slice'"):
        scan_pairs(path, fields={"slice": "meta.kin"})
    with scan_pairs(path, fields={"slice": "meta.kind"}) as found:
        assert [pair.slice for pair in found.read()] == ["x"]


# The same pair twice


def test_the_same_pair_with_opposite_votes_has_two_ids_and_a_warning(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": c, "rejected": r} for c, r in (("a", "b"), ("b", "a"), ("a", "b"))]
    with scan_pairs(write_rows(tmp_path / "p.jsonl", rows)) as found:
        pairs = list(found.read())
        assert "2 rows repeat the prompt and responses of an earlier row, 1 of them with another preference" in str(
            found.find_warnings("tldr")
        )
    assert len({pair.id for pair in pairs}) == 3
    assert pairs[0].preference == 1 - (pairs[1].preference or 0) == pairs[2].preference


def test_a_prompt_beside_a_dialogue_is_its_first_turn_or_a_fault() -> None:
    ends = {"chosen": [assistant("Soak it.")], "rejected": [assistant("No.")]}

    def begin(*turns: dict[str, str], **row: Any) -> dict[str, Any]:
        return {**row, **{name: [*turns, *end] for name, end in ends.items()}}

    for prompt in ("Rice?", " Rice?\n", "Human: Rice?\n\nAssistant:"):
        assert outcome(begin(user("Rice?"), prompt=prompt)) == (prompt, GOOD_BAD)
    system = {"role": "system", "content": "Answer in French."}
    expected = "System: Answer in French.\n\nHuman: Rice?\n\nAssistant:"
    assert outcome(begin(system, prompt="Rice?")) == (expected, GOOD_BAD)
    own = f"System: Answer in French.{H}Rice?{A}"
    assert outcome(begin(system, prompt=own)) == (expected, GOOD_BAD)
    for prompt in ("Human: hi", f"Question: x{A}", f"Human: a{A} b{H}c"):  # one turn, also if it looks like several
        assert outcome(begin(user(prompt), prompt=prompt)) == (prompt, GOOD_BAD)
    assert outcome(begin(user("Rice?"), prompt="")) == ("Rice?", GOOD_BAD)
    with pytest.raises(DataError, match="'prompt' is another text than the first turn of 'chosen'"):
        read(begin(user("Rice?"), prompt="Be concise"))


@pytest.mark.parametrize(
    "prompt",
    ["Rice?", "Human: Rice?", f"{H}Rice?", f"{H}Rice?{A}", [user("Rice?")], json.dumps([user("Rice?")])],
    ids=str,
)
def test_transcripts_that_repeat_a_prompt_lose_it(prompt: Any) -> None:
    chosen, rejected = (f"Human: Rice?{A}{text}" for text in ("Soak it.", "No."))
    assert outcome({"prompt": prompt, "chosen": chosen, "rejected": rejected})[1] == GOOD_BAD
    start = f"Human: Hi{A} Hello.{H}Rice?"
    several = {"prompt": start, "chosen": f"{start}{A} Soak it.", "rejected": f"{start}{A} No."}
    assert outcome(several)[1] == GOOD_BAD
    texts = {"prompt": "Write a dialogue", "chosen": chosen, "rejected": rejected}
    assert outcome(texts)[1] == {chosen: 1.0, rejected: 0.0}  # a response may be a dialogue


def test_lists_of_turns_that_cannot_be_read_are_a_fault() -> None:
    row = {"prompt": "['Hi' 'And?']", "response_a": "['a' 'b']", "response_b": "['c' 'd']"}
    with pytest.raises(DataError, match="look like lists, but are neither JSON nor Python literals"):
        read(row)
    assert outcome({**row, "prompt": "Two strings in a list?"})[1] == {"['a' 'b']": None, "['c' 'd']": None}


def test_every_pair_of_a_ranking_has_the_confidence_of_its_row() -> None:
    row = {"prompt": "p", "answers": ["a", "b", "c"], "ranks": [1, 2, 3], "confidence": 0.25}
    assert [found.confidence for found in read(row)] == [0.25] * 3
    with pytest.raises(DataError, match="'confidence' is 7"):
        read({**row, "confidence": 7})
