"""The pairs that people are shown: whose responses they are, and what labelers think of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif_framework.annotation.item import CHOSEN, POSITIONS, names_itself
from rlaif_framework.annotation.items import read_items
from rlaif_framework.annotation.runs import REFERENCE, FinishedMatchups
from rlaif_framework.data.human_labels import sort_texts
from rlaif_framework.errors import DataError
from rlaif_framework.records.rows import load_preferences
from support.annotation import pair_rows, read_small
from support.fake_plugins import write_rows
from support.runs import run_rows


def test_models_are_found_whatever_the_order_of_the_responses(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 6)
    assert len(pairs.items) == 6
    for item in pairs.items.values():
        for side, response in zip(item.sides, item.comparison.responses, strict=True):
            assert response.startswith(f"from {side}")


def test_sides_without_models_are_positions_or_what_was_chosen(tmp_path: Path) -> None:
    write_rows(tmp_path / "plain.jsonl", [{"prompt": "p", "response_a": "x", "response_b": "y"}])
    (item,) = read_items(tmp_path / "plain.jsonl").items.values()
    assert item.sides == POSITIONS
    rows = [{"prompt": f"p{number}", "chosen": "good", "rejected": "bad"} for number in range(20)]
    write_rows(tmp_path / "chosen.jsonl", rows)
    found = read_items(tmp_path / "chosen.jsonl").items.values()
    # The file has them in both orders, an item in sorted order.
    assert {(x.comparison.responses, x.sides) for x in found} == {(("bad", "good"), CHOSEN[::-1])}


def test_a_pair_is_shown_once_however_its_responses_are_ordered(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "responses": ["x", "y"]}, {"prompt": "p ", "responses": ["y", "x"]}]
    pairs = read_items(write_rows(tmp_path / "pairs.jsonl", rows))
    assert (len(pairs.items), pairs.repeated) == (1, 1)


def test_columns_are_mapped_and_invalid_rows_skipped_if_asked(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "one": "x", "two": "y"}, {"prompt": "p", "one": "x", "two": "x"}]
    path, fields = write_rows(tmp_path / "pairs.jsonl", rows), {"response_a": "one", "response_b": "two"}
    with pytest.raises(DataError, match="1 of 2 rows are invalid"):
        read_items(path, fields=fields)
    pairs = read_items(path, fields=fields, skip_invalid=True)
    assert len(pairs.items) == 1
    assert pairs.notes == (f"{path}: skipped 1 invalid rows of 2",)


def test_the_opinions_of_a_labeler_are_found_in_either_order(tmp_path: Path) -> None:
    pairs = read_small(tmp_path, 4)
    rows = []
    for number, row in enumerate(pair_rows(4)):
        responses = row["responses"] if number < 2 else row["responses"][::-1]
        of_a = 0.9 if responses[0].startswith("from A") else 0.1
        stated = None if number == 3 else [of_a, 1 - of_a]
        rows.append({"prompt": row["prompt"], "responses": responses, "probabilities": stated})
    labels = write_rows(tmp_path / "labels.judge.jsonl", rows)
    found = read_items(tmp_path / "pairs.jsonl", [labels])
    assert list(found.opinions) == ["judge"]
    assert len(found.opinions["judge"]) == 3
    for key, first in found.opinions["judge"].items():
        assert (first > 0.5) == (pairs.items[key].sides[0] == "A")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "q", "responses": ["x", "y"], "probabilities": [1, 0]}], "none of the 1 labels is about one of"),
        ([{"prompt": "q", "responses": ["x", "y"]}], "line 1: not a label that `rlaif label` wrote"),
        ([{"prompt": "q", "responses": ["x", "y"], "probabilities": [2, -1]}], "line 1: 'probabilities' is not a list"),
    ],
    ids=["other-pairs", "no-labels", "no-probabilities"],
)
def test_files_that_have_no_labels_of_the_pairs_are_errors(
    rows: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    read_small(tmp_path, 1)
    with pytest.raises(DataError, match=message):
        read_items(tmp_path / "pairs.jsonl", [write_rows(tmp_path / "labels.jsonl", rows)])


def test_the_pairs_of_a_run_have_their_policies_and_the_opinion_of_its_judge(run_folder: Path) -> None:
    pairs = read_items(run_folder)
    responses = {
        name: [row["response"] for row in run_rows(run_folder / f"evaluation/responses/{name}/responses.jsonl")]
        for name in ("rlaif", "sft")
    }
    stated = load_preferences(run_folder / "evaluation/wins/rlaif-vs-sft/preferences.jsonl")
    judged = 0
    for item in pairs.items.values():
        assert {*item.sides} == {"rlaif", "sft"}
        by_policy = dict(zip(item.sides, item.comparison.responses, strict=True))
        numbers = [
            number
            for number, texts in enumerate(zip(responses["rlaif"], responses["sft"], strict=True))
            if tuple(" ".join(text.split()) for text in texts)
            == tuple(" ".join(by_policy[name].split()) for name in ("rlaif", "sft"))
        ]
        assert numbers
        if len(numbers) == 1 and (probabilities := stated[numbers[0]].probabilities):
            judged += 1
            first = probabilities[0] if item.sides[0] == "rlaif" else probabilities[1]
            assert pairs.opinions["judge"][item.key] == pytest.approx(first)
    assert judged == len(pairs.opinions["judge"]) > 0


def test_a_matchup_against_the_references_is_known_by_the_responses_of_the_policy(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "evaluation/summary/pairs").mkdir(parents=True)
    (folder / "evaluation/responses/a-vs-b").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    rows = [{"prompt": str(number), "response": f"own {number}", "metrics": {}} for number in range(2)]
    write_rows(folder / "evaluation/responses/a-vs-b/responses.jsonl", rows)
    pairs = folder / f"evaluation/summary/pairs/a-vs-b-vs-{REFERENCE}.jsonl"
    write_rows(pairs, [{"prompt": "p", "response_a": "a reference", "response_b": "own 1", "label": None}])
    (item,) = read_items(folder).items.values()
    assert item.sides == (REFERENCE, "a-vs-b")
    matchup = FinishedMatchups.read(folder).matchups[pairs.stem]
    assert matchup.find(item.comparison) == (False, [1])


def test_a_run_without_pairs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match="has no pairs to compare"):
        read_items(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As ChatGPT, I cannot do that.", True),
        ("I'm Claude, an assistant.", True),
        ("as an AI language model, I have no opinion", True),
        ("I was trained by OpenAI to help.", True),
        ("As a teacher, I would explain it with apples.", False),
        ("Claude Monet painted water lilies.", False),
        ("The phase is known as ice.", False),
    ],
)
def test_responses_that_name_their_author_are_flagged(text: str, expected: bool) -> None:
    assert names_itself(text) is expected


def test_keys_do_not_depend_on_white_space_or_order(tmp_path: Path) -> None:
    rows = [{"prompt": "a  b", "responses": ["x y", "z"]}]
    other = [{"prompt": "a b", "responses": ["z", "x\ny"]}]
    (first,) = read_items(write_rows(tmp_path / "one.jsonl", rows)).items.values()
    (second,) = read_items(write_rows(tmp_path / "two.jsonl", other)).items.values()
    assert first.key == second.key
    assert [sort_texts(item.comparison)[1] for item in (first, second)] == [False, False]
    assert first.sides == second.sides[::-1] == POSITIONS
