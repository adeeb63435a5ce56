"""The dialogue task: HH transcripts as prompts and comparisons, and the harmlessness prompt that asks for the worse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Context, DataError, PluginManager, Spec

CONTEXT = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Tell me about eels."


@pytest.fixture
def make(manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path) -> Callable[..., Any]:
    def build(rows: list[dict[str, Any]], **config: Any) -> Any:
        path = tmp_path / "pairs.jsonl.gz"
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        settings = {"kind": "dialogue", "data": {"train": str(path)}, **config}
        return Context.from_spec(tiny_spec(task=settings), manager).task

    return build


def transcripts(number: int) -> dict[str, Any]:
    start = f"{CONTEXT} Number {number}.\n\nAssistant:"
    return {"chosen": f"{start} Eels are fish {number}.", "rejected": f"{start} No."}


def test_transcripts_are_split_at_the_last_turn_and_the_better_is_not_always_first(make: Callable[..., Any]) -> None:
    task = make([transcripts(n) for n in range(20)])
    found = task.comparisons("train")
    assert len(found) == 20
    for comparison in found:
        assert comparison.prompt.text.endswith("\n\nAssistant:")
        assert comparison.prompt.source.startswith("Human: Hi")
        better = comparison.responses[0 if comparison.preference == 1.0 else 1]
        assert better.startswith("Eels are fish")
        assert comparison.preference_source == "human"
    assert {c.preference for c in found} == {0.0, 1.0}
    assert [p.reference for p in task.prompts("train")] == [f"Eels are fish {n}." for n in range(20)]


def test_a_bare_question_becomes_the_first_turn(make: Callable[..., Any]) -> None:
    task = make([{"prompt": "Why?", "responses": ["Because.", "No idea."], "human": 0.75}])
    (comparison,) = task.comparisons("train")
    assert comparison.prompt.text == "Human: Why?\n\nAssistant:"
    assert comparison.preference == 0.75


def test_the_harmlessness_prompt_asks_for_the_worse_and_says_so(make: Callable[..., Any]) -> None:
    helpful, harmless = (make([transcripts(1)], quality=q).annotator_prompts() for q in ("helpful", "harmless"))
    assert (helpful.prefer, harmless.prefer) == ("better", "worse")
    for words, ending in ((helpful, "Preferred Response="), (harmless, "More harmful Response=")):
        assert len(words.exemplars) == 8
        assert {e.preferred for e in words.exemplars} == {1, 2}
        assert {"base", "detailed"} <= set(words.preambles)
        question = words.annotate(make([transcripts(1)]).prompts("train")[0], ("a\n\nResponse 2 - b", "c")).ask_label()
        assert question.prefill == ending
        assert question.text.endswith("Response 1 - a Response 2 - b\nResponse 2 - c")


def test_long_dialogues_lose_their_oldest_turns_first(make: Callable[..., Any]) -> None:
    task = make([transcripts(1)])
    (prompt,) = task.prompts("train")
    short = task.truncate(prompt, lambda shorter: len(shorter.text) <= 60)
    assert short.text == "Human: Tell me about eels. Number 1.\n\nAssistant:"
    shorter = task.truncate(prompt, lambda shorter: len(shorter.text) <= 25)
    assert shorter.text == "Number 1.\n\nAssistant:"
    with pytest.raises(DataError, match="not even one word of the dialogue fits"):
        task.truncate(prompt, lambda text: False)


def test_a_response_ends_where_another_turn_begins(make: Callable[..., Any]) -> None:
    assert make([transcripts(1)]).clean(" Eels.\n\nHuman: More!\n\nAssistant: No.") == "Eels."


def test_bad_rows_are_named_by_file_and_line(make: Callable[..., Any]) -> None:
    task = make([transcripts(1), {"chosen": "x", "rejected": "y"}])
    with pytest.raises(DataError, match=r"pairs\.jsonl\.gz, line 2: 'prompt' is missing"):
        task.comparisons("train")


def test_all_bad_rows_are_named_at_once_and_left_out_where_asked_for(make: Callable[..., Any]) -> None:
    empty = {"chosen": f"{CONTEXT}\n\nAssistant: ", "rejected": f"{CONTEXT}\n\nAssistant: No."}
    other = {"chosen": f"{CONTEXT}\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hm\n\nAssistant: No."}
    rows = [transcripts(1), empty, other, transcripts(2)]
    with pytest.raises(DataError) as raised:
        make(rows).comparisons("train")
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert "line 2: a response is empty" in lines[0]
    assert "line 3: 'chosen' and 'rejected' differ before their last" in lines[1]
    assert "task.skip_invalid: true" in lines[2]
    assert len(make(rows, skip_invalid=True).comparisons("train")) == 2
    with pytest.raises(DataError, match="line 1: a response is empty"):
        make([empty], skip_invalid=True).comparisons("train")


def test_a_chat_policy_is_given_the_turns(make: Callable[..., Any]) -> None:
    (prompt,) = make([transcripts(1)]).prompts("train")
    last = ("user", "Tell me about eels. Number 1.")
    assert prompt.turns == (("user", "Hi"), ("assistant", "Hello!"), last)
    (with_system,) = make([transcripts(1)], system="Be brief.").prompts("train")
    assert with_system.turns == (("system", "Be brief."), *prompt.turns)
    task = make([transcripts(1)], system="Be brief.")
    short = task.truncate(with_system, lambda shorter: len(shorter.text) <= 60)
    assert short.turns == (("system", "Be brief."), last)
    (bare,) = make([{"prompt": "Why?", "responses": ["Because.", "No idea."]}]).prompts("train")
    assert bare.turns == (("user", "Why?"),)


def test_lists_of_messages_are_read_as_dialogues(make: Callable[..., Any]) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    question = {"role": "user", "content": "Why?"}
    row = {"prompt": [*turns, question], "chosen": [turns[1]], "rejected": [{"role": "assistant", "content": "No."}]}
    (prompt,) = make([row]).prompts("train")
    assert prompt.text == "Human: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
    assert prompt.reference == "Hello!"


def test_a_cue_with_white_space_stands_once_in_the_prompt(make: Callable[..., Any]) -> None:
    rows = [
        {"prompt": text, "responses": ["a", f"b{i}"]}
        for i, text in enumerate(("\n\nHuman: Why?\n\nAssistant: ", "Human: Why?\n\nAssistant:\n", "Why?"))
    ]
    assert [p.text for p in make(rows).prompts("train")] == ["Human: Why?\n\nAssistant:"]


def test_columns_with_other_names_are_mapped(make: Callable[..., Any]) -> None:
    rows = [{"question": "Why?", "chosen": "Because.", "rejected": "No."}]
    with pytest.raises(DataError, match=r"did you mean task\.fields: \{prompt: question\}\?"):
        make(rows).comparisons("train")
    (prompt,) = make(rows, fields={"prompt": "question"}).prompts("train")
    assert prompt.text == "Human: Why?\n\nAssistant:"


def test_the_same_pair_twice_has_two_ids(make: Callable[..., Any]) -> None:
    rows = [{"prompt": "Why?", "chosen": c, "rejected": r} for c, r in (("a", "b"), ("b", "a"))]
    task = make(rows)
    assert len({c.id for c in task.comparisons("train")}) == 2
    assert "1 comparisons repeat the prompt and responses of an earlier one" in task.data_notes()[0]


@pytest.mark.parametrize("form", ["transcripts", "messages", "question"])
def test_splits_share_no_dialogue_in_whatever_form(make: Callable[..., Any], tmp_path: Path, form: str) -> None:
    """The same question as a transcript, as messages and as text is one prompt."""

    def row(number: int, form: str) -> dict[str, Any]:
        question = f"What is {number}?"
        if form == "transcripts":
            head = f"\n\nHuman: {question}\n\nAssistant:"
            return {"chosen": f"{head} x {form}", "rejected": f"{head} y"}
        if form == "messages":
            user = {"role": "user", "content": question}
            pair = {name: [user, {"role": "assistant", "content": f"{name} {form}"}] for name in ("chosen", "rejected")}
            return {**pair}
        return {"prompt": question, "chosen": f"x {form}", "rejected": "y"}

    held_out = tmp_path / "held.jsonl"
    held_out.write_text("".join(json.dumps(row(i, "transcripts")) + "\n" for i in range(5)))
    rows = tmp_path / "train.jsonl"
    rows.write_text("".join(json.dumps(row(i, form)) + "\n" for i in range(20)))
    task = make([], data={"train": str(rows), "test": str(held_out)}, validation_fraction=0)
    texts = [{p.text for p in task.prompts(split)} for split in ("train", "test")]
    assert [len(found) for found in texts] == [15, 5]
    assert not texts[0] & texts[1]
    (note,) = [note for note in task.data_notes() if note.startswith("dropped")]
    assert note == "dropped 5 of 20 comparisons of split 'train', because their text is also in 'test'"


def test_a_folder_with_train_only_is_divided(make: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(transcripts(n)) + "\n" for n in range(60)))
    task = make([], data=str(folder))
    assert all(task.prompts(split) for split in ("train", "validation", "test"))


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_dialogue_that_is_cut_keeps_its_own_system_prompt(make: Callable[..., Any], system: str | None) -> None:
    start = f"System: Be kind.{CONTEXT} Number 1.\n\nAssistant:"
    task = make([{"chosen": f"{start} Eels.", "rejected": f"{start} No."}], system=system)
    (prompt,) = task.prompts("train")
    own, last = ("system", "Be kind."), ("user", "Tell me about eels. Number 1.")
    assert prompt.turns[0] == own
    short = task.truncate(prompt, lambda shorter: len(shorter.text) <= 80)
    assert short.turns == (own, last)
    assert short.text == "System: Be kind.\n\nHuman: Tell me about eels. Number 1.\n\nAssistant:"
    assert task.truncate(prompt, lambda shorter: len(shorter.text) <= 50).turns[0] == own


def test_the_reference_of_a_prompt_is_from_its_first_pair_with_a_preference(make: Callable[..., Any]) -> None:
    rows = [
        {"prompt": "Why?", "responses": ["Maybe.", "Perhaps."], "human": 0.5},
        {"prompt": "Why?", "responses": ["Because.", "No idea."], "human": 1.0},
        {"prompt": "Why?", "responses": ["So.", "Thus."], "human": 0.0},
    ]
    assert [prompt.reference for prompt in make(rows).prompts("train")] == ["Because."]
