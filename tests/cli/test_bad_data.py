"""Data with mistakes: named by file and line before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.fake_plugins import write_rows
from support.outcomes import PAIRS, POSTS, SPLITS, Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


@dataclass(frozen=True)
class BadData:
    """Lines of a file, and what is said about it."""

    lines: Sequence[str] | None
    expected: Sequence[str]


def lines(rows: Sequence[object], *more: str) -> list[str]:
    return [*(json.dumps(row) for row in rows), *more]


POSTS_AT_FAULT = {
    "missing": BadData(None, ["no data file at {path}"]),
    "empty": BadData([], ["{path} is empty"]),
    "malformed": BadData(lines(POSTS, '{"id": '), ["{path}, line 5: not valid JSON"]),
    "empty-line": BadData(lines(POSTS[:2], "", *lines(POSTS[2:])), ["{path}, line 3: the line is empty; remove it"]),
    "no-object": BadData(lines(POSTS, "3"), ["{path}, line 5: expected a JSON object, found int"]),
    "no-post": BadData(lines([{"text": "x", "summary": "y"}]), ["{path}, line 1: no 'post'; found text, summary"]),
    "no-summary": BadData(lines([*POSTS, {"post": "x", "summary": ""}]), ["{path}, line 5: 'summary' is missing"]),
}
PAIRS_AT_FAULT = {
    "missing": BadData(None, ["no data file at {path}"]),
    "malformed": BadData(lines(PAIRS, "{"), ["{path}, line 5: not valid JSON"]),
    "identical": BadData(
        lines([*PAIRS, {"prompt": "x", "responses": ["a", " a"]}]), ["{path}, line 5: the two responses are identical"]
    ),
    "empty-response": BadData(
        lines([*PAIRS, {"prompt": "x", "responses": ["a", ""]}]), ["{path}, line 5: a response is empty"]
    ),
    "no-comparison": BadData(lines([{"prompt": "x"}]), ["{path}, line 1: expected prompt + responses", "found prompt"]),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("place", "case"), [*(("data", c) for c in POSTS_AT_FAULT), *(("comparisons", c) for c in PAIRS_AT_FAULT)]
)
def test_bad_data_is_named_by_file_and_line_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, command: str, place: str, case: str
) -> None:
    bad = (POSTS_AT_FAULT if place == "data" else PAIRS_AT_FAULT)[case]
    path = tmp_path / "rows.jsonl"
    if bad.lines is not None:
        path.write_text("".join(f"{line}\n" for line in bad.lines))
    found = rlaif(command, spec(f"task.{place}={path}"))
    refused(found, *(part.format(path=path) for part in bad.expected))
    assert files(Path()) == set()


def test_a_bad_template_is_named(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    refused(rlaif("plan", spec("task.template='{{ pots }}'")), "task.template, line 1: 'pots' is undefined")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_data_that_lacks_what_the_spec_needs_is_told_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    bare = [
        {"post": f"Post {i} is here.", "summary": f"Post {i}.", "split": s} for i, s in enumerate(["train", "test"])
    ]
    pairs = [{"prompt": f"Post {i}.", "responses": ["a", "b"], "split": "train"} for i in range(4)]
    posts, compared = write_rows(tmp_path / "p.jsonl", bare), write_rows(tmp_path / "c.jsonl", pairs)
    prompts = write_rows(tmp_path / "q.jsonl", [{"prompt": f"Post {i}.", "split": s} for i, s in enumerate(SPLITS)])
    unseen = write_rows(tmp_path / "u.jsonl", [pair | {"split": "validation"} for pair in pairs])
    other, both = f"task.data={posts}", (f"task.data={posts}", f"task.comparisons={compared}")
    direct = "arms.a={reward: {kind: direct, labeler: rouge}, algorithm: reinforce}"
    for settings, parts in [
        (
            ["arms.a.feedback=human"],
            ["arms.a.feedback.labeler 'human'", "but a synthetic one (which labeler 'synthetic' copies)"],
        ),
        (["arms.a.feedback=human", *both], ["arms.a.feedback.labeler 'human'", "has no human preference"]),
        ([other], ["arms.a.feedback.pairs: the task has no comparisons for training; set 'source: policy'"]),
        (["arms.a.feedback.labeler=rouge", *both], ["arms.a.feedback.labeler 'rouge'", "has a prompt without a refer"]),
        (
            [f"task.data={prompts}", "evaluate.judge=rouge", *both[1:]],
            ["evaluate.judge 'rouge'", "without a reference"],
        ),
        ([f"task.data={prompts}", direct], ["arms.a.reward 'direct'", "without a reference"]),
        (
            [f"task.comparisons={unseen}", direct, "evaluate={judge: length}"],
            ["arms.a.reward 'direct'", "without a reference"],
        ),
        (["evaluate.judge=human"], ["evaluate.judge 'human'", "has no human preference"]),
        (
            ["evaluate.judge=length", "evaluate.labelers={x: human}"],
            ["evaluate: x: labeler 'human'", "but a synthetic one"],
        ),
    ]:
        refused(rlaif(command, spec("sft=null", *settings)), *parts)
    assert files(Path()) == set()


def test_check_refuses_a_labeler_that_cannot_be_a_reward(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    llm = "{kind: llm, backend: {kind: transformers, model: m}}"
    found = rlaif("check", spec(f"arms.a={{reward: {{kind: direct, labeler: {llm}}}, algorithm: reinforce}}"))
    refused(found, "arms.a.reward.labeler: labeler 'llm' compares responses and cannot score one alone")
