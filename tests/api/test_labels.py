"""Pairs of any type are labelled from Python as `rlaif label` labels their file."""

from __future__ import annotations

import asyncio
import json
import math
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd
import pytest

import rlaif_framework as rlaif
from rlaif_framework import (
    Comparison,
    Component,
    Context,
    DataError,
    Evidence,
    LabelerConfig,
    PluginManager,
    Preference,
    RlaifError,
    SpecError,
    hookimpl,
)
from rlaif_framework.plugins.discovery import Plugin
from support.fake_plugins import write_rows
from support.server import serve

LETTERED = [
    {"prompt": f"question {i}", "response_a": "yes, " * (i % 3) + "a", "response_b": "no, it is", "label": "a"}
    for i in range(8)
]
CHOSEN = [
    {"prompt": f"question {i}", "chosen": f"the much longer answer {i}", "rejected": f"short {i}", "confidence": None}
    for i in range(12)
]
RANKED = [
    {"prompt": "why?", "answers": [{"text": "aaa", "rank": 1}, {"text": "a", "rank": 2}, {"text": "aa", "rank": 3}]},
    {"prompt": "how?", "answers": [{"text": "b", "rank": 2}, {"text": "bb", "rank": 1}]},
]
CHAT = [
    {
        "prompt": [{"role": "user", "content": f"question {i}"}],
        "chosen": [{"role": "assistant", "content": "short"}],
        "rejected": [{"role": "assistant", "content": "a longer one"}],
    }
    for i in range(4)
]
MAKERS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "list": list,
    "dataset": datasets.Dataset.from_list,
    "frame": lambda rows: pd.DataFrame(rows, index=[f"row {i}" for i in range(len(rows))]),
}


def to_rows(data: Any) -> list[dict[str, Any]]:
    """The rows of any type; missing values are None."""
    if isinstance(data, pd.DataFrame):
        data = datasets.Dataset.from_pandas(data, preserve_index=False)
    rows: list[dict[str, Any]] = [dict(row) for row in data]
    return rows


class CountingConfig(LabelerConfig):
    """Counts what it is asked, and fails or refuses as it is told."""

    kind: Literal["counting/asks"] = "counting/asks"


class CountingLabeler:
    asked: list[str]
    fail_after: int
    refused: bool

    def __init__(self, config: CountingConfig, context: Context) -> None:
        pass

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        for c in comparisons:
            if len(self.asked) == self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(c.id)
            evidence = Evidence("counting/asks", refused="no" if self.refused else None)
            yield Preference(c.id, None if self.refused else (0.75, 0.25), evidence)


@pytest.fixture
def counting(manager: PluginManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[CountingLabeler]:
    """The labeler as a plugin, and a cache of its own."""
    module = types.ModuleType("rlaif_counting")

    @hookimpl
    def rlaif_labelers() -> list[Component]:
        return [Component("counting/asks", CountingConfig, f"{__name__}:CountingLabeler")]

    module.rlaif_labelers = rlaif_labelers  # type: ignore[attr-defined]
    manager.add(Plugin("counting", "rlaif-counting", "1.0", module=module))
    monkeypatch.setattr(PluginManager, "load", lambda **settings: manager)
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    for name, value in {"asked": [], "fail_after": -1, "refused": False}.items():
        monkeypatch.setattr(CountingLabeler, name, value, raising=False)
    return CountingLabeler


# Types of data


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rows", [LETTERED, CHOSEN, CHAT], ids=["lettered", "chosen", "chat"])
def test_data_of_each_type_keep_their_type_and_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    given = MAKERS[kind](rows)
    result = rlaif.label(given, "length", verbose=False)
    assert type(result.data) is type(given)
    found = to_rows(result.data)
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    for row in found:
        if "chosen" in row:
            first, second = (x if isinstance(x, str) else x[0]["content"] for x in (row["chosen"], row["rejected"]))
        else:
            first, second = row["response_a"], row["response_b"]
        # The labeler prefers the longer response.
        assert row["ai_probability"] == (0.5 if len(first) == len(second) else float(len(first) > len(second)))
        assert row["ai_preferred"] == (None if len(first) == len(second) else max(first, second, key=len))
    if isinstance(given, pd.DataFrame):
        assert list(result.data.index) == list(given.index)
        assert "ai_probability" not in given.columns


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_with_several_responses_is_repeated_for_each_pair(kind: str) -> None:
    result = rlaif.label(MAKERS[kind](RANKED), "length", verbose=False)
    found = to_rows(result.data)
    assert [(row["prompt"], row["ai_pair"], row["ai_probability"], row["ai_preferred"]) for row in found] == [
        ("why?", "1-2", 1.0, "aaa"),
        ("why?", "1-3", 1.0, "aaa"),
        ("why?", "2-3", 0.0, "aa"),
        ("how?", "1-2", 0.0, "bb"),
    ]


def test_a_file_gives_a_list(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", LETTERED)
    by_path = rlaif.label(path, "length", verbose=False)
    assert by_path.data == rlaif.label(str(path), "length", verbose=False).data
    assert by_path.data == rlaif.label(LETTERED, "length", verbose=False).data


@pytest.mark.parametrize("kind", MAKERS)
def test_labels_and_report_are_those_of_the_command(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rows = [*CHOSEN, *CHOSEN[:2]]  # repeated rows get ids of their own
    pairs, out = write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "labels.jsonl"
    report = tmp_path / "report.html"
    command = request.getfixturevalue("rlaif")
    assert command("label", pairs, "--labeler", "length", "--out", out, "--report", report, "--seed", 3)[0] == 0
    result = rlaif.label(MAKERS[kind](rows), "length", seed=3, verbose=False)
    assert result.rows() == [json.loads(line) for line in out.read_text().splitlines()]
    expected, found = json.loads(report.with_suffix(".json").read_text()), json.loads(result.report.model_dump_json())
    assert len(found["warnings"]) == len(expected["warnings"])
    for content in (expected, found):
        content["pairs"].pop("path")
        content.pop("warnings")  # one names the file
        for labeler in content["labelers"].values():
            labeler.pop("labels")
            labeler.pop("per_thousand")  # measured times
            for name in ("pairs", "made", "counts"):
                labeler["record"].pop(name)
    assert found == expected


def test_several_labelers_are_compared() -> None:
    compare = {"long": "length", "short": {"kind": "rouge"}}
    rows = [{**row, "reference": "short"} for row in CHOSEN]
    result = rlaif.label(rows, compare=compare, verbose=False)  # type: ignore[arg-type]
    assert list(result.report.labelers) == list(result.labels) == ["long", "short"]
    assert [row["long_probability"] for row in result.data] == [1.0] * len(rows)
    assert all(row["short_probability"] < 0.5 for row in result.data)
    assert len(result.report.paired) == 1
    assert len(result.rows("long")) == len(rows)
    with pytest.raises(SpecError, match="long, short"):
        result.rows()


def test_a_data_set_without_labels_has_columns_with_types(counting: type[CountingLabeler]) -> None:
    counting.refused = True
    result = rlaif.label(datasets.Dataset.from_list(LETTERED), "counting/asks", verbose=False)
    assert result.data.features["ai_probability"] == datasets.Value("float64")
    assert result.data.features["ai_preferred"] == datasets.Value("string")
    assert result.data["ai_probability"][:] == [None] * len(LETTERED)
    frame = rlaif.label(pd.DataFrame(LETTERED), "counting/asks", verbose=False).data
    assert frame["ai_probability"].dtype == "float64"
    assert frame["ai_probability"].isna().all()


def test_missing_values_of_a_frame_are_missing() -> None:
    frame = pd.DataFrame([{**row, "confidence": math.nan, "label": None} for row in LETTERED])
    result = rlaif.label(frame, "length", verbose=False)
    assert result.report.pairs.with_human == 0
    assert len(result.data) == len(LETTERED)


# Settings


def test_a_labeler_is_a_name_a_mapping_a_file_or_a_config(tmp_path: Path) -> None:
    file = tmp_path / "labeler.yaml"
    file.write_text("kind: rouge\n", encoding="utf-8")
    rows = [{**row, "reference": "yes"} for row in LETTERED]
    expected = rlaif.label(rows, "rouge", verbose=False).data
    config = rlaif.load_labeler("rouge").config
    for given in ({"kind": "rouge"}, file, str(file), config):
        assert rlaif.label(rows, given, verbose=False).data == expected


def test_values_of_the_labeler_are_overridden() -> None:
    with pytest.raises(SpecError, match="metric"):
        rlaif.label(LETTERED, "rouge", set={"metric": "rouge9"})
    with pytest.raises(SpecError, match="each labeler"):
        rlaif.label(LETTERED, compare={"a": "length"}, set={"metric": "rouge1"})


def test_columns_with_other_names_are_mapped() -> None:
    rows = [{"instruction": "do it", "output1": "done, all of it", "output2": "no"}]
    with pytest.raises(DataError, match="fields"):
        rlaif.label(rows, "length", verbose=False)
    fields = {"prompt": "instruction", "response_a": "output1", "response_b": "output2"}
    assert rlaif.label(rows, "length", fields=fields, verbose=False).data[0]["ai_probability"] == 1.0


# Mistakes


def test_invalid_rows_are_refused_or_left_out() -> None:
    rows: list[dict[str, Any]] = [LETTERED[0], {"prompt": "p", "response_a": "x", "response_b": "x"}, LETTERED[1]]
    with pytest.raises(DataError, match=r"row 2: the two responses are identical(.|\n)*use skip_invalid=True"):
        rlaif.label(rows, "length", verbose=False)
    for kind in MAKERS:
        result = rlaif.label(MAKERS[kind](rows), "length", skip_invalid=True, verbose=False)
        assert [row["prompt"] for row in to_rows(result.data)] == ["question 0", "question 1"]
        assert result.report.pairs.skipped == 1


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (3, {}, "not a int"),
        ([1], {}, "row 1 is a int"),
        ([], {}, "the list has no rows; there is nothing to label"),
        (LETTERED, {"labeler": None}, "either labeler"),
        (LETTERED, {"labeler": None, "compare": {}}, "give each labeler a name"),
        (LETTERED, {"labeler": None, "compare": ["length"]}, "give each labeler a name"),
        (LETTERED, {"seed": "a"}, "seed is 'a'; it must be a whole number"),
        (LETTERED, {"seed": -1}, "seed is -1"),
        ([{**LETTERED[0], "ai_probability": 1}], {}, "column 'ai_probability' already"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_list(LETTERED)}), {}, r"data\['train'\]"),
        (LETTERED, {"labeler": "rouge"}, "without a reference"),
        (LETTERED, {"task": "tldrr"}, "did you mean 'tldr'"),
        ("nowhere.jsonl", {}, "nowhere.jsonl"),
        (pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), {}, "cannot read the data frame"),
    ],
    ids=[
        "type",
        "row",
        "empty",
        "none",
        "names",
        "list",
        "seed",
        "negative",
        "column",
        "splits",
        "reference",
        "task",
        "file",
        "columns",
    ],
)
def test_mistakes_are_errors_of_the_framework(pairs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RlaifError, match=message):
        rlaif.label(pairs, **{"labeler": "length", "verbose": False, **options})


# Interruptions


def test_an_interrupted_call_resumes_and_a_finished_one_is_not_repeated(
    counting: type[CountingLabeler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif_framework.labelling.loop.chunk_size", lambda config: 2)
    monkeypatch.setattr("rlaif_framework.prompting.chunks.chunk_size", lambda config: 2)
    counting.fail_after = 5
    with pytest.raises(KeyboardInterrupt):
        rlaif.label(LETTERED, "counting/asks", verbose=False)
    counting.fail_after = -1
    result = rlaif.label(pd.DataFrame(LETTERED), "counting/asks", verbose=False)
    assert len(counting.asked) == 5 + 4  # the two chunks that were complete are not labelled again
    assert list(result.data["ai_probability"]) == [0.75] * 8
    assert rlaif.label(LETTERED, "counting/asks", verbose=False).rows() == result.rows()
    assert len(counting.asked) == 9
    rlaif.label(LETTERED, "counting/asks", seed=1, verbose=False)
    assert len(counting.asked) == 17


def test_refused_comparisons_are_sent_again(counting: type[CountingLabeler]) -> None:
    counting.refused = True
    assert rlaif.label(LETTERED, "counting/asks", verbose=False).data[0]["ai_probability"] is None
    counting.refused = False
    assert rlaif.label(LETTERED, "counting/asks", verbose=False).data[0]["ai_probability"] == 0.75


def test_a_server_labels_where_an_event_loop_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))

    async def call() -> list[dict[str, Any]]:
        backend = {"kind": "openai", "model": "made", "base_urls": [server.url]}
        return rlaif.label(LETTERED, {"kind": "llm", "backend": backend}, verbose=False).data

    with serve() as server:
        assert [row["ai_probability"] for row in asyncio.run(call())] == pytest.approx([0.5] * len(LETTERED))
        assert server.bodies


# Results


def test_a_result_is_exported_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlaif.label(CHOSEN, "length")
    printed = capsys.readouterr().out
    assert "length agrees with humans in 100.0 %" in printed
    exported = [json.loads(line) for line in result.export(tmp_path / "new" / "p.jsonl").read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in exported] == [
        (row["chosen"], row["rejected"]) for row in CHOSEN
    ]
    assert len(pd.read_parquet(result.export(tmp_path / "p.parquet"))) == len(CHOSEN)
    folder = result.export(tmp_path / "made" / "preferences")
    assert len(pd.read_parquet(folder / "preferences.parquet")) == len(CHOSEN)
    assert "pretty_name: Labels of the list by length" in (folder / "README.md").read_text()
    with pytest.raises(SpecError, match=r"must end in \.jsonl or \.parquet, or have no ending for a folder"):
        result.export(tmp_path / "p.csv")
    page = result.save_report(tmp_path / "report.html").read_text()
    assert "<h1>Labeler report</h1>" in page
    assert "length agrees with humans in 100.0 %" in repr(result)
    for shown in (result._repr_html_(), result.report._repr_html_()):
        assert "<td>length</td>" in shown
        assert "agrees with humans in 100.0 %" in shown
    with pytest.raises(SpecError, match=r"must end in \.html"):
        result.save_report(tmp_path / "report.pdf")


def test_the_labeler_of_labels_is_loaded(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pairs, out = write_rows(tmp_path / "pairs.jsonl", CHOSEN), tmp_path / "labels.jsonl"
    command = request.getfixturevalue("rlaif")
    assert command("label", pairs, "--labeler", "length", "--out", out, "--set", "kind=length")[0] == 0
    assert rlaif.load_labeler(out).prefer("a", ["long one"], ["short"]) == [1.0]
    with pytest.raises(SpecError, match="no record"):
        rlaif.load_labeler(pairs)
