"""The splits of the tasks `tldr`, `text` and `dialogue`: no text of validation or test is in train, in any source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from rlaif_framework import Split
from rlaif_plugins.tasks.data_task import DataTask
from rlaif_plugins.tasks.dialogue import DialogueConfig
from rlaif_plugins.tasks.dialogue.task import DialogueTask
from rlaif_plugins.tasks.text import TextConfig
from rlaif_plugins.tasks.text.task import TextTask
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.task import TldrTask
from support.fake_plugins import write_rows

SPLITS: tuple[Split, ...] = get_args(Split)
SYSTEMS = (None, "Be brief.", "Be kind.")
TASKS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "tldr": (TldrTask, TldrConfig, {}),
    "text": (TextTask, TextConfig, {}),
    "messages": (TextTask, TextConfig, {"messages": "prompt"}),
    "dialogue": (DialogueTask, DialogueConfig, {}),
}
NAMED = {"train": range(50), "validation": range(40, 60), "test": range(55, 70)}
"""The numbers of the questions of each split, of which 15 are in two."""


def make(name: str, data: Any, comparisons: Any = None) -> DataTask:
    """The task alone: it needs nothing of the run's context."""
    task, config, settings = TASKS[name]
    more = {} if comparisons is None else {"comparisons": comparisons if name == "tldr" else {"data": comparisons}}
    # The default metrics are components, for which all plugins would be loaded.
    made: DataTask = task(config.model_validate({**settings, "data": data, "metrics": [], **more}), None)
    return made


def row(task: str, number: int, variant: int) -> dict[str, Any]:
    """A question with a pair: the same one has another id, white space and system prompt in each variant."""
    space = " " * (variant + 1)
    question, pair = f"What{space}is {number}?", {"chosen": f"It is {number}.", "rejected": f"No{variant}."}
    if task == "tldr":
        return {"post": question, "summary": "S.", **pair}
    system = SYSTEMS[variant]
    turns = [{"role": "system", "content": system}] if system else []
    messages = [*turns, {"role": "user", "content": question}]
    if task == "text":  # transcripts, which its templates take as texts
        text = f"System: {system}\n\nHuman: {question}\n\nAssistant:" if system else question
        return {"prompt": text, **pair}
    return {"prompt": messages, **pair}


def parts_of(task: str) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [row(task, number, variant) for number in numbers]
        for variant, (split, numbers) in enumerate(NAMED.items())
    }


def place(source: str, folder: Path, parts: dict[str, list[dict[str, Any]]], hub: dict[str, Any]) -> Any:
    """Write the rows as this kind of source, and return what a spec has for it."""
    together = [own for rows in parts.values() for own in rows]
    folder.mkdir()
    match source:
        case "file":
            return str(write_rows(folder / "rows.jsonl", together))
        case "column":
            rows = [{**own, "split": split} for split, rows in parts.items() for own in rows]
            return str(write_rows(folder / "rows.jsonl", rows))
        case "mapping":
            return {split: str(write_rows(folder / f"rows-{split}.jsonl", rows)) for split, rows in parts.items()}
        case "folder":
            for split, rows in parts.items():
                (folder / f"{split}.json").write_text(json.dumps(rows))
            return str(folder)
    hub[f"some/{folder.name}"] = parts
    return f"some/{folder.name}"


def split_texts(task: DataTask, split: Split) -> set[str]:
    """The questions of a split."""
    prompts = [*task.prompts(split), *(pair.prompt for pair in task.comparisons(split))]
    return {" ".join(prompt.source.split()).partition("What ")[2].removesuffix(" Assistant:") for prompt in prompts}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    import datasets

    found: dict[str, Any] = {}

    def load(name: str, split: str | None = None) -> Any:
        parts = {part: datasets.Dataset.from_list(rows) for part, rows in found[name].items()}
        return parts if split is None else parts[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    return found


@pytest.mark.parametrize("data", ["file", "column", "mapping", "folder", "hub"])
@pytest.mark.parametrize(
    ("task", "comparisons"),
    [
        ("dialogue", None),
        *((task, pairs) for task in ("tldr", "text", "messages") for pairs in (None, "file", "folder")),
    ],
)
def test_no_text_is_in_two_splits(
    hub: dict[str, Any], tmp_path: Path, task: str, data: str, comparisons: str | None
) -> None:
    parts = parts_of(task)
    pairs = None if comparisons is None else place(comparisons, tmp_path / "pairs", parts, hub)
    made = make(task, place(data, tmp_path / "rows", parts, hub), pairs)
    texts = {split: split_texts(made, split) for split in SPLITS}
    assert set.union(*texts.values()) == {f"is {number}?" for number in range(70)}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]
    if data != "file":
        what = "comparisons" if task == "dialogue" else "prompts"
        assert made.data_notes()[:2] == [
            f"dropped 10 of 50 {what} of split 'train', because their text is also in 'validation'",
            f"dropped 5 of 20 {what} of split 'validation', because their text is also in 'test'",
        ]


@pytest.mark.parametrize("data", ["column", "mapping", "folder", "hub"])
@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_split_that_the_data_does_not_name_is_taken_from_train(
    hub: dict[str, Any], tmp_path: Path, missing: Split, data: str
) -> None:
    """Such as the data of Anthropic's HH: without a validation split, no labeler could be measured."""
    parts = {split: rows for split, rows in parts_of("dialogue").items() if split != missing}
    task = make("dialogue", place(data, tmp_path / "rows", parts, hub))
    counts = {split: len(task.comparisons(split)) for split in SPLITS}
    given = {split: len(set(numbers)) for split, numbers in NAMED.items() if split != missing}
    held_out: Split = "test" if missing == "validation" else "validation"
    dropped = 10 if missing == "test" else 0
    taken = counts[missing]
    assert 0 < taken < 15
    assert counts[held_out] == given[held_out]
    assert counts["train"] == 50 - dropped - taken
    assert task.data_notes()[-1] == (
        f"took {taken} of 50 comparisons of split 'train' as '{missing}', which the data does not name; see "
        f"task.{missing}_fraction"
    )


def test_data_that_names_train_only_stays_whole(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", parts_of("dialogue")["train"])
    task = make("dialogue", {"train": str(rows)})
    assert [len(task.comparisons(split)) for split in SPLITS] == [50, 0, 0]
    assert task.data_notes() == []
