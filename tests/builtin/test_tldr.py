"""The TL;DR task: every form of data it reads, the paper's prompt, cutting, and the embedded set."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from rlaif_framework import Comparison, Context, DataError, HubError, PluginManager, Prompt, RlaifError, Split, Turn
from rlaif_framework.data import copy_rate
from rlaif_framework.data.splits import _hash_split
from rlaif_plugins.labelers.annotated import AnnotationLabeler, HumanConfig, SyntheticConfig
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.task import MINI, TldrTask
from support.fake_plugins import write_rows

SPLITS: tuple[Split, ...] = get_args(Split)
FLAWS = {
    "invented-detail",
    "missing-main-point",
    "wrong-person",
    "too-vague",
    "too-long",
    "copied-sentence",
    "off-topic",
    "incoherent",
}


def make_task(**settings: Any) -> TldrTask:
    """The task alone: it needs nothing of the run's context."""
    return TldrTask(TldrConfig.model_validate(settings), None)  # type: ignore[arg-type]


def all_prompts(task: TldrTask) -> list[Prompt]:
    return [p for split in SPLITS for p in task.prompts(split)]


def all_comparisons(task: TldrTask) -> list[Comparison]:
    return [c for split in SPLITS for c in task.comparisons(split)]


def error_of(path: Path, place: str = "comparisons") -> str:
    """What reading a file of comparisons, or of posts, ends with."""
    task = make_task(**{"data": "mini", place: str(path)})
    with pytest.raises(DataError) as raised:
        (all_comparisons if place == "comparisons" else all_prompts)(task)
    return str(raised.value)


# Posts


OPENAI_POST = {
    "id": "t3_1",
    "subreddit": "relationships",
    "title": "My cat",
    "post": "He sat.\n\nThen he left.",
    "summary": "Cat left.",
}


def test_openais_posts_become_the_papers_prompt_exactly(tmp_path: Path) -> None:
    (prompt,) = all_prompts(make_task(data=str(write_rows(tmp_path / "train.jsonl", [OPENAI_POST]))))
    assert prompt.text == ("SUBREDDIT: r/relationships\n\nTITLE: My cat\n\nPOST: He sat.\n\nThen he left.\n\nTL;DR:")
    assert (prompt.id, prompt.source, prompt.reference) == ("t3_1", "He sat.\n\nThen he left.", "Cat left.")


def test_a_part_the_data_does_not_have_is_left_out_of_the_prompt(tmp_path: Path) -> None:
    rows = [{"id": "1", "post": "He sat.", "summary": "Sat."}, {**OPENAI_POST, "title": None, "post": " He sat. "}]
    texts = {p.text for p in all_prompts(make_task(data=str(write_rows(tmp_path / "a.jsonl", rows))))}
    assert texts == {"POST: He sat.\n\nTL;DR:", "SUBREDDIT: r/relationships\n\nPOST: He sat.\n\nTL;DR:"}


def test_rendered_prompts_are_kept_and_their_post_is_found(tmp_path: Path) -> None:
    """The form of trl-lib/tldr; its completions have a leading space."""
    text = "SUBREDDIT: r/cats\n\nTITLE: My cat\n\nPOST: He sat.\n\nPOST: twice.\n\nTL;DR:"
    rows = [{"prompt": text, "completion": " Cat sat."}, {"prompt": text + " ", "label": "Cat sat."}]
    for row in rows:
        (prompt,) = all_prompts(make_task(data=str(write_rows(tmp_path / "a.jsonl", [row]))))
        assert (prompt.text, prompt.reference) == (text, "Cat sat.")
        assert prompt.source == "He sat.\n\nPOST: twice."


def test_a_bare_post_as_prompt_is_put_into_the_template(tmp_path: Path) -> None:
    (prompt,) = all_prompts(make_task(data=str(write_rows(tmp_path / "a.jsonl", [{"prompt": " He sat. "}]))))
    assert (prompt.text, prompt.source, prompt.reference) == ("POST: He sat.\n\nTL;DR:", "He sat.", None)


def test_other_field_names_and_lists_of_sentences_are_read(tmp_path: Path) -> None:
    """SciTLDR: an abstract as a list of sentences, and several summaries."""
    rows = [
        {
            "paper_id": "p1",
            "title": "Cats",
            "source": ["We study cats.", " They sit."],
            "source_labels": [0, 1],
            "target": ["Cats sit.", "Cats."],
        }
    ]
    fields = {"id": "paper_id", "post": "source", "summary": "target"}
    template = "{% if title %}TITLE: {{ title }}\n\n{% endif %}ABSTRACT: {{ post }}\n\nTL;DR:"
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)), fields=fields, template=template)
    (prompt,) = all_prompts(task)
    message = "Summarize the following text in one or two sentences.\n\nCats\n\nWe study cats. They sit."
    assert prompt.turns == (Turn("user", message),)
    assert replace(prompt, turns=()) == Prompt(
        "p1", "TITLE: Cats\n\nABSTRACT: We study cats. They sit.\n\nTL;DR:", "We study cats. They sit.", "Cats sit."
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"id": "1", "text": "x", "summary": "y"},
            "no 'post'; found id, text, summary; name the data's fields in task.fields",
        ),
        ({"id": "1", "post": "  ", "summary": "y"}, "no 'post'"),
        ({"id": "1", "post": "x"}, "'summary' is missing or empty"),
        ({"id": "1", "post": "x", "summary": " "}, "'summary' is missing or empty"),
        ({"id": "1", "post": "x", "summary": []}, "'summary' is missing or empty"),
        ({"prompt": " ", "completion": "x"}, "'prompt' is empty"),
        ({"prompt": ["x"], "completion": "x"}, "'prompt' must be a string, not list"),
        ({"id": "1", "post": 3, "summary": "y"}, "'post' is 3, not a string"),
        ({"id": "1", "post": ["a", 3], "summary": "y"}, "'post' is ['a', 3], not a string"),
        ({"id": "1", "post": "x", "summary": {"a": 1}}, "'summary' is {'a': 1}, not a string"),
        ({"id": "1", "post": "x", "summary": [3]}, "'summary' is 3, not a string"),
        ({"id": "1", "post": "x", "summary": "y", "title": 7}, "'title' is 7, not a string"),
        ({"id": {"a": 1}, "post": "x", "summary": "y"}, "'id' is {'a': 1}, not a string or an integer"),
        ({"id": "1", "post": "x", "summary": "y", "split": 5}, "'split' is 5, not the name of a split"),
    ],
)
def test_a_post_that_lacks_something_is_named_by_file_and_line(
    tmp_path: Path, row: dict[str, Any], expected: str
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [OPENAI_POST, row])
    assert f"{path}, line 2: {expected}" in error_of(path, "data")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ pots }}", "'pots' is undefined; it may use subreddit, title and post"),
        ("{{ title }}", "does not use {{ post }}"),
        ("{{ post + 1 }}", "task.template, line 1: can only concatenate"),
        ("{{ post }}{{ post.__class__ }}", "cannot use '__class__'"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_once(template: str, expected: str) -> None:
    with pytest.raises(RlaifError, match=r"task\.template") as raised:
        make_task(template=template)
    assert expected in str(raised.value)


def test_a_template_that_is_no_template_is_an_error_of_the_settings() -> None:
    with pytest.raises(ValidationError, match=r"line 2: unexpected '}'"):
        make_task(template="POST:\n{{ post }")


def test_a_template_that_changes_the_post_is_refused_because_it_could_not_be_cut(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [OPENAI_POST])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: task\.template changes the post"):
        all_prompts(make_task(data=str(path), template="{{ post | upper }}"))


# Splits


def posts(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "post": f"Post {i}.", "summary": "S.", **more} for i in range(count)]


def test_data_without_splits_is_divided_by_a_hash_that_no_order_changes(tmp_path: Path) -> None:
    rows = posts(2000)
    shares = {"validation_fraction": 0.2, "test_fraction": 0.1}
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)), **shares)
    ids = {split: {p.id for p in task.prompts(split)} for split in SPLITS}
    assert set.union(*ids.values()) == {f"p{i}" for i in range(2000)}
    assert sum(map(len, ids.values())) == 2000, "splits overlap"
    assert len(ids["validation"]) / 2000 == pytest.approx(0.2, abs=0.03)
    assert len(ids["test"]) / 2000 == pytest.approx(0.1, abs=0.03)
    again = make_task(data=str(write_rows(tmp_path / "b.jsonl", rows[::-1][:1000])), **shares)
    for split in SPLITS:
        assert {p.id for p in again.prompts(split)} <= ids[split], "the split of a post changed with the file"


def test_a_post_keeps_its_split_in_every_version() -> None:
    """A changed hash would silently move test posts into the training data of every user."""
    found = [_hash_split(f"Post {i}.", (0.3, 0.3)) for i in range(8)]
    assert found == ["validation", "train", "validation", "validation", "validation", "test", "train", "train"]
    assert found == [_hash_split(f" Post\n{i}. ", (0.3, 0.3)) for i in range(8)]


FORMS_OF_A_PAIR: list[dict[str, Any]] = [
    {"prompt": "{post}", "responses": ["a", "b"]},
    {"id": "c{i}", "prompt": "SUBREDDIT: r/x\n\nPOST: {post}\n\nTL;DR:", "chosen": "a", "rejected": "b"},
    {"id": "c{i}", "post": "{post} ", "response_a": "a", "response_b": "b", "label": "tie"},
    {"info": {"id": "c{i}", "post": "{post}"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
]


@pytest.mark.parametrize("form", range(len(FORMS_OF_A_PAIR)))
def test_comparisons_are_in_the_split_of_their_post_whatever_their_file_and_id(tmp_path: Path, form: int) -> None:
    """Or else a policy is tested on posts that its reward model was trained on."""
    posts = [{"id": f"p{i}", "post": [f"Post {i}", "is about cats."], "summary": "S"} for i in range(200)]
    text = json.dumps(FORMS_OF_A_PAIR[form])
    pairs = [json.loads(text.replace("{post}", f"Post {i} is about cats.").replace("{i}", str(i))) for i in range(200)]
    data, comparisons = write_rows(tmp_path / "posts.jsonl", posts), write_rows(tmp_path / "pairs.jsonl", pairs)
    task = make_task(data=str(data), comparisons=str(comparisons))
    for split in SPLITS:
        assert {p.source for p in task.prompts(split)} == {c.prompt.source for c in task.comparisons(split)}
        assert len(task.prompts(split)) > 10


def test_two_posts_of_one_id_are_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [*posts(40), {**posts(4)[3], "post": "Another."}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert (
        error_of(path, "data") == f"{path}, line 41: the id 'p3' is already used in {path}, line 4; ids must be unique"
    )
    split = {"train": str(path), "test": str(write_rows(tmp_path / "b.jsonl", posts(2)))}
    with pytest.raises(DataError, match="line 41: the id 'p3'"):
        make_task(data=split).prompts("test")


def test_a_post_that_stands_there_twice_without_an_id_gets_two(tmp_path: Path) -> None:
    rows = [{"post": "Post.", "summary": text} for text in ("One.", "Two.", "Three.")]
    found = all_prompts(make_task(data=str(write_rows(tmp_path / "a.jsonl", rows))))
    assert [p.reference for p in found] == ["One.", "Two.", "Three."]
    assert len({p.id for p in found}) == 3


def test_of_several_bad_rows_the_first_in_the_file_is_named(tmp_path: Path) -> None:
    rows = [*posts(2), *(row | {"summary": {"a": 1}} for row in posts(60)[2:])]
    path = write_rows(tmp_path / "a.jsonl", rows)
    first, likewise = error_of(path, "data").splitlines()
    assert first == f"{path}, line 3: 'summary' is {{'a': 1}}, not a string"
    assert likewise.strip() == "likewise line 4, line 5, line 6, line 7, line 8 and 52 more"


@pytest.mark.parametrize("column", ["summary", "reference"])
def test_a_comparison_has_the_reference_of_its_row(tmp_path: Path, column: str) -> None:
    row = {"post": "my dog ran off", "response_a": "a dog", "response_b": "mud", "label": "a", column: "dog ran away"}
    task = make_task(comparisons=str(write_rows(tmp_path / "pairs.jsonl", [row])))
    assert [c.prompt.reference for c in all_comparisons(task)] == ["dog ran away"]


def test_all_comparisons_of_one_post_are_in_one_split_and_with_its_post(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "posts.jsonl", [{"id": f"p{i}", "post": f"Post {i}.", "summary": "S"} for i in range(60)]
    )
    openai = [openai_comparison(post=i, text=t) for i in range(60) for t in ("x", "y")]
    task = make_task(data=str(data), comparisons=str(write_rows(tmp_path / "c.jsonl", openai)))
    for split in SPLITS:
        assert {c.prompt.id for c in task.comparisons(split)} == {p.id for p in task.prompts(split)}
        assert len(task.comparisons(split)) == 2 * len(task.prompts(split))
    same = [
        {"id": f"c{i}", "prompt": "One post.", "response_a": "a", "response_b": f"b{i}", "label": "a"}
        for i in range(40)
    ]
    task = make_task(comparisons=str(write_rows(tmp_path / "d.jsonl", same)))
    assert sorted(len(task.comparisons(split)) for split in SPLITS) == [0, 0, 40]


def test_rows_that_name_their_split_go_there(tmp_path: Path) -> None:
    names = {"train": "train", "valid1": "validation", "dev": "validation", "valid2": "test", "test": "test"}
    rows = [{"id": f"{n}/{i}", "post": f"{n}/{i}", "summary": "y", "split": n} for n in names for i in range(3)]
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)))
    for split in SPLITS:
        expected = {f"{name}/{i}" for name, goes_to in names.items() if goes_to == split for i in range(3)}
        assert {p.id for p in task.prompts(split)} == expected


def test_a_row_of_an_unknown_split_is_named_and_not_dropped(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [*posts(2), *posts(1, split="holdout")])
    message = error_of(path, "data")
    assert message.startswith(f"{path}, line 3: unknown split 'holdout'; known splits: train, ")


def test_a_bad_row_is_met_whatever_split_is_asked_for(tmp_path: Path) -> None:
    rows = [*posts(2, split="train"), {"id": "x", "post": "", "summary": "y", "split": "test"}]
    with pytest.raises(DataError, match="line 3"):
        make_task(data=str(write_rows(tmp_path / "a.jsonl", rows))).prompts("train")


@pytest.mark.parametrize(
    "names", [("train.jsonl", "valid.jsonl", "test.jsonl"), ("train.jsonl.gz", "validation.json", "valid2.jsonl")]
)
def test_a_folder_with_a_file_a_split_is_read_by_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        path = write_rows(tmp_path / "plain", [{"id": f"p{i}", "post": f"Post {i}.", "summary": "y"}])
        shutil.move(path, tmp_path / name)
        if name.endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    task = make_task(data=str(tmp_path))
    assert [[p.id for p in task.prompts(split)] for split in SPLITS] == [["p0"], ["p1"], ["p2"]]


def test_a_folder_of_other_files_is_divided_like_one_file(tmp_path: Path) -> None:
    rows = posts(100)
    one = make_task(data=str(write_rows(tmp_path / "one.jsonl", rows)))
    folder = tmp_path / "parts"
    folder.mkdir()
    write_rows(folder / "batch3.json", rows[:50])
    write_rows(folder / "batch4.json", rows[50:])
    parts = make_task(data=str(folder))
    for split in SPLITS:
        assert {p.id for p in parts.prompts(split)} == {p.id for p in one.prompts(split)}


def test_a_file_for_each_split_may_be_given(tmp_path: Path) -> None:
    rows = {"train": posts(4)[:2], "test": posts(4)[2:]}
    places = {split: str(write_rows(tmp_path / f"{split}-x.jsonl", own)) for split, own in rows.items()}
    task = make_task(data=places)
    assert [len(task.prompts(split)) for split in SPLITS] == [2, 0, 2]


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"no data file at {tmp_path / 'gone.jsonl'}" in error_of(tmp_path / "gone.jsonl", "data")
    assert f"{tmp_path} has no file of rows; their names end in .jsonl, " in error_of(tmp_path, "data")
    with pytest.raises(HubError, match=r"no file or folder 'not/there', and it cannot be loaded from the hub"):
        make_task(data="not/there").prompts("train")


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        TldrConfig(validation_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        TldrConfig(validation_fraction=-0.1)


# Splits that share no text


def splits_of(task: TldrTask) -> dict[str, set[Split]]:
    """The splits in which each text occurs, as a prompt or in a comparison."""
    found: dict[str, set[Split]] = {}
    for split in SPLITS:
        texts = [p.source for p in task.prompts(split)] + [c.prompt.source for c in task.comparisons(split)]
        for text in texts:
            found.setdefault(text, set()).add(split)
    return found


def pairs_of(rows: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Two comparisons of each post; white space around the post is another one in each file."""
    return [
        {"prompt": f" {row['post']}\n", "responses": ["a", f"b{i}"], "human": 1, **more}
        for row in rows
        for i in range(2)
    ]


def as_folder(folder: Path, parts: dict[str, list[dict[str, Any]]], suffix: str = ".jsonl") -> str:
    folder.mkdir()
    for name, rows in parts.items():
        write_rows(folder / f"{name}{suffix}", rows)
    return str(folder)


NAMED = {"train": posts(90)[:50], "validation": posts(90)[50:70], "test": posts(90)[70:]}
"""90 posts in named splits."""


@pytest.mark.parametrize("comparisons", ["file", "folder", "only-train", "mapping", "column", "other-splits"])
@pytest.mark.parametrize("data", ["file", "folder", "only-train", "mapping", "column", "overlapping"])
def test_splits_share_no_text_whatever_they_come_from(tmp_path: Path, data: str, comparisons: str) -> None:
    everything = [row for rows in NAMED.values() for row in rows]
    shuffled = {"train": everything[20:], "validation": everything[10:20], "test": everything[:10]}

    def write(name: str, kind: str, make: Any) -> Any:
        parts = {split: make(rows) for split, rows in (shuffled if kind == "other-splits" else NAMED).items()}
        together = [row for rows in parts.values() for row in rows]
        match kind:
            case "file":
                return str(write_rows(tmp_path / f"{name}.jsonl", together))
            case "only-train":
                return as_folder(tmp_path / name, {"train": together})
            case "mapping":
                return {
                    split: str(write_rows(tmp_path / f"{name}-{split}.jsonl", rows)) for split, rows in parts.items()
                }
            case "column":
                rows = [{**row, "split": split} for split, rows in parts.items() for row in rows]
                return str(write_rows(tmp_path / f"{name}.jsonl", rows))
            case "overlapping":  # every post of test is in train, too, under another id
                again = [{**row, "id": f"again-{row['id']}"} for row in parts["test"]]
                return as_folder(tmp_path / name, {**parts, "train": parts["train"] + again})
        return as_folder(tmp_path / name, parts)

    places = {"data": write("posts", data, list), "comparisons": write("pairs", comparisons, pairs_of)}
    task = make_task(**places)
    found = splits_of(task)
    assert set(found) == {row["post"] for row in everything}
    assert all(len(splits) == 1 for splits in found.values()), found
    kept = sum(len(task.prompts(split)) for split in SPLITS)
    given = len(everything) + (len(NAMED["test"]) if data == "overlapping" else 0)
    dropped = sum(
        int(note.split()[1]) for note in task.data_notes() if note.startswith("dropped") and "prompts" in note
    )
    assert kept + dropped == given, "rows were dropped without a word"
    if data in ("folder", "mapping", "column", "overlapping") and comparisons != "other-splits":
        for split in SPLITS:
            rows = NAMED[split]
            assert {p.source for p in task.prompts(split)} == {row["post"] for row in rows}
        assert sum(len(task.comparisons(split)) for split in SPLITS) == 180, (
            "comparisons without a split follow their post"
        )


def test_what_was_dropped_is_said(tmp_path: Path) -> None:
    data = as_folder(tmp_path / "posts", {"train": posts(10), "test": [{**p, "id": f"t{p['id']}"} for p in posts(4)]})
    pairs = {"train": str(write_rows(tmp_path / "pairs.jsonl", pairs_of(posts(12))))}
    task = make_task(data=data, comparisons=pairs, validation_fraction=0)
    assert task.data_notes() == [
        "dropped 4 of 10 prompts of split 'train', because their text is also in 'test'",
        "dropped 8 of 24 comparisons of split 'train', because their text is also in 'test'",
    ]
    assert [len(task.comparisons(split)) for split in SPLITS] == [16, 0, 0]


def test_shards_of_a_split_are_read_together(tmp_path: Path) -> None:
    rows = posts(6)
    parts = {"train-00000-of-00002": rows[:2], "train-00001-of-00002": rows[2:4], "test-00000-of-00001": rows[4:]}
    task = make_task(data=as_folder(tmp_path / "shards", parts))
    assert [len(task.prompts(split)) for split in SPLITS] == [4, 0, 2]


def test_splits_of_the_hub_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    parts = {
        "some/posts": {"train": posts(4), "test": posts(6)[2:]},
        "some/pairs": {"train_prefs": pairs_of(posts(6)), "test_prefs": pairs_of(posts(8)[6:])},
        "some/whole": {"train": pairs_of(posts(60))},
    }

    def load(name: str, split: str | None = None) -> Any:
        found = {part: datasets.Dataset.from_list(rows) for part, rows in parts[name].items()}
        return found if split is None else found[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"none is named train, validation or test; choose one, such as some/pairs:train"
    ):
        make_task(data="some/posts", comparisons="some/pairs").comparisons("train")
    task = make_task(
        data="some/posts", comparisons={"train": "some/pairs:train_prefs", "test": "some/pairs:test_prefs"}
    )
    assert all(len(splits) == 1 for splits in splits_of(task).values())
    assert [len(task.prompts(split)) for split in SPLITS] == [2, 0, 4]
    assert [len(task.comparisons(split)) for split in SPLITS] == [4, 0, 4]
    assert len(task.data_notes()) == 2
    divided = make_task(data="some/posts", comparisons="some/whole")
    assert all(len(splits) == 1 for splits in splits_of(divided).values())
    assert all(divided.comparisons(split) for split in SPLITS)


# Comparisons


def openai_comparison(
    post: int = 1, choice: Any = 1, confidence: Any = 8, text: str = "other", **more: Any
) -> dict[str, Any]:
    """A row of OpenAI's comparisons as downloaded: summaries have a leading space."""
    return {
        "info": {"id": f"p{post}", "post": f"Post {post}.", "title": "T", "subreddit": "cats"},
        "summaries": [
            {"text": " First summary", "policy": "sup1", "note": "n"},
            {"text": f" {text}", "policy": "ref", "note": None},
        ],
        "choice": choice,
        "worker": "w",
        "batch": "batch3",
        "split": more.pop("split", None),
        "extra": {"confidence": confidence},
        **more,
    }


def read_one(tmp_path: Path, row: dict[str, Any]) -> Comparison:
    task = make_task(comparisons=str(write_rows(tmp_path / "c.jsonl", [row])))
    (comparison,) = all_comparisons(task)
    return comparison


def test_openais_comparisons_are_read_with_their_choice_and_prompt(tmp_path: Path) -> None:
    found = read_one(tmp_path, openai_comparison(split="valid1"))
    assert found.responses == ("First summary", "other")
    assert (found.preference, found.preference_source) == (0.0, "human")
    assert found.prompt.text == "SUBREDDIT: r/cats\n\nTITLE: T\n\nPOST: Post 1.\n\nTL;DR:"
    assert (found.prompt.id, found.prompt.reference) == ("p1", None)
    assert read_one(tmp_path, openai_comparison(choice=0)).preference == 1.0


@pytest.mark.parametrize(("confidence", "expected"), [(1, 1.0), (2, 0.75), (5, 0.0), (8, 0.75), (9, 1.0), (None, None)])
def test_openais_two_sided_confidence_is_how_far_it_is_from_the_middle(
    tmp_path: Path, confidence: int | None, expected: float | None
) -> None:
    assert read_one(tmp_path, openai_comparison(confidence=confidence)).confidence == expected


def test_a_comparison_without_extra_has_no_confidence(tmp_path: Path) -> None:
    assert read_one(tmp_path, openai_comparison() | {"extra": None}).confidence is None
    row = openai_comparison()
    del row["extra"]
    assert read_one(tmp_path, row).confidence is None


def test_rows_about_news_articles_are_skipped(tmp_path: Path) -> None:
    news = openai_comparison() | {"info": {"id": "n", "article": "CNN", "post": None, "site": "cnn"}}
    bare = openai_comparison() | {"info": {"id": "n", "article": "CNN"}}
    task = make_task(comparisons=str(write_rows(tmp_path / "c.jsonl", [news, openai_comparison(), bare])))
    assert [c.prompt.id for c in all_comparisons(task)] == ["p1"]


def test_rows_without_a_post_of_trls_set_keep_their_confidence(tmp_path: Path) -> None:
    """trl-internal-testing/tldr-preference-trl-style: chat lists beside OpenAI's own fields."""
    chat: dict[str, Any] = {
        "prompt": "POST: x\n\nTL;DR:",
        "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "other"}],
        "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "First summary"}],
    }
    found = read_one(tmp_path, openai_comparison(**chat))
    assert (found.responses, found.preference, found.confidence) == (("First summary", "other"), 0.0, 0.75)


@pytest.mark.parametrize("chat", [False, True])
def test_chosen_and_rejected_are_read_and_shown_in_both_orders(tmp_path: Path, chat: bool) -> None:
    """CarperAI's form has texts, TRL's has chats whose last message is the response."""

    def wrap(prompt: str, text: str) -> object:
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] if chat else text

    rows = [
        {"prompt": prompt, "chosen": wrap(prompt, f" good {i}"), "rejected": wrap(prompt, f"bad {i}")}
        for i, prompt in enumerate(f"POST: Post {i}.\nTL;DR:" for i in range(200))
    ]
    found = all_comparisons(make_task(comparisons=str(write_rows(tmp_path / "c.jsonl", rows))))
    assert len(found) == 200
    for comparison in found:
        better = comparison.responses[0 if comparison.preference == 1.0 else 1]
        assert better.startswith("good")
        assert comparison.prompt.source.startswith("Post")
    assert 60 < sum(c.preference == 1.0 for c in found) < 140, "the better one has a place of its own"


def test_llmevals_rows_have_ties(tmp_path: Path) -> None:
    rows = [
        {"id": f"l/{x}", "task": "s", "prompt": "A post.", "response_a": "A", "response_b": "B", "label": x}
        for x in ("a", "b", "tie", None)
    ]
    found = all_comparisons(make_task(comparisons=str(write_rows(tmp_path / "c.jsonl", rows))))
    assert [(c.preference, c.preference_source, c.responses) for c in found] == [
        (1.0, "human", ("A", "B")),
        (0.0, "human", ("A", "B")),
        (0.5, "human", ("A", "B")),
        (None, None, ("A", "B")),  # a row without a label is a comparison without a preference
    ]
    assert found[0].prompt.text == "POST: A post.\n\nTL;DR:"


def test_the_plain_form_may_carry_a_preference_or_none(tmp_path: Path) -> None:
    row = {"prompt": "A post.", "responses": ["a", "b"]}
    found = read_one(tmp_path, row)
    assert (found.preference, found.preference_source, found.confidence) == (None, None, None)
    found = read_one(tmp_path, {**row, "human": 0.75, "confidence": 0.5})
    assert (found.preference, found.preference_source, found.confidence) == (0.75, "human", 0.5)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (openai_comparison(text="First summary"), "the two responses are identical"),
        (openai_comparison(text=" First summary "), "the two responses are identical"),
        (openai_comparison(text=" "), "a response is empty"),
        (openai_comparison(choice=None), "'choice' is None, not 0 or 1"),
        (openai_comparison(choice=2), "'choice' is 2, not 0 or 1"),
        (openai_comparison(confidence=12), "'extra.confidence' is 12, not a number between 1 and 9"),
        (openai_comparison(confidence="high"), "'extra.confidence' is 'high', not a number between 1 and 9"),
        (openai_comparison() | {"summaries": [{"text": "one"}]}, "'summaries' is not a list of two summaries with"),
        (openai_comparison() | {"summaries": [{"txt": "a"}, {"txt": "b"}]}, "'text' is missing"),
        (openai_comparison() | {"summaries": ["a", "b"]}, "'summaries' is not a list of two summaries with"),
        (openai_comparison() | {"info": "p1"}, "'info' is 'p1', not the fields of a post"),
        ({"info": {"post": "x"}, "summaries": [{"text": "a"}, {"text": "b"}]}, "'choice' is missing"),
        ({"prompt": "p", "responses": ["a", "a"]}, "the two responses are identical"),
        ({"prompt": "p", "responses": ["a", ""]}, "a response is empty"),
        ({"prompt": "p", "responses": ["a", None]}, "'responses' is not a list of two strings"),
        ({"prompt": "p", "responses": ["a", 3]}, "'responses' is not a list of two strings"),
        ({"prompt": "p", "responses": ["a"]}, "'responses' is not a list of two strings"),
        ({"prompt": "p", "responses": "ab"}, "'responses' is not a list of two strings"),
        ({"prompt": "p", "responses": ["a", "b"], "human": "a"}, "'human' is 'a', not a number between 0 and 1"),
        ({"prompt": "p", "responses": ["a", "b"], "human": 7}, "'human' is 7, not a number between 0 and 1"),
        ({"prompt": "p", "responses": ["a", "b"], "confidence": True}, "'confidence' is True, not a number"),
        ({"prompt": {"x": 1}, "responses": ["a", "b"]}, "'prompt' must be a string, not dict"),
        ({"prompt": "p", "response_a": "a", "response_b": "b", "label": "c"}, "'label' is 'c', not 'a', 'b' or 'tie'"),
        ({"prompt": "p", "response_a": "a", "label": "a"}, "'response_b' is missing"),
        ({"prompt": "p", "response_a": None, "response_b": "b", "label": "a"}, "'response_a' is missing"),
        ({"prompt": "p", "chosen": "a", "rejected": "a "}, "the two responses are identical"),
        ({"prompt": "p", "chosen": "a"}, "'rejected' is missing"),
        ({"prompt": "p", "chosen": [], "rejected": "b"}, "'chosen' must be a string, not list"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "'prompt' is empty"),
        ({"chosen": "a", "rejected": "b"}, "'prompt' is missing, and 'chosen' is not a transcript"),
        ({"question": "q"}, "expected prompt + responses, prompt + chosen + rejected"),
        ({"id": "1", "post": "x", "summary": "y", "flawed": [{"flaw": "f", "text": "t"}]}, "'candidate' is missing"),
        (
            {"id": "1", "post": "x", "summary": "y", "candidate": "c", "flawed": ["t"]},
            "'flawed' is not a list of texts with their flaws",
        ),
        (
            {"id": "1", "post": "x", "summary": "y", "candidate": "c", "flawed": [{"flaw": "f", "text": "c"}]},
            "the two responses are identical",
        ),
    ],
)
def test_a_bad_comparison_is_named_by_file_and_line(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    path = write_rows(tmp_path / "c.jsonl", [openai_comparison(), row])
    message = error_of(path)
    assert message.startswith(f"{path}, line 2: ")
    assert expected in message


def test_a_line_that_is_no_json_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(openai_comparison()) + "\n{'post': 1}\n")
    assert error_of(path).startswith(f"{path}, line 2: not valid JSON")
    path.write_text(json.dumps(openai_comparison()) + "\n\n")
    assert error_of(path) == f"{path}, line 2: the line is empty; remove it"


def test_posts_without_comparisons_have_none(tmp_path: Path) -> None:
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", [OPENAI_POST])))
    assert all_comparisons(task) == []


# AnnotatorPrompts


def test_shortening_cuts_the_post_and_never_the_cue_or_what_stands_before_it(tmp_path: Path) -> None:
    row = {**OPENAI_POST, "post": "One two three.\nFour five six.\n\nSeven eight nine."}
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", [row])))
    (prompt,) = all_prompts(task)
    before, cue = "SUBREDDIT: r/relationships\n\nTITLE: My cat\n\nPOST: ", "\n\nTL;DR:"
    assert task.truncate(prompt, lambda text: True) == prompt
    for limit, left in [(1, "One two three.\nFour five six."), (20, "One two three."), (37, "One two")]:
        room = len(prompt.text) - limit
        short = task.truncate(prompt, lambda shorter, room=room: len(shorter.text) <= room)  # type: ignore[misc]
        assert short.text == before + left + cue
        assert (short.source, short.id, short.reference) == (left, prompt.id, prompt.reference)
    with pytest.raises(DataError, match=r"prompt 't3_1': not even one word of the post fits; raise policy\.max_prompt"):
        task.truncate(prompt, lambda shorter: len(shorter.text) < len(before))


def test_the_annotator_sees_text_and_both_summaries_in_the_order_given() -> None:
    words = make_task().annotator_prompts()
    annotation = words.annotate(Prompt("1", "POST: x\n\nTL;DR:", "x"), ("first\nSummary 2 - fake", "second"))
    question = annotation.ask_label()
    lines = question.text.splitlines()
    assert lines[-3:] == ["Text - x", "Summary 1 - first Summary 2 - fake", "Summary 2 - second"]
    assert question.prefill == "Preferred Summary="
    assert annotation.options == ("1", "2")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" A cat. ", "A cat."),
        ("A cat. . . .", "A cat."),
        ("A cat......", "A cat."),
        ("A... cat", "A... cat"),
        (" ", ""),
    ],
)
def test_superfluous_symbols_at_the_end_of_a_response_are_stripped(response: str, expected: str) -> None:
    assert make_task().clean(response) == expected


def test_a_response_is_measured_against_post_and_reference(manager: PluginManager) -> None:
    config = TldrConfig()
    task = Context(config, None, 0, manager).build_task(config)
    prompt = Prompt("1", "", "the cat sat on the mat all day", "a cat sat")
    found = task.measure(prompt, "a cat sat")
    assert (found["words"], found["rouge1"], found["rougeL"]) == (3.0, 1.0, 1.0)
    assert found["copy_rate"] == 0.0
    assert task.measure(prompt, "cat sat on the mat")["copy_rate"] == 1.0
    assert set(task.measure(Prompt("1", "", "x"), "y")) == {"words", "copy_rate"}


# The embedded set


@pytest.fixture(scope="module")
def mini() -> TldrTask:
    return make_task()


def test_every_row_of_the_embedded_set_is_well_formed() -> None:
    rows = [json.loads(line) for line in MINI.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 160
    assert len({row["id"] for row in rows}) == len({row["post"] for row in rows}) == len(rows)
    for row in rows:
        words = len(row["post"].split())
        assert 55 <= words <= 260, f"{row['id']}: a post of {words} words"
        assert row["title"], row["id"]
        assert row["subreddit"], row["id"]
        assert ("candidate" in row) == ("flawed" in row), row["id"]
        flawed = row.get("flawed", [])
        texts = [row["summary"], *([row["candidate"]] if flawed else []), *(f["text"] for f in flawed)]
        assert all(text == text.strip() and text for text in texts), row["id"]
        assert len(set(texts)) == len(texts), f"{row['id']}: two summaries are equal"
        assert not flawed or len(flawed) >= 2, row["id"]
        kinds = [f["flaw"] for f in flawed]
        assert set(kinds) <= FLAWS, row["id"]
        assert len(set(kinds)) == len(kinds), f"{row['id']}: one flaw twice"
        assert row["split"] in SPLITS, row["id"]


def test_posts_of_the_embedded_set_need_no_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(MINI.read_text(encoding="utf-8").splitlines()[0])
    bare = {name: whole[name] for name in ("subreddit", "title", "summary", "split")}
    rows = [whole, {**bare, "id": "mini-bare", "post": "A post that has no candidates."}]
    monkeypatch.setattr("rlaif_plugins.tasks.tldr.task.MINI", write_rows(tmp_path / "mini.jsonl", rows))
    task = make_task()
    assert [p.id for p in all_prompts(task)] == [whole["id"], "mini-bare"]
    assert {c.prompt.id for c in all_comparisons(task)} == {whole["id"]}


def test_a_copied_sentence_is_copied_and_a_long_summary_is_long() -> None:
    for line in MINI.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for flawed in row.get("flawed", []):
            if flawed["flaw"] == "copied-sentence":
                assert copy_rate(row["post"], flawed["text"]) > 0.8, f"{row['id']}: {flawed['text']}"
            if flawed["flaw"] == "too-long":
                assert len(flawed["text"]) > 1.2 * len(row["candidate"]), row["id"]


def test_the_splits_of_the_embedded_set_share_no_post(mini: TldrTask) -> None:
    seen = [{p.source for p in mini.prompts(split)} for split in SPLITS]
    assert [len(s) for s in seen] == [len(mini.prompts(split)) for split in SPLITS]
    assert all(len(s) >= 25 for s in seen)
    assert len(set.union(*seen)) == sum(map(len, seen))
    for split, known in zip(SPLITS, seen, strict=True):
        assert {c.prompt.source for c in mini.comparisons(split)} <= known


def test_the_embedded_comparisons_have_every_flaw_and_balanced_orders(mini: TldrTask) -> None:
    assert {split: len(mini.prompts(split)) for split in SPLITS} == {"train": 170, "validation": 30, "test": 180}
    assert not mini.comparisons("test")
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        comparisons = mini.comparisons(split)
        assert {c.slice for c in comparisons} == FLAWS, split
        assert Counter(c.preference for c in comparisons).keys() == {0.0, 1.0}
        first = sum(c.preference == 1.0 for c in comparisons) / len(comparisons)
        assert 0.35 < first < 0.65, f"{split}: the good one comes first in {first:.0%}"
        assert len({c.id for c in comparisons}) == len(comparisons)


def test_the_embedded_set_never_calls_its_preferences_human(mini: TldrTask) -> None:
    comparisons = all_comparisons(mini)
    assert {c.preference_source for c in comparisons} == {"synthetic"}
    with pytest.raises(DataError, match=r"labeler 'human': .* has no human preference"):
        list(AnnotationLabeler(HumanConfig(), None).label(comparisons))  # type: ignore[arg-type]
    labels = list(AnnotationLabeler(SyntheticConfig(), None).label(comparisons))  # type: ignore[arg-type]
    assert [p.probabilities for p in labels] == [(c.preference, 1 - (c.preference or 0)) for c in comparisons]
    assert {p.evidence.source for p in labels} == {"synthetic"}


def test_the_construction_labeler_refuses_what_humans_rated_or_nobody_did() -> None:
    prompt = Prompt("1", "x", "x")
    human = Comparison("c1", prompt, ("a", "b"), 1.0, "human")
    nobody = Comparison("c2", prompt, ("a", "b"))
    labeler = AnnotationLabeler(SyntheticConfig(), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="comparison 'c1' has no synthetic preference"):
        list(labeler.label([human]))
    with pytest.raises(DataError, match="comparison 'c2' has no synthetic preference"):
        list(labeler.label([nobody]))


def test_the_good_candidate_is_never_the_reference_that_a_judge_compares_with(mini: TldrTask) -> None:
    for comparison in all_comparisons(mini):
        assert comparison.prompt.reference
        assert comparison.prompt.reference not in comparison.responses


def test_a_chat_policy_is_given_an_instruction(tmp_path: Path) -> None:
    whole = "SUBREDDIT: r/pets\n\nTITLE: My dog\n\nPOST: My dog ran off.\nHe is back.\n\nTL;DR:"
    rows = [
        {"id": "a", "title": "My dog", "subreddit": "pets", "post": "My dog ran off.\nHe is back.", "summary": "Ran."},
        {"id": "b", "prompt": whole.replace("ran", "swam"), "completion": "He swam."},
    ]
    path = str(write_rows(tmp_path / "a.jsonl", rows))
    instruction = "In r/{{ subreddit }}, {{ title }}: {{ post }} Sum up."
    first, second = sorted(
        all_prompts(make_task(data=path, instruction=instruction, system="Be brief.")), key=lambda prompt: prompt.id
    )
    system = Turn("system", "Be brief.")
    assert first.turns == (system, Turn("user", "In r/pets, My dog: My dog ran off.\nHe is back. Sum up."))
    assert second.turns == (system, Turn("user", "In r/pets, My dog: My dog swam off.\nHe is back. Sum up."))
    task = make_task(data=path, instruction=instruction)
    short = task.truncate(first, lambda shorter: len(shorter.conversation[-1].content) <= 50)
    assert short.conversation[-1].content == "In r/pets, My dog: My dog ran off. Sum up."
    assert short.text.endswith("POST: My dog ran off.\n\nTL;DR:")
    with pytest.raises(RlaifError, match=r"task\.instruction: it does not use \{\{ post \}\}"):
        make_task(data=path, instruction="Sum up.")
    with pytest.raises(RlaifError, match=r"task\.instruction, line 1: 'post_' is undefined; it may use subreddit"):
        make_task(data=path, instruction="{{ post_ }}")


def test_shards_with_a_hash_in_their_name_are_read_together(tmp_path: Path) -> None:
    rows = posts(6)
    parts = {"train-00000-of-00001-b42a775f407cee45": rows[:4], "test-00000-of-00001-b42a775f407cee45": rows[4:]}
    task = make_task(data=as_folder(tmp_path / "shards", parts))
    assert [len(task.prompts(split)) for split in SPLITS] == [4, 0, 2]


def test_a_folder_with_splits_of_other_names_is_refused(tmp_path: Path) -> None:
    data = as_folder(tmp_path / "posts", {"train_sft": posts(6)[:4], "test_sft": posts(6)[4:]})
    with pytest.raises(DataError, match=r"\{train: '.*train_sft\.jsonl', test: '.*test_sft\.jsonl'\}"):
        make_task(data=data).prompts("train")


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train-1", "train_2", "test-1"), [4, 0, 2]),
        (("train_part_a", "train_part_b", "more"), None),
        (("test_cases", "more", "others"), None),
    ],
    ids=["numbers", "parts", "one-split"],
)
def test_other_names_of_files_are_no_splits(tmp_path: Path, names: tuple[str, ...], sizes: list[int] | None) -> None:
    rows = posts(6)
    parts = {name: rows[2 * i : 2 * i + 2] for i, name in enumerate(names)}
    task = make_task(data=as_folder(tmp_path / "posts", parts))
    found = [len(task.prompts(split)) for split in SPLITS]
    assert found == sizes if sizes else sum(found) == 6


def test_the_slice_of_a_comparison_is_kept(tmp_path: Path) -> None:
    rows = [{**row, "slice": "short"} for row in pairs_of(posts(2))]
    data = {"train": str(write_rows(tmp_path / "posts.jsonl", posts(2)))}
    pairs = {"train": str(write_rows(tmp_path / "pairs.jsonl", rows))}
    assert {pair.slice for pair in make_task(data=data, comparisons=pairs).comparisons("train")} == {"short"}
