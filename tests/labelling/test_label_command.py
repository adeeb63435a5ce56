"""`rlaif label`: a user's pairs labelled without training, in constant memory, and measured."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scipy import stats

from rlaif_framework import (
    Ballot,
    Comparison,
    Context,
    Evidence,
    PluginManager,
    Preference,
    Prompt,
    SpecError,
    TaskConfig,
)
from rlaif_framework.labelling.rows import from_row, to_row
from rlaif_framework.metrics.agreement import Observation
from rlaif_framework.metrics.calibration import measure_calibration, measure_lengths
from rlaif_framework.metrics.estimates import adjust_holm, paired_p_value
from rlaif_framework.metrics.paired_comparison import compare_labelers
from rlaif_framework.records.preference_set import JSON_COLUMNS, PreferenceRow, to_preference_row
from support.fake_plugins import Site, write_rows
from support.pages import strip_assets

FAKE = '''
"""Prefers the response with more `x`, as a language model would: both orders, label mass, tokens and a price."""

import time
from pathlib import Path
from typing import Literal

from rlaif_framework import Ballot, Component, LabelerConfig, DataError, Evidence, Preference, hookimpl


class FakeConfig(LabelerConfig):
    """Made for a test."""

    kind: Literal["fake/llm"] = "fake/llm"
    bias: float = 0.0
    """Added to the first position's probability."""
    stop_after: int | None = None
    """Fail once so many comparisons were labelled in this process."""
    seconds: float = 0.0


class FakeLabeler:
    def __init__(self, config, context):
        self.config = config
        self.context = context
        self.count = 0

    def label(self, comparisons):
        for c in comparisons:
            self.count += 1
            if self.config.stop_after is not None and self.count > self.config.stop_after:
                raise DataError("the server is gone")
            with Path("asked.txt").open("a") as file:
                file.write(c.id + "\\n")
            time.sleep(self.config.seconds)
            a, b = (text.count("x") for text in c.responses)
            p = 0.5 if a == b else 0.9 if a > b else 0.1
            given, swapped = min(1.0, p + self.config.bias), min(1.0, 1 - p + self.config.bias)
            if "garbled" in c.prompt.text:
                orders, first = (Ballot(None), Ballot((swapped, 1 - swapped), 0.8)), None
            else:
                orders = Ballot((given, 1 - given), 0.8, "because"), Ballot((swapped, 1 - swapped), 0.6)
                first = (given + 1 - swapped) / 2
            yield Preference(
                c.id, None if first is None else (first, 1 - first), Evidence("fake/llm", orders, None, 830, 61, 0.057)
            )


@hookimpl
def rlaif_labelers():
    yield Component("fake/llm", FakeConfig, "rlaif_label_fake:FakeLabeler")
'''
Outcome = tuple[int, str, str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in, with the fake plugin installed."""
    (tmp_path / "site").mkdir()
    Site(tmp_path / "site").install("rlaif-fake", FAKE, module="rlaif_label_fake")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("RLAIF_PLUGINS", "fake")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def label(work: Path, rlaif: Callable[..., Outcome]) -> Iterator[Callable[..., Outcome]]:
    """Run `rlaif label` in this process."""

    def run(*argv: object) -> Outcome:
        return rlaif("label", *argv)

    yield run
    sys.modules.pop("rlaif_label_fake", None)


def rows(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def make_pairs(count: int, name: str = "pairs.jsonl") -> Path:
    """Pairs of which the second has the x in one of three; people prefer the x in all but one of ten."""
    made = []
    for i in range(count):
        responses = [f"xx {i}", f"a longer one {i}"] if i % 3 else [f"longer words {i}", f"xx {i}"]
        x_first = responses[0].startswith("xx")
        human = float(x_first) if i % 10 else float(not x_first)
        made.append(
            {
                "id": f"c{i}",
                "prompt": f"Prompt {i}",
                "responses": responses,
                "human": human,
                "confidence": 1.0 if i % 10 else 0.25,
                "slice": "even" if i % 2 == 0 else "odd",
            }
        )
    return write_rows(Path(name), made)


# Labels and their forms


def test_labels_are_written_in_the_order_of_the_pairs(label: Callable[..., Outcome]) -> None:
    pairs = make_pairs(150)
    code, out, err = label(pairs, "--labeler", "length", "--out", "labels.jsonl")
    assert (code, err) == (0, "")
    given, labels = rows(pairs), rows("labels.jsonl")
    assert [r["id"] for r in labels] == [r["id"] for r in given]
    for row, found in zip(given, labels, strict=True):
        assert {k: found[k] for k in row} == row
        longer = len(row["responses"][0]) > len(row["responses"][1])
        assert found["probabilities"] == ([1.0, 0.0] if longer else [0.0, 1.0])
        assert found["evidence"]["source"] == "length"
    assert "150 comparisons" in out
    table = pq.read_table("labels.parquet").to_pylist()
    assert [r["probabilities"] for r in table] == [r["probabilities"] for r in labels]
    assert not list(Path().glob("*.partial"))


def test_unparsed_labels_are_null_and_evidence_is_whole(label: Callable[..., Outcome]) -> None:
    write_rows(
        Path("pairs.jsonl"),
        [{"prompt": "garbled", "responses": ["x", "y"]}, {"prompt": "fine", "responses": ["x", "y"]}],
    )
    code, out, _ = label("pairs.jsonl", "--labeler", "fake/llm", "--out", "labels.jsonl", "--export", "set.jsonl")
    assert code == 0
    first, second = rows("labels.jsonl")
    assert first["probabilities"] is None
    assert second["probabilities"] == pytest.approx([0.9, 0.1])
    evidence = second["evidence"]
    assert [ballot["mass"] for ballot in evidence["orders"]] == [0.8, 0.6]
    assert (evidence["prompt_tokens"], evidence["generated_tokens"], evidence["cost"]) == (830, 61, 0.057)
    table = pq.read_table("labels.parquet").to_pylist()
    assert table[0]["probabilities"] is None
    assert table[1]["evidence"]["orders"][0]["rationale"] == "because"
    assert "2 comparisons, 1 unparsed" in out
    assert "1 rows; 1 missing or tied labels left out" in out


def test_rows_come_back_as_they_were() -> None:
    comparison = Comparison("1", Prompt("1", "p", "p"), ("a", "b"), 0.25, "human", 0.5, "s")
    evidence = Evidence("llm", (Ballot((0.7, 0.3), 0.9, "why", 4), Ballot(None)), (1.0, 2.0), 5, 6, 0.1)
    preference = Preference("1", None, evidence)
    for made in (comparison, replace(comparison, raw_responses=(" a", "b\n"))):
        assert from_row(json.loads(json.dumps(to_row(made, preference)))) == (made, preference)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_preference_set_is_read_by_datasets(label: Callable[..., Outcome], tmp_path: Path, suffix: str) -> None:
    from datasets import load_dataset

    pairs = rows(make_pairs(40))
    write_rows(Path("pairs.jsonl"), [*pairs, {"prompt": "tie", "responses": ["ab", "cd"]}])
    code, out, _ = label("pairs.jsonl", "--labeler", "fake/llm", "--out", "labels.jsonl", "--export", f"set.{suffix}")
    assert code == 0
    assert "40 rows; 1 missing or tied labels left out" in out
    kind = "json" if suffix == "jsonl" else "parquet"
    found = load_dataset(kind, data_files=f"set.{suffix}", split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == list(JSON_COLUMNS if suffix == "jsonl" else PreferenceRow.__annotations__)
    assert len(found) == 40
    for row in found:
        assert row["chosen"].startswith("xx")
        assert not row["rejected"].startswith("xx")
        assert row["margin"] == pytest.approx(math.log(0.9 / 0.1))


def test_a_certain_label_has_a_finite_margin() -> None:
    comparison = Comparison("1", Prompt("1", "p", "p"), ("a", "b"))
    row = to_preference_row((comparison, Preference("1", (0.0, 1.0), Evidence("length"))))
    assert row is not None
    assert (row["chosen"], row["probability"]) == ("b", 1.0)
    assert row["margin"] == pytest.approx(math.log(999_999))
    assert to_preference_row((comparison, Preference("1", (0.5, 0.5), Evidence("length")))) is None


def test_an_export_into_a_folder_has_a_card_that_the_hub_reads(label: Callable[..., Outcome], tmp_path: Path) -> None:
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    made = rows(make_pairs(40))
    write_rows(Path("pairs.jsonl"), [*made, {"prompt": "garbled", "responses": ["x", "y"]}])
    argv = ("pairs.jsonl", "--labeler", "fake/llm", "--out", "labels.jsonl", "--export", "preferences")
    code, out, _ = label(*argv)
    assert code == 0
    assert "preference data set: preferences, 40 rows; 1 missing or tied labels left out" in " ".join(out.split())
    found = load_dataset("./preferences", split="train", cache_dir=str(tmp_path / "cache"))
    human = {row["id"]: row["human"] for row in made}
    x_first = {row["id"]: row["responses"][0].startswith("xx") for row in made}
    assert [row["gold"] for row in found] == [human[i] if x_first[i] else 1 - human[i] for i in human]
    assert found["probability"] == pytest.approx([0.9] * 40)
    card = DatasetCard.load("preferences/README.md")
    assert card.data.pretty_name == "Labels of pairs by fake/llm"
    assert "| pairs | pairs.jsonl |" in card.text
    assert "| answers that could not be read | 1 |" in card.text
    assert "| agreement with gold preferences | 90.0 % " in card.text
    assert "| gold preferences by | human |" in card.text
    assert label(*argv)[0] == 0, "what an earlier run made was not known as ours"
    edited = Path("preferences/README.md").read_text().replace("tags:", "license: mit\ntags:")
    Path("preferences/README.md").write_text(edited)
    code, _, err = label(*argv)
    assert (code, Path("preferences/README.md").read_text()) == (2, edited)
    assert "preferences/README.md: the file already exists, and has been changed since" in " ".join(err.split())
    assert label(*argv, "--overwrite")[0] == 0
    assert "license" not in Path("preferences/README.md").read_text()
    Path("other").mkdir()
    Path("other/README.md").write_text("mine")
    code, _, err = label(*argv[:-1], "other")
    assert (code, Path("other/README.md").read_text()) == (2, "mine")
    assert "other/README.md: the file already exists" in " ".join(err.split())


def test_transcripts_are_labelled(label: Callable[..., Outcome]) -> None:
    head = "\n\nHuman: Hi\n\nAssistant:"
    write_rows(Path("hh.jsonl"), [{"chosen": f"{head} x {i}", "rejected": f"{head} bad {i}"} for i in range(20)])
    code, out, _ = label("hh.jsonl", "--labeler", "fake/llm", "--out", "labels.jsonl", "--export", "set.jsonl")
    assert code == 0
    assert "100.0 %" in out
    assert {r["prompt"] for r in rows("set.jsonl")} == {head}
    given = {row["chosen"] for row in rows("hh.jsonl")}
    assert {r["prompt"] + r["chosen"] for r in rows("set.jsonl")} == given, "the space after 'Assistant:' is lost"
    assert 0 < sum(r["human"] for r in rows("labels.jsonl")) < 20


def test_columns_with_other_names_are_mapped_and_a_mapping_is_suggested(label: Callable[..., Outcome]) -> None:
    Path("pairs.csv").write_text("instruction,output1,output2\nWhy?,a longer one,short\nHow?,short,a longer one\n")
    code, _, err = label("pairs.csv", "--labeler", "length", "--out", "labels.jsonl")
    assert code == 2
    assert "did you mean --fields prompt=instruction,response_a=output1,response_b=output2?" in " ".join(err.split())
    fields = ("--fields", "prompt=instruction", "--fields", "response_a=output1,response_b=output2")
    assert label("pairs.csv", "--labeler", "length", "--out", "labels.jsonl", *fields)[0] == 0
    assert [(r["prompt"], r["probabilities"]) for r in rows("labels.jsonl")] == [("Why?", [1, 0]), ("How?", [0, 1])]
    code, _, err = label("pairs.csv", "--labeler", "length", "--out", "labels.jsonl", "--fields", "promt=instruction")
    assert (code, "did you mean 'prompt'?" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.yaml", "kind: length\nprefer: shorter\n"),
        ("l.toml", 'kind = "length"\nprefer = "shorter"\n'),
        ("l.json", '{"kind": "length", "prefer": "shorter"}'),
    ],
)
def test_a_labeler_file_is_a_slot_of_a_spec(label: Callable[..., Outcome], name: str, text: str) -> None:
    Path(name).write_text(text)
    write_rows(Path("pairs.jsonl"), [{"prompt": "p", "responses": ["long one", "short"]}])
    assert label("pairs.jsonl", "--labeler", name, "--out", "a.jsonl")[0] == 0
    assert rows("a.jsonl")[0]["probabilities"] == [0.0, 1.0]
    assert label("pairs.jsonl", "--labeler", name, "--out", "b.jsonl", "--set", "prefer=longer")[0] == 0
    assert rows("b.jsonl")[0]["probabilities"] == [1.0, 0.0]


# Bad input


def test_bad_rows_are_all_named_and_nothing_is_written(label: Callable[..., Outcome]) -> None:
    made = rows(make_pairs(30))
    made[4]["human"], made[20]["responses"] = 7, ["only one"]
    pairs = write_rows(Path("pairs.jsonl"), made)
    code, _, err = label(pairs, "--labeler", "length", "--out", "labels.jsonl")
    assert code == 2
    assert "2 of 30 rows are invalid" in err
    assert "line 5: 'human' is 7" in err
    assert "line 21: 'responses'" in err
    assert sorted(p.name for p in Path().iterdir()) == ["pairs.jsonl"]
    code, out, _ = label(pairs, "--labeler", "length", "--out", "labels.jsonl", "--skip-invalid")
    assert code == 0
    assert "skipped 2 invalid rows of 30" in out
    assert [r["id"] for r in rows("labels.jsonl")] == [f"c{i}" for i in range(30) if i not in (4, 20)]


def test_labels_are_not_written_among_the_pairs(label: Callable[..., Outcome]) -> None:
    Path("pairs").mkdir()
    write_rows(Path("pairs/one.jsonl"), rows(make_pairs(4)))
    code, _, err = label("pairs", "--labeler", "length", "--out", "pairs/labels.jsonl")
    assert (code, sorted(p.name for p in Path("pairs").iterdir())) == (2, ["one.jsonl"])
    assert "--out would write pairs/labels.jsonl into the folder of the pairs" in err
    assert label("pairs", "--labeler", "length", "--out", "labels.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "give either --labeler"),
        (["--labeler", "length", "--compare", "c.yaml"], "give either --labeler"),
        (["--labeler", "lenght"], "did you mean 'length'"),
        (["--labeler", "nowhere.yaml"], "no labeler file at nowhere.yaml"),
        (["--labeler", "bad.yaml"], "prefr: unknown key; did you mean 'prefer'?"),
        (["--labeler", "empty.yaml"], "'kind' is missing"),
        (["--labeler", "length", "--set", "prefer=best"], "prefer: Input should be 'longer' or 'shorter'"),
        (["--labeler", "length", "--task", "tdlr"], "did you mean 'tldr'"),
        (["--compare", "none.yaml"], "names no labeler"),
        (["--compare", "wrong.yaml"], "b: no labeler named 'nope'"),
        (["--compare", "two.yaml", "--set", "published=length"], "published: Input should be a valid list"),
        (["--compare", "two.yaml", "--set", "published=0"], "published: Input should be a valid list"),
        (["--compare", "two.yaml", "--set", "published.results.agreement/a=1"], "published.source: Field required"),
        (
            ["--compare", "two.yaml", "--set", "published={source: x, results: {agreement/c: 1}}"],
            "published.results.agreement/c: expected agreement/NAME or same_position/NAME, with the name of a labeler",
        ),
        (["--compare", "two.yaml", "--export", "e.jsonl"], "--export needs a single labeler"),
        (["--labeler", "length", "--report", "r.pdf"], "must end in .html"),
        (["--labeler", "length", "--export", "e.csv"], "must end in .jsonl or .parquet"),
        (["--labeler", "length", "--export", "pairs.jsonl"], "which is the pairs"),
        (["--labeler", "length", "--export", "labels.parquet"], "also written by --export"),
        (["--labeler", "length", "--out", "pairs.jsonl"], "which is the pairs"),
        (["--labeler", "length", "--out", "labels.csv"], "must end in .jsonl"),
        (["--labeler", "length", "--out", "folder.jsonl"], "is a folder"),
        (["--labeler", "length", "--out", f"{'x' * 240}.jsonl"], "x.jsonl is too long by"),
        (["--labeler", "human"], "pairs.jsonl, line 2: the row has no human preference"),
        (["--labeler", "synthetic"], "pairs.jsonl, line 1: the row has no synthetic preference"),
        (
            ["--compare", "late.yaml", "--set", "b.preamble=detailled"],
            "b: the task's annotator prompts have no preamble",
        ),
        (
            ["--compare", "late.yaml", "--task", "tldr", "--set", "b.strategy={kind: few-shot, exemplars: [cats]}"],
            "b: strategy 'few-shot': the task's annotator prompts have no exemplar 'cats'; did you mean 'cat'?",
        ),
        (
            ["--compare", "late.yaml", "--set", "b.strategy={kind: few-shot, exemplars: [cat]}"],
            "b: strategy 'few-shot': the task's annotator prompts have no exemplar 'cat'; known: boil, classify, ",
        ),
        (["--compare", "late.yaml", "--set", "b=human"], "b: pairs.jsonl, line 2: the row has no human preference"),
        (["--compare", "late.yaml", "--set", "b.backend.model=./nowhere"], "nowhere; give a hub id, a model folder"),
        (["--compare", "late.yaml", "--set", "b={kind: ensemble, labelers: {x: human}}"], "b: pairs.jsonl, line 2"),
        (
            ["--compare", "late.yaml", "--set", "b.orders=first", "--set", "b.consistent_only=true"],
            "b: consistent_only compares both orders",
        ),
    ],
)
def test_a_mistake_gets_one_message(label: Callable[..., Outcome], argv: list[str], part: str) -> None:
    row = {"prompt": "p", "responses": ["a", "b"]}
    write_rows(Path("pairs.jsonl"), [row | {"human": 1}, row | {"prompt": "q"}])
    Path("late.yaml").write_text("a: length\nb: {kind: llm, backend: {kind: transformers, model: gpt2}}\n")
    Path("bad.yaml").write_text("kind: length\nprefr: longer\n")
    Path("empty.yaml").write_text("{}\n")
    Path("none.yaml").write_text("{}\n")
    Path("two.yaml").write_text("a: length\nb: length\n")
    Path("wrong.yaml").write_text("a: length\nb: nope\n")
    Path("folder.jsonl").mkdir()
    before = sorted(p.name for p in Path().iterdir())
    code, _, err = label("pairs.jsonl", *([] if "--out" in argv else ["--out", "labels.jsonl"]), *argv)
    assert code == 2, err
    assert part in " ".join(err.split())
    assert "Traceback" not in err
    assert sorted(p.name for p in Path().iterdir()) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.jsonl", '{"my": "labels"}'),
        ("labels.parquet", "a table"),
        ("labels.meta.json", '{"some": "other file"}'),
        ("labels.meta.json", "[1]"),
        ("report.html", "<html>"),
        ("set.jsonl", "{}"),
    ],
)
def test_a_file_that_is_not_ours_is_kept(label: Callable[..., Outcome], name: str, text: str) -> None:
    pairs = make_pairs(5)
    Path(name).write_text(text)
    argv = (pairs, "--labeler", "length", "--out", "labels.jsonl", "--report", "report.html", "--export", "set.jsonl")
    code, _, err = label(*argv)
    assert code == 2
    assert f"{name}: the file already exists" in err
    assert "--overwrite" in err
    assert Path(name).read_text() == text
    assert {p.name for p in Path().iterdir()} == {"pairs.jsonl", name}
    assert label(*argv, "--overwrite")[0] == 0
    assert len(rows("labels.jsonl")) == 5
    assert label(*argv, "--set", "prefer=shorter")[0] == 0, "what an earlier run made was not known as ours"
    assert rows("set.jsonl")[0]["chosen"] == "xx 0"


def test_what_may_not_be_meant_is_said_before_and_in_the_report(label: Callable[..., Outcome]) -> None:
    head = "\n\nHuman: Hi\n\nAssistant:"
    write_rows(Path("hh.jsonl"), [{"prompt": head, "responses": ["yes", "no"], "humn": 1}])
    argv = ("hh.jsonl", "--labeler", "length", "--out", "l.jsonl", "--report", "r.html")
    code, out, _ = label(*argv, "--task", "tldr")
    assert code == 0
    text = " ".join(out.split())
    assert text.index("did you mean 'human'?") < text.index("did you mean --task dialogue?") < text.index("labels:")
    assert len([w for w in json.loads(Path("r.json").read_text())["warnings"] if "did you mean" in w]) == 2
    page = Path("r.html").read_text(encoding="utf-8")
    warnings = page[page.index('class="warnings"') :].partition("</section>")[0]
    assert 'Other <span class="count">2</span></summary>' in warnings, "warnings of a kind are not folded"
    assert "<li>no comparison has a human preference" in warnings
    assert "--task dialogue" not in label(*argv, "--task", "dialogue")[1]


SUMMARY_ROWS: dict[str, dict[str, Any]] = {
    "post": {"post": "He sat.", "subreddit": "cats", "response_a": "x", "response_b": "y"},
    "cue": {"prompt": "POST: He sat.\n\nTL;DR:", "responses": ["x", "y"]},
    "column": {"prompt": "He sat.", "responses": ["x", "y"], "summary_model": "m"},
    "openai": {"info": {"post": "He sat."}, "summaries": [{"text": "x"}, {"text": "y"}], "choice": 0},
}
DIALOGUE_ROWS: dict[str, dict[str, Any]] = {
    "transcript": {"prompt": "\n\nHuman: Hi\n\nAssistant:", "responses": ["x", "y"]},
    "messages": {
        "prompt": [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")],
        "responses": ["x", "y"],
    },
}
OTHER_ROWS: dict[str, dict[str, Any]] = {
    "instruction": {"prompt": "Name a fruit.", "response_a": "x", "response_b": "y"},
    "shp": {"history": "Why?", "human_ref_A": "x", "human_ref_B": "y", "labels": 1, "post_id": "p"},
}


@pytest.mark.parametrize(
    ("row", "task"),
    [
        *(pytest.param(row, "tldr", id=name) for name, row in SUMMARY_ROWS.items()),
        *(pytest.param(row, "dialogue", id=name) for name, row in DIALOGUE_ROWS.items()),
        *(pytest.param(row, "text", id=name) for name, row in OTHER_ROWS.items()),
    ],
)
def test_the_wording_is_chosen_by_the_form_of_the_rows_and_printed(
    label: Callable[..., Outcome], row: dict[str, Any], task: str
) -> None:
    write_rows(Path("pairs.jsonl"), [row])
    code, out, _ = label("pairs.jsonl", "--labeler", "length", "--out", "l.jsonl", "--report", "r.html")
    text = " ".join(out.split())
    assert code == 0
    assert f"annotator prompts: those of task '{task}'" in text
    assert "--task" in text, "how to choose others is not said"
    assert json.loads(Path("r.json").read_text())["task"]["kind"] == task
    assert json.loads(Path("l.meta.json").read_text())["task"]["config"]["kind"] == task


def test_the_wording_of_most_rows_is_used_and_a_mapped_column_counts(label: Callable[..., Outcome]) -> None:
    general, post = OTHER_ROWS["instruction"], SUMMARY_ROWS["cue"]
    write_rows(Path("pairs.jsonl"), [post, {**post, "prompt": "POST: She sat.\n\nTL;DR:"}, general])
    assert "since 2 of 3 pairs are summaries" in " ".join(
        label("pairs.jsonl", "--labeler", "length", "--out", "l.jsonl")[1].split()
    )
    write_rows(Path("half.jsonl"), [post, general])
    assert "those of task 'text'" in label("half.jsonl", "--labeler", "length", "--out", "half-l.jsonl")[1]
    Path("pairs.csv").write_text("text,summary1,summary2\nHe sat.,x,y\n")
    fields = ("--fields", "prompt=text,response_a=summary1,response_b=summary2")
    assert "those of task 'tldr'" in label("pairs.csv", "--labeler", "length", "--out", "csv.jsonl", *fields)[1]


def test_a_named_task_is_used_whatever_the_rows_are(label: Callable[..., Outcome]) -> None:
    write_rows(Path("pairs.jsonl"), [SUMMARY_ROWS["post"] | {"prompt": "He sat."}])
    Path("own.yaml").write_text("kind: text\nannotator_prompts: {prefer: worse, ending: 'Worse='}\n")
    for task, kind in (("text", "text"), ("dialogue", "dialogue"), ("own.yaml", "text")):
        code, out, err = label("pairs.jsonl", "--labeler", "length", "--out", "l.jsonl", "--task", task)
        assert (code, f"annotator prompts: those of task '{kind}'" in out) == (0, True), err
    assert json.loads(Path("l.meta.json").read_text())["task"]["annotator_prompts"]["prefer"] == "worse"


def test_labels_changed_by_hand_are_kept(label: Callable[..., Outcome]) -> None:
    argv = (make_pairs(5), "--labeler", "length", "--out", "labels.jsonl")
    assert label(*argv)[0] == 0
    with Path("labels.jsonl").open("a") as file:
        file.write("mine\n")
    code, _, err = label(*argv)
    assert code == 2
    assert "labels.jsonl: the file already exists, and has been changed since it was written" in err
    assert label(*argv, "--overwrite")[0] == 0
    assert len(rows("labels.jsonl")) == 5


# Going on


def test_an_interrupted_run_goes_on_at_the_first_missing_chunk(label: Callable[..., Outcome]) -> None:
    pairs = make_pairs(300)
    Path("l.yaml").write_text("kind: fake/llm\n")
    argv = (pairs, "--labeler", "l.yaml", "--out", "labels.jsonl")
    code, _, err = label(*argv, "--set", "stop_after=150")
    assert code == 2
    assert "the server is gone" in err
    assert not Path("labels.jsonl").exists()
    assert len(rows("labels.jsonl.partial")) == 128
    with Path("labels.jsonl.partial").open("a") as file:
        file.write('{"half a ro')  # a kill between two writes
    Path("asked.txt").unlink()

    code, out, _ = label(*argv, "--set", "stop_after=150")  # counts anew, and fails again
    assert code == 2
    assert "resuming after 128 of 300" in out
    code, out, _ = label(*argv, "--set", "stop_after=150")
    assert code == 0
    assert Path("asked.txt").read_text().split() == [f"c{i}" for i in [*range(128, 278), *range(256, 300)]]
    assert [r["id"] for r in rows("labels.jsonl")] == [f"c{i}" for i in range(300)]
    meta = json.loads(Path("labels.meta.json").read_text())
    assert (meta["counts"]["comparisons"], meta["counts"]["prompt_tokens"]) == (300, 300 * 830)

    whole = Path("labels.jsonl").read_bytes()
    assert label(pairs, "--labeler", "fake/llm", "--out", "once.jsonl")[0] == 0
    assert Path("once.jsonl").read_bytes() == whole, "an interrupted run gave other labels"


def test_finished_labels_are_reused_and_changed_input_is_not(label: Callable[..., Outcome]) -> None:
    pairs = make_pairs(10)
    argv = ("--labeler", "fake/llm", "--out", "labels.jsonl")
    assert label(pairs, *argv)[0] == 0
    code, out, _ = label(pairs, *argv, "--report", "report.html")
    assert (code, "already complete" in out) == (0, True)
    assert len(Path("asked.txt").read_text().split()) == 10
    for change in (("--set", "bias=0.01"), ("--task", "other.yaml")):
        Path("annotator_prompts.yaml").write_text("label: Choose.\n")
        Path("other.yaml").write_text("kind: tldr\nannotator_prompts: annotator_prompts.yaml\n")
        code, out, _ = label(pairs, *argv, *change)
        assert (code, "starting over" in out) == (0, True)
    make_pairs(11)
    code, out, _ = label(pairs, *argv)
    assert (code, "starting over" in out) == (0, True)
    assert len(rows("labels.jsonl")) == 11


def test_another_seed_draws_anew_and_the_same_seed_draws_the_same(label: Callable[..., Outcome]) -> None:
    pairs = make_pairs(40)
    Path("l.yaml").write_text("kind: mix\nproportion: 0.5\nlabeler: length\n")

    def kept(out: str, *argv: object) -> list[str]:
        assert label(pairs, "--labeler", "l.yaml", "--out", out, *argv)[0] == 0
        return [r["id"] for r in rows(out) if r["evidence"]["source"] == "human"]

    first = kept("a.jsonl")
    assert kept("b.jsonl", "--seed", 0) == first
    assert kept("b.jsonl", "--seed", 1) != first, "another seed drew the same, or its labels were not made anew"
    assert json.loads(Path("b.meta.json").read_text())["seed"] == 1
    assert kept("b.jsonl", "--seed", 1, "--batch-tokens", 64) == kept("c.jsonl", "--seed", 1)


def test_the_size_of_a_pass_reaches_the_labeler_and_is_no_new_work(
    label: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif_plugins.labelers.length import LengthLabeler

    budgets: list[int] = []
    original = LengthLabeler.__init__

    def spy(self: LengthLabeler, config: Any, context: Any) -> None:
        budgets.append(context.batch_tokens)
        original(self, config, context)

    monkeypatch.setattr(LengthLabeler, "__init__", spy)
    argv = (make_pairs(5), "--labeler", "length", "--out", "labels.jsonl")
    assert label(*argv, "--batch-tokens", 777)[0] == 0
    assert "already complete" in label(*argv, "--batch-tokens", 888)[1]
    assert budgets == [777]


def test_the_pairs_are_read_once_for_all_labelers(
    label: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif_framework.data import row_files
    from rlaif_framework.records.jsonl import read_lines

    pairs, reads = make_pairs(5), []

    def spy(path: Path) -> Iterator[tuple[int, bytes]]:
        reads.append(path)
        return read_lines(path)

    monkeypatch.setattr(row_files, "read_lines", spy)
    Path("c.yaml").write_text("a: length\nb: {kind: length, prefer: shorter}\nc: human\n")
    assert label(pairs, "--compare", "c.yaml", "--out", "labels.jsonl")[0] == 0
    assert reads == [pairs]


def test_a_component_that_needs_a_policy_is_told_that_there_is_none() -> None:
    context = Context(TaskConfig(kind="tldr"), None, 0, PluginManager.load())
    assert (context.policy_model, context.batch_tokens) == ("", 16384)
    with pytest.raises(SpecError, match="needs a policy"):
        _ = context.policy.max_new_tokens
    with pytest.raises(SpecError, match="needs a policy"):
        _ = context.policy_source


def test_many_comparisons_stream_in_constant_memory(label: Callable[..., Outcome]) -> None:
    text = "word " * 100
    peaks = []
    for count in (10, 2_000, 4_000):  # the first also imports
        with Path("many.jsonl").open("w") as file:
            for i in range(count):
                file.write(json.dumps({"prompt": f"{i} {text}", "responses": ["a longer one", f"b {i}"]}) + "\n")
        tracemalloc.start()
        assert label("many.jsonl", "--labeler", "length", "--out", "out.jsonl")[0] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(rows("out.jsonl")) == count
        Path("out.jsonl").unlink()
    # 2,000 prompts more are 1 MB of text; what is kept of a comparison is what measuring takes.
    assert peaks[2] - peaks[1] < 2_000 * 300, peaks


# Numbers of the report


PROMPTS = itertools.count()


def seen(first: float | None, known: float | None, longer: int = 0) -> Observation:
    return Observation(next(PROMPTS), first, known, "human", None, None, longer, (), ())


def apart(observations: list[Observation]) -> list[Observation]:
    """Give each observation a prompt of its own."""
    return [replace(x, prompt=i) for i, x in enumerate(observations)]


def test_brier_and_calibration_error_by_hand() -> None:
    found = measure_calibration([seen(0.9, 1.0), seen(0.9, 0.0), seen(0.2, 0.0), seen(0.5, 1.0), seen(None, 1.0)])
    assert found is not None
    assert found.brier.value == pytest.approx((0.01 + 0.81 + 0.04 + 0.25) / 4)
    assert [(b.confidence, b.accuracy.value, b.accuracy.count) for b in found.bins] == [
        (0.5, 0.5, 1),  # an exact tie is half right
        (pytest.approx(0.8), 1.0, 1),
        (pytest.approx(0.9), 0.5, 2),
    ]
    assert found.ece == pytest.approx(0.25 * 0 + 0.25 * 0.2 + 0.5 * 0.4)
    assert measure_calibration([seen(0.9, None), seen(0.9, 0.5)]) is None


def test_calibration_does_not_depend_on_the_order_of_the_responses() -> None:
    given = [seen(i / 20, float(i % 3 == 0)) for i in range(1, 20)]
    swapped = [seen(1 - i / 20, 1 - float(i % 3 == 0)) for i in range(1, 20)]
    one, other = measure_calibration(given), measure_calibration(swapped)
    assert one is not None
    assert other is not None
    assert one.brier.value == pytest.approx(other.brier.value)
    assert one.ece == pytest.approx(other.ece)


def test_a_labeler_whose_probabilities_are_true_is_calibrated() -> None:
    # Of those labelled p, a share p is better: the reliability diagram is the diagonal.
    observations = [seen(p / 10, float(i < p)) for p in range(1, 10) if p != 5 for i in range(10)]
    found = measure_calibration(observations)
    assert found is not None
    assert found.ece == pytest.approx(0)
    assert found.brier.value == pytest.approx(sum(p / 10 * (1 - p / 10) for p in range(1, 10) if p != 5) / 8)


def test_agreement_rises_with_length_for_a_labeler_that_follows_it() -> None:
    observations = [seen(float(d > 0), known, d) for d in (-50, -20, 20, 50) for known in (0.0, 1.0) for _ in range(5)]
    found = measure_lengths(observations)
    assert [b.agreement.value for b in found] == [0, 0, 0.5, 1, 1]
    assert (found[0].low, found[-1].high) == (-50, 50)


@pytest.mark.parametrize(("first", "second"), [(18, 5), (5, 18), (1, 0), (9, 9), (0, 0), (40, 3)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    count, few = first + second, min(first, second)
    tail = 2 * sum(math.comb(count, k) for k in range(few + 1)) / 2**count
    assert paired_p_value(first, second) == pytest.approx(min(1.0, tail))
    if count:
        assert paired_p_value(first, second) == pytest.approx(stats.binomtest(first, count).pvalue)


def test_holm_by_hand() -> None:
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_labelers_are_compared_on_the_comparisons_both_decide() -> None:
    one = [seen(0.9, 1.0)] * 8 + [seen(0.9, 0.0)] * 2 + [seen(None, 1.0), seen(0.9, None), seen(0.9, 0.5)]
    other = (
        [seen(0.1, 1.0)] * 7 + [seen(0.9, 1.0), seen(0.1, 0.0), seen(0.5, 0.0), seen(0.9, 1.0)] + [seen(0.9, None)] * 2
    )
    (pair,) = compare_labelers({"one": apart(one), "other": apart(other)})
    assert (pair.first_only, pair.second_only, pair.count) == (7, 1, 9)
    assert pair.difference == pytest.approx(6 / 9)
    assert pair.p == pair.p_holm == pytest.approx(stats.binomtest(7, 8).pvalue)
    assert pair.same_preference is not None
    assert pair.same_preference.count == 11
    assert pair.same_preference.value == pytest.approx(3 / 11)


def test_labelers_are_compared_by_prompt_if_prompts_have_several_comparisons() -> None:
    one = [replace(seen(0.9, 1.0), prompt=i % 5) for i in range(20)]
    other = [replace(seen(0.1 if i % 5 < 3 else 0.9, 1.0), prompt=i % 5) for i in range(20)]
    (pair,) = compare_labelers({"one": one, "other": other})
    assert (pair.first_only, pair.second_only) == (12, 0)
    assert pair.difference == pytest.approx(0.6)
    # As if each of the five prompts had been observed once.
    expected = stats.ttest_1samp([1, 1, 1, 0, 0], 0).pvalue
    assert pair.p is not None
    assert pair.p == pytest.approx(expected)
    assert pair.p > 100 * stats.binomtest(12, 12).pvalue


def test_the_report_of_one_labeler(label: Callable[..., Outcome]) -> None:
    made = rows(make_pairs(100))
    made += [{"id": "t", "prompt": "tie <b>", "responses": ["ab", "c"], "human": 0.5}]
    made += [{"id": "g", "prompt": "garbled", "responses": ["x", "c"], "human": 1}]
    write_rows(Path("pairs.jsonl"), made)
    argv = ("pairs.jsonl", "--labeler", "fake/llm", "--out", "labels.jsonl", "--report", "deep/report.html")
    code, out, _ = label(*argv)
    assert code == 0
    report = json.loads(Path("deep/report.json").read_text())
    found = report["labelers"]["fake/llm"]
    quality = found["quality"]
    assert (quality["agreement"]["value"], quality["agreement"]["count"]) == (0.9, 100)
    interval = stats.binomtest(90, 100).proportion_ci(method="wilson")
    assert (quality["agreement"]["low"], quality["agreement"]["high"]) == pytest.approx((interval.low, interval.high))
    assert (found["high_confidence"]["value"], found["high_confidence"]["count"]) == (1.0, 90)
    assert quality["slices"]["even"]["value"] == 0.8
    assert quality["slices"]["odd"]["value"] == 1.0
    sure = {name: (x["value"], x["count"]) for name, x in found["high_confidence_slices"].items()}
    assert sure == {"even": (1.0, 40), "odd": (1.0, 50)}
    assert quality["unparsed"]["value"] == pytest.approx(1 / 102)
    assert quality["same_position"]["value"] == 0
    assert quality["label_token_mass"]["value"] == pytest.approx((101 * 1.4 + 0.8) / 203)
    assert found["calibration"]["brier"]["value"] == pytest.approx(0.9 * 0.01 + 0.1 * 0.81)
    assert found["calibration"]["ece"] == pytest.approx(0)
    assert found["per_thousand"]["prompt_tokens"] == 830_000
    assert found["per_thousand"]["dollars"] == pytest.approx(57)
    assert report["paper_dollars"] == {"AI in the paper (GPT-4, 2023)": 60.0, "human in the paper": 670.0}
    assert found["uncertain"][0]["id"] == "t"
    assert len(found["uncertain"]) == 10
    assert "agrees with humans in 90.0 %" in out
    page = Path("deep/report.html").read_text()
    for part in (
        "labeler-reliability-0",
        "90.0 %",
        "57.00",
        "670.00",
        "tie &lt;b&gt;",
        "because",
        "Calibration",
        "fake/llm, confident",
    ):
        assert part in page, part
    inert = strip_assets(page)
    assert "<b>" not in inert
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", inert)


def test_position_bias_and_missing_human_labels_are_said(label: Callable[..., Outcome]) -> None:
    write_rows(Path("pairs.jsonl"), [{"prompt": f"p{i}", "responses": ["x", "y"]} for i in range(20)])
    Path("l.yaml").write_text("kind: fake/llm\nbias: 0.6\n")
    code, out, _ = label("pairs.jsonl", "--labeler", "l.yaml", "--out", "l.jsonl", "--report", "r.html")
    assert code == 0
    assert "mostly prefers a position rather than a response, usually the first: 100.0 %" in out
    assert "no comparison has a human preference" in out
    found = json.loads(Path("r.json").read_text())["labelers"]["fake/llm"]
    assert found["quality"]["agreement"] is None
    assert found["calibration"] is None
    assert "Calibration" not in Path("r.html").read_text()


def test_several_labelers_side_by_side(label: Callable[..., Outcome]) -> None:
    make_pairs(100)
    Path("c.yaml").write_text("llm: fake/llm\nlonger: length\nshorter: {kind: length, prefer: shorter}\n")
    code, out, _ = label("pairs.jsonl", "--compare", "c.yaml", "--out", "labels.jsonl", "--report", "r.html")
    assert code == 0, out
    assert sorted(p.name for p in Path().glob("labels*.jsonl")) == [
        "labels.llm.jsonl",
        "labels.longer.jsonl",
        "labels.shorter.jsonl",
    ]
    report = json.loads(Path("r.json").read_text())
    pairs = {(p["first"], p["second"]): p for p in report["paired"]}
    assert set(pairs) == {("llm", "longer"), ("llm", "shorter"), ("longer", "shorter")}
    # The response with the x is always the shorter one, so these two say the same.
    assert pairs["llm", "shorter"]["same_preference"]["value"] == 1
    assert pairs["llm", "shorter"]["p_holm"] == 1
    one = pairs["llm", "longer"]
    assert (one["first_only"], one["second_only"], one["count"]) == (90, 10, 100)
    assert one["p"] == pytest.approx(stats.binomtest(90, 100).pvalue)
    assert one["p_holm"] == pytest.approx(3 * one["p"])
    for part in ("labeler", "agreement", "same position", "unparsed", "Brier", "tokens/1000", "s/1000", "$/1000"):
        assert part in out
    assert "+80.0 points" in out
    assert "57.00" in out
    page = Path("r.html").read_text()
    assert "Pairwise comparison" in page
    assert "+80.0 points" in page


def test_published_results_are_set_beside_those_measured(label: Callable[..., Outcome]) -> None:
    make_pairs(10)
    results = "{agreement/a: 0.761, same_position/b: 0.56, agreement/b: 0.7}"
    Path("c.yaml").write_text(f"a: length\nb: length\nc: length\npublished: {{source: A paper, results: {results}}}\n")
    argv = ["pairs.jsonl", "--compare", "c.yaml", "--out", "labels.jsonl", "--report", "r.html"]
    assert label(*argv)[0] == 0
    assert sorted(p.name for p in Path().glob("labels*.jsonl")) == [f"labels.{name}.jsonl" for name in "abc"]
    text = html.unescape(re.sub(r"<[^>]+>", " ", Path("r.html").read_text()))
    page = " ".join(text.split())
    assert "agreement, published A paper 76.1 % 70 % - " in page
    assert "same position, published A paper - 56 % - " in page
    assert "Published: A paper. Its models and data are not those of this run, so only directions can" in page
    report = json.loads(Path("r.json").read_text())
    assert report["published"][0]["results"]["agreement/b"] == 0.7
    # Several publications have a row each; the labels are used again.
    several = "published=[{source: One, results: {agreement/a: 0.5}}, {source: Two}]"
    assert label(*argv, "--set", several)[0] == 0
    page = Path("r.html").read_text()
    assert "Published: One; Two." in page
    assert "56 %" not in page


def test_what_an_ensembles_members_disagree_on_is_reported(label: Callable[..., Outcome]) -> None:
    made = [{"id": f"s{i}", "prompt": f"p{i}", "responses": ["xx", f"longer {i}"]} for i in range(3)]
    made += [{"id": f"l{i}", "prompt": f"q{i}", "responses": [f"xx longer {i}", "short"]} for i in range(7)]
    made += [{"id": "t", "prompt": "r", "responses": ["xxx", "abc"]}]  # of equal length: a tie is no disagreement
    made += [{"id": "g", "prompt": "garbled", "responses": ["xx", "longer"]}]  # only one member could be read
    write_rows(Path("pairs.jsonl"), made)
    Path("l.yaml").write_text("kind: ensemble\nlabelers: {x: fake/llm, longer: length}\n")
    code, out, _ = label("pairs.jsonl", "--labeler", "l.yaml", "--out", "l.jsonl", "--report", "r.html")
    assert code == 0
    found = json.loads(Path("r.json").read_text())["labelers"]["ensemble"]
    assert (found["disagreement"]["value"], found["disagreement"]["count"]) == (pytest.approx(3 / 11), 11)
    assert {x["id"] for x in found["disputed"][:3]} == {"s0", "s1", "s2"}
    assert found["disputed"][0]["votes"] == {"x": pytest.approx([0.9, 0.1]), "longer": [0.0, 1.0]}
    assert "the members of ensemble prefer different responses in 27.3 %" in out
    page = Path("r.html").read_text()
    for part in ("members disagree", "Disputed", "0.900 and 0.100"):
        assert part in page
    assert label("pairs.jsonl", "--labeler", "length", "--out", "o.jsonl", "--report", "o.html")[0] == 0
    assert json.loads(Path("o.json").read_text())["labelers"]["length"]["disagreement"] is None
    assert "Disputed" not in Path("o.html").read_text()


def test_copied_labels_are_not_scored_against_themselves(label: Callable[..., Outcome]) -> None:
    made = rows(make_pairs(60))
    for row in made[30:]:
        del row["human"]
    # Whoever follows length is wrong about the x in 9 of 10, so that only copied labels can be right.
    write_rows(Path("pairs.jsonl"), made)
    Path("c.yaml").write_text(
        "mix: {kind: mix, labeler: length, proportion: 0.5}\nall: {kind: mix, labeler: length}\nlonger: length\n"
    )
    code, out, _ = label("pairs.jsonl", "--compare", "c.yaml", "--out", "labels.jsonl", "--report", "r.html")
    assert code == 0
    report = json.loads(Path("r.json").read_text())
    kept = [r["evidence"]["source"] for r in rows("labels.mix.jsonl")].count("human")
    assert 0 < kept < 30
    mix, whole, longer = (report["labelers"][name] for name in ("mix", "all", "longer"))
    assert (mix["copied"], mix["quality"]["agreement"]["count"]) == (kept, 30 - kept)
    assert mix["quality"]["agreement"]["value"] <= 3 / (30 - kept)
    assert mix["calibration"]["brier"]["count"] == 30 - kept
    assert sum(b["agreement"]["count"] for b in mix["lengths"]) == 30 - kept
    assert (whole["copied"], whole["quality"]["agreement"], whole["calibration"]) == (30, None, None)
    assert (longer["copied"], longer["quality"]["agreement"]["count"]) == (0, 30)
    tested = {(p["first"], p["second"]): (p["count"], p["p"]) for p in report["paired"]}
    assert tested == {("mix", "all"): (0, None), ("mix", "longer"): (30 - kept, 1.0), ("all", "longer"): (0, None)}
    assert f"in addition to {kept} labels copied from human annotations" in out
    assert "copied from human annotations" in Path("r.html").read_text()


def test_a_labeler_of_several_that_fails_is_named(label: Callable[..., Outcome]) -> None:
    make_pairs(10)
    Path("c.yaml").write_text("good: length\nweak: {kind: fake/llm, stop_after: 3}\n")
    code, _, err = label("pairs.jsonl", "--compare", "c.yaml", "--out", "labels.jsonl")
    assert (code, "weak: the server is gone" in err) == (2, True)
    assert Path("labels.good.jsonl").exists()


def test_help_is_readable_and_needs_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from rlaif_framework.cli.main import app\n"
        "found = CliRunner().invoke(app, ['label', '--help'])\n"
        "print(found.output); assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in (
        "--out",
        "--labeler",
        "--compare",
        "--task",
        "--report",
        "--export",
        "--skip-invalid",
        "--overwrite",
        "--set",
    ):
        assert option in done.stdout
