"""The task `text`: prompts, references and comparisons from the columns of any data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from rlaif_framework import Comparison, Context, DataError, PluginManager, Prompt, RlaifError, Spec, Split, Turn
from rlaif_plugins.tasks.text import TextConfig
from rlaif_plugins.tasks.text.task import TextTask
from support.fake_plugins import write_rows

SPLITS: tuple[Split, ...] = get_args(Split)
ALL = {"validation_fraction": 0, "test_fraction": 0}
"""Everything is for training."""


def make_task(**settings: Any) -> TextTask:
    """The task alone: it needs nothing of the run's context but for metrics."""
    return TextTask(TextConfig.model_validate({**ALL, **settings}), None)  # type: ignore[arg-type]


def prompts(task: TextTask) -> list[Prompt]:
    return [prompt for split in SPLITS for prompt in task.prompts(split)]


def comparisons(task: TextTask) -> list[Comparison]:
    return [comparison for split in SPLITS for comparison in task.comparisons(split)]


def one_prompt(tmp_path: Path, row: dict[str, Any], **settings: Any) -> Prompt:
    (prompt,) = prompts(make_task(data=str(write_rows(tmp_path / "rows.jsonl", [row])), **settings))
    return prompt


def one_comparison(tmp_path: Path, row: dict[str, Any], **settings: Any) -> Comparison:
    task = make_task(data=str(write_rows(tmp_path / "rows.jsonl", [row])), **{"comparisons": {}, **settings})
    (comparison,) = comparisons(task)
    return comparison


def fault_of(tmp_path: Path, row: dict[str, Any], **settings: Any) -> str:
    """What reading this row as the second of a file ends with, without the place."""
    good = {"question": "Why?", "answer": "Because.", "response_a": "x", "response_b": "y", "label": "a"}
    path = write_rows(tmp_path / "rows.jsonl", [good, row])
    with pytest.raises(DataError) as raised:
        prompts(
            make_task(data=str(path), **({} if "messages" in settings else {"prompt": "{{ question }}"}) | settings)
        )
    text = str(raised.value)
    assert text.startswith(f"{path}, line 2: "), text
    return text.removeprefix(f"{path}, line 2: ").partition("\n")[0]


# Prompts

QA = {"context": "Eels are fish.\nThey swim.", "question": "What are eels?", "answer": " Fish. ", "id": 7}


def test_a_prompt_is_rendered_from_the_columns(tmp_path: Path) -> None:
    prompt = one_prompt(tmp_path, QA, prompt="{{ context }}\n\nQ: {{ question }}\nA:\n", reference="{{ answer }}")
    text = "Eels are fish.\nThey swim.\n\nQ: What are eels?\nA:"
    assert (prompt.id, prompt.text, prompt.source, prompt.reference) == ("7", text, text, "Fish.")
    assert prompt.conversation == (Turn("user", text),)


def test_an_empty_cell_is_an_empty_text_in_every_format(tmp_path: Path) -> None:
    """PandaLM's files have NaN, as pandas writes it; a CSV cell has nothing; JSON has null."""
    template = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"
    (tmp_path / "a.csv").write_text("instruction,input\nSing.,\n")
    (tmp_path / "b.json").write_text('[{"instruction": "Sing.", "input": NaN}]')
    (tmp_path / "c.jsonl").write_text('{"instruction": "Sing.", "input": null}\n')
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"instruction": ["Sing."], "input": pa.array([None], pa.string())}), tmp_path / "d.parquet")
    for name in ("a.csv", "b.json", "c.jsonl", "d.parquet"):
        (prompt,) = prompts(make_task(data=str(tmp_path / name), prompt=template))
        assert prompt.text == "Sing.", name


def test_columns_of_any_name_and_type_are_in_row(tmp_path: Path) -> None:
    row = {"Question 1": "Why?", "options": ["a", "b"], "meta": {"points": 3}, "row": "r"}
    template = "{{ row['options'] | join('/') }} {{ meta.points }}"
    assert one_prompt(tmp_path, {k: v for k, v in row.items() if k != "row"}, prompt=template).text == "a/b 3"
    assert one_prompt(tmp_path, {"Question 1": "Why?"}, prompt="{{ row['Question 1'] }}").text == "Why?"
    assert one_prompt(tmp_path, row, prompt="{{ row }}").text == "r", "a column goes before the mapping of all"


def test_texts_of_the_data_are_no_templates_and_templates_have_a_bound(tmp_path: Path) -> None:
    text = "{{ 7 * 7 }}{% for %}"
    prompt = one_prompt(tmp_path, {"prompt": text, "reference": text})
    assert (prompt.text, prompt.reference) == (text, text)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ prompt }}"
    with pytest.raises(DataError, match=r"line 1: task\.prompt, line 1: the template takes too much work"):
        one_prompt(tmp_path, {"prompt": "p"}, prompt=loop)


def test_messages_are_templates_with_roles(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "1 + 1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "{{ question }}"},
    ]
    prompt = one_prompt(tmp_path, QA, messages=messages, system="Answer about {{ context.split()[0] }}.")
    transcript = "Human: 1 + 1\n\nAssistant: 2\n\nHuman: What are eels?"
    turns = (Turn("user", "1 + 1"), Turn("assistant", "2"), Turn("user", "What are eels?"))
    assert prompt.turns == (Turn("system", "Answer about Eels."), *turns)
    assert (prompt.source, prompt.text) == (transcript, f"{transcript}\n\nAssistant:")
    single = one_prompt(tmp_path, QA, messages=messages[2:], prompt="Q: {{ question }}\nA:", source="{{ question }}")
    assert (single.text, single.source) == ("Q: What are eels?\nA:", "What are eels?")
    assert single.turns == turns[2:]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Because."},
            ],
            id="messages",
        ),
        pytest.param(
            [
                {"from": name, "value": text}
                for name, text in (("human", "Hi"), ("gpt", "Hello!"), ("human", "Why?"), ("gpt", "Because."))
            ],
            id="sharegpt",
        ),
        pytest.param("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Because.", id="transcript"),
    ],
)
def test_a_column_may_hold_a_dialogue_whose_last_answer_is_the_reference(tmp_path: Path, value: Any) -> None:
    prompt = one_prompt(tmp_path, {"talk": value}, messages="talk", system="Be brief.")
    assert prompt.text == "Human: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
    assert prompt.turns == (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?"))
    assert prompt.reference == "Because."
    assert (
        one_prompt(tmp_path, {"talk": value, "gold": "No."}, messages="talk", reference="{{ gold }}").reference == "No."
    )


def test_a_column_reference_is_the_reference_without_a_template(tmp_path: Path) -> None:
    assert one_prompt(tmp_path, {"prompt": "p", "reference": " r "}).reference == "r"
    assert one_prompt(tmp_path, {"prompt": "p", "reference": None}).reference is None


def test_a_listed_column_that_a_row_does_not_have_is_an_error(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, QA, columns=["response_a"])
    assert fault == "no column 'response_a', which task.columns lists; the row has context, question, answer, id"


def test_repeated_rows_count_once_and_are_counted(tmp_path: Path) -> None:
    rows = [{"q": "a", "r": "1"}, {"q": "a", "r": "1"}, {"q": "a", "r": "2"}, {"q": "b", "r": "1"}]
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)), prompt="{{ q }}", reference="{{ r }}")
    assert [(p.text, p.reference) for p in prompts(task)] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert len({p.id for p in prompts(task)}) == 3
    assert task.data_notes() == ["1 rows repeat the prompt and the reference of another one"]


def test_the_split_may_be_a_column_of_another_name(tmp_path: Path) -> None:
    rows = [{"q": f"{name} {i}", "part": name} for name in ("train", "dev", "test") for i in range(2)]
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)), prompt="{{ q }}", fields={"split": "part"})
    assert [len(task.prompts(split)) for split in SPLITS] == [2, 2, 2]


def test_rows_without_a_split_are_divided_by_shares(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"q": f"Question {i}"} for i in range(300)])
    task = make_task(data=str(path), prompt="{{ q }}", validation_fraction=0.2, test_fraction=0.3)
    assert [len(task.prompts(split)) for split in SPLITS] == [pytest.approx(n, abs=30) for n in (150, 60, 90)]


# Comparisons


def test_every_form_of_pairs_is_read_from_the_rows_of_the_data(tmp_path: Path) -> None:
    rows = [
        {"question": "1?", "answer": "r1", "chosen": "good", "rejected": "bad"},
        {"question": "2?", "answer": "r2", "response_a": "good", "response_b": "bad", "label": "a"},
        {"question": "3?", "answer": "r3", "responses": ["bad", "good"], "human": 0.25},
        {"question": "4?", "answer": "r4", "answers": [{"text": "good", "rank": 1}, {"text": "bad", "rank": 2}]},
        {"question": "5?", "answer": "r5"},
    ]
    task = make_task(
        data=str(write_rows(tmp_path / "a.jsonl", rows)),
        prompt="{{ question }}",
        reference="{{ answer }}",
        comparisons={},
    )
    assert [p.text for p in prompts(task)] == ["1?", "2?", "3?", "4?", "5?"]
    found = comparisons(task)
    assert [(c.prompt.text, c.prompt.reference) for c in found] == [(f"{i}?", f"r{i}") for i in range(1, 5)]
    for comparison in found:
        assert comparison.responses[0 if (comparison.preference or 0) > 0.5 else 1] == "good"
        assert comparison.preference_source == "human"


def test_the_choices_of_several_raters_are_averaged(tmp_path: Path) -> None:
    """PandaLM's columns: 1 and 2 name the better response, 0 is a tie."""
    row = {"idx": 3, "instruction": "Sing.", "input": float("nan"), "response1": "la", "response2": "no"}
    settings: dict[str, Any] = {
        "prompt": "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}",
        "comparisons": {
            "fields": {"id": "idx", "response_a": "response1", "response_b": "response2"},
            "preference": ["annotator1", "annotator2", "annotator3"],
            "values": {1: "first", 2: "second", 0: "tie"},
        },
    }
    for votes, expected in [
        ((1, 1, 1), 1.0),
        ((2, 2, 2), 0.0),
        ((1, 2, 0), 0.5),
        ((1, 1, None), 1.0),
        ((1, 0, 0), 2 / 3),
    ]:
        rated = row | {f"annotator{i}": vote for i, vote in enumerate(votes, 1)}
        found = one_comparison(tmp_path, rated, **settings)
        assert (found.id, found.responses) == ("3", ("la", "no"))
        assert found.preference == pytest.approx(expected)
    none = row | dict.fromkeys(("annotator1", "annotator2", "annotator3"))
    assert one_comparison(tmp_path, none, **settings).preference is None


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        (1, {1: "first"}, 1.0),
        (1.0, {1: "second"}, 0.0),
        ("1", {1: 0.8}, 0.8),
        (True, {True: "first", False: "second"}, 1.0),
        ("model_x", {"model_x": "tie"}, 0.5),
        ("a", {}, 1.0),
        ("tie", {}, 0.5),
        ("0.75", {}, 0.75),
        (0, {}, 0.0),
    ],
)
def test_what_a_value_means_is_the_same_in_all_formats(
    tmp_path: Path, value: Any, values: dict[Any, Any], expected: float
) -> None:
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "vote": value}
    found = one_comparison(tmp_path, row, comparisons={"preference": "vote", "values": values})
    assert found.preference == expected


def test_responses_may_be_numbers(tmp_path: Path) -> None:
    settings = {"fields": {"chosen": "right", "rejected": "wrong"}}
    row = {"q": "1 + 1", "right": 2, "wrong": 3.0}
    assert sorted(one_comparison(tmp_path, row, prompt="{{ q }}", comparisons=settings).responses) == ["2", "3"]
    row = {"q": "1 < 2?", "right": True, "wrong": False}
    assert sorted(one_comparison(tmp_path, row, prompt="{{ q }}", comparisons=settings).responses) == ["False", "True"]


def test_comparisons_of_their_own_get_the_references_of_their_prompts(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "a.jsonl", [{"id": "p", "q": "Why?", "r": "Because."}, {"id": "s", "q": "How?", "r": "So."}]
    )
    pairs = write_rows(tmp_path / "b.jsonl", [{"query": "Why?", "chosen": "x", "rejected": "y"}])
    settings = {"data": str(pairs), "fields": {"q": "query"}, "gold_source": "synthetic"}
    task = make_task(data=str(data), prompt="{{ q }}", reference="{{ r }}", comparisons=settings)
    (found,) = comparisons(task)
    assert (found.prompt, found.preference_source) == (prompts(task)[0], "synthetic")


@pytest.mark.parametrize("place", ["path", "mapping"])
def test_comparisons_alone_give_the_prompts_and_may_be_a_path(tmp_path: Path, place: str) -> None:
    rows = [{"prompt": "Why?", "chosen": "x", "rejected": "y"}, {"prompt": "Why?", "chosen": "z", "rejected": "y"}]
    path = str(write_rows(tmp_path / "b.jsonl", rows))
    task = make_task(comparisons=path if place == "path" else {"train": path})
    assert [(p.text, p.reference) for p in prompts(task)] == [("Why?", "x")]
    assert len(comparisons(task)) == 2


def test_dialogues_with_two_answers_are_comparisons(tmp_path: Path) -> None:
    head = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
    path = write_rows(tmp_path / "hh.jsonl", [{"chosen": f"{head} Because.", "rejected": f"{head} No."}])
    (comparison,) = comparisons(make_task(comparisons=str(path), messages="prompt"))
    assert comparison.prompt.turns == (("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?"))
    own = {"talk": [{"role": "user", "content": "Why?"}], "chosen": "x", "rejected": "y"}
    found = one_comparison(tmp_path, own, messages="talk")
    assert found.prompt.text == "Human: Why?\n\nAssistant:"
    (note,) = make_task(comparisons=str(path)).data_notes()
    assert "1 prompts are dialogues; set task.messages to the column" in note


# Truncation


def shorten(task: TextTask, prompt: Prompt, room: int) -> Prompt:
    return task.truncate(prompt, lambda shorter: len(shorter.text) <= room)


def test_the_longest_column_is_cut_and_everything_else_stays(tmp_path: Path) -> None:
    row = {"context": "One two three.\nFour five six.", "question": "What is two?", "note": "x" * 500}
    path = str(write_rows(tmp_path / "a.jsonl", [row]))
    for settings in ({}, {"truncate": "context"}):
        task = make_task(data=path, prompt="Text: {{ context }}\n\nQ: {{ question }}\nA:", **settings)
        (prompt,) = prompts(task)
        short = shorten(task, prompt, 45)
        assert short.text == short.source == "Text: One two three.\n\nQ: What is two?\nA:"
        assert shorten(task, short, 32).text == "Text: One\n\nQ: What is two?\nA:"
        assert (short.id, task.truncate(prompt, lambda prompt: True)) == (prompt.id, prompt)
        with pytest.raises(DataError, match=r"not even one word of the text fits; raise policy\.max_prompt_tokens"):
            shorten(task, prompt, 10)
    question = make_task(data=path, prompt="{{ context }}\n{{ question }}", truncate="question")
    assert shorten(question, prompts(question)[0], 40).text == "One two three.\nFour five six.\nWhat is"


def test_what_is_cut_is_cut_in_messages_and_source_too(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Sum up {{ text }} in a word."}]
    path = str(write_rows(tmp_path / "a.jsonl", [{"text": "One two three."}]))
    task = make_task(
        data=path, messages=messages, prompt="{{ text }} TL;DR:", source="({{ text }})", system="Be brief."
    )
    short = shorten(task, prompts(task)[0], 14)
    assert (short.text, short.source) == ("One two TL;DR:", "(One two)")
    assert short.turns == (Turn("system", "Be brief."), Turn("user", "Sum up One two in a word."))


def test_a_truncated_prompt_can_be_saved_and_truncated_again(tmp_path: Path) -> None:
    """Pairs are saved with their prompts, which annotators may truncate further."""
    from rlaif_framework.records.rows import load_comparisons, save_comparisons

    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", [QA])), prompt="{{ context }} {{ question }}")
    save_comparisons(tmp_path / "c.jsonl", [Comparison("c", shorten(task, prompts(task)[0], 30), ("x", "y"))])
    (loaded,) = load_comparisons(tmp_path / "c.jsonl")
    assert loaded.prompt.text == "Eels are fish. What are eels?"
    assert shorten(task, loaded.prompt, 20).text == "Eels What are eels?"


def test_a_changed_column_is_truncated_as_the_source_or_not_at_all(tmp_path: Path) -> None:
    row = {"sentences": ["One two.", "Three four."]}
    template = "{{ sentences | join(' ') }}"
    path = str(write_rows(tmp_path / "a.jsonl", [row]))
    task = make_task(data=path, prompt=f"T: {template}\nS:", source=template)
    assert shorten(task, prompts(task)[0], 20).text == "T: One two. Three\nS:"
    task = make_task(data=path, prompt=f"T: {template}\nS:")
    with pytest.raises(DataError, match="has no column unchanged that could be truncated"):
        shorten(task, prompts(task)[0], 20)


def test_a_dialogue_loses_its_oldest_turns_and_keeps_its_system_prompt(tmp_path: Path) -> None:
    talk = "Human: Hi\n\nAssistant: Hello!\n\nHuman: Tell me about eels."
    path = str(write_rows(tmp_path / "a.jsonl", [{"talk": talk}]))
    task = make_task(data=path, messages="talk", system="Be brief.")
    short = shorten(task, prompts(task)[0], 50)
    assert short.turns == (Turn("system", "Be brief."), Turn("user", "Tell me about eels."))
    assert task.clean(" Eels.\n\nHuman: More!") == "Eels."
    assert make_task(data=path, prompt="{{ talk }}").clean(" a\n\nHuman: b ") == "a\n\nHuman: b"


# Annotator prompts and metrics


def test_annotator_prompts_are_general_and_can_be_written_in_the_spec() -> None:
    words = make_task().annotator_prompts()
    assert (words.prefer, set(words.preambles), len(words.exemplars)) == ("better", {"base", "detailed"}, 8)
    own = make_task(
        annotator_prompts={
            "prefer": "worse",
            "label": "Output 1 or 2 to say which is more rude.",
            "ending": "Ruder=",
            "rate": {"preamble": "Rate politeness."},
            "exemplars": [{"id": "a", "source": "s", "responses": ["x", "y"], "preferred": 2, "rationale": "r"}],
        }
    ).annotator_prompts()
    assert (own.prefer, own.ending, own.rate.preamble, own.rate.ending) == (
        "worse",
        "Ruder=",
        "Rate politeness.",
        "SCORE:",
    )
    assert own.rate.sample == words.rate.sample
    assert own.preambles == words.preambles
    annotation = own.annotate(Prompt("1", "p", "p"), ("x\nResponse 2 - fake", "y")).ask_label()
    assert annotation.text.endswith("Prompt - p\nResponse 1 - x Response 2 - fake\nResponse 2 - y")


def test_metrics_are_named_in_the_spec(manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"q": "1 + 1", "a": "2"}])
    settings = {"kind": "text", "data": str(path), "prompt": "{{ q }}", "reference": "{{ a }}", **ALL}
    task = Context.from_spec(tiny_spec(task={**settings, "metrics": ["words"]}), manager).task
    (prompt,) = task.prompts("train")
    assert task.measure(prompt, "It is 2") == {"words": 3.0}
    default = Context.from_spec(tiny_spec(task=settings), manager).task
    assert set(default.measure(prompt, "2")) == {"words", "copy_rate", "rouge1", "rouge2", "rougeL"}


# Mistakes


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        (
            {"qestion": "x"},
            {},
            "task.prompt, line 1: 'question' is undefined; did you mean 'qestion'? The row has qestion",
        ),
        ({"a": "x"}, {}, "task.prompt, line 1: 'question' is undefined; the row has a"),
        ({"question": " "}, {}, "the prompt is empty; see task.prompt"),
        (
            {"question": "x", "answer": None},
            {"reference": "{{ answer }}"},
            "the reference is empty; see task.reference",
        ),
        (
            {"question": "x"},
            {"reference": "{{ answer }}"},
            "task.reference, line 1: 'answer' is undefined; the row has",
        ),
        ({"question": "x"}, {"source": "{{ answer }}"}, "task.source, line 1: 'answer' is undefined"),
        ({"question": 3}, {"prompt": "{{ question + 'x' }}"}, "task.prompt, line 1: unsupported operand"),
        ({"question": "x", "id": {}}, {}, "'id' is {}, not a string or an integer"),
        ({"question": "x", "split": "holdout"}, {}, "unknown split 'holdout'; known splits: train, "),
        (
            {"question": [{"role": "user", "content": "x"}]},
            {},
            "'question' is a list of messages; set task.messages: question",
        ),
        ({"question": [{"role": "user"}]}, {"messages": "question"}, "'question' has a message without text"),
        ({"question": 3}, {"messages": "question"}, "'question' is 3, not a dialogue"),
        ({"a": "x"}, {"messages": "question"}, "'question' is missing or empty"),
        ({"question": "Assistant: x"}, {"messages": "question"}, "'prompt' is empty"),
        (
            {"question": "x", "response_a": "x", "response_b": "y", "label": "c"},
            {"comparisons": {}},
            "'label' is 'c', not 'a', 'b' or 'tie'",
        ),
        (
            {"question": "x", "response_a": "x", "response_b": None, "label": "a"},
            {"comparisons": {}},
            "'response_b' is missing",
        ),
        (
            {"question": "x", "response_a": "x", "response_b": "x", "label": "a"},
            {"comparisons": {}},
            "the two responses are identical",
        ),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    assert expected in fault_of(tmp_path, row, **settings)


VOTES = {"preference": "vote", "values": {1: "first", 2: "second"}}


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        ({"vote": 3}, VOTES, "'vote' is 3, which is none of 1, 2; name its meaning in task.comparisons.values"),
        (
            {"vote": "x"},
            {"preference": "vote"},
            "'vote' is 'x', which is none of a, b, tie and no number between 0 and 1",
        ),
        ({"v": 1}, VOTES, "the row has no column 'vote', which task.comparisons.preference names; it has prompt, "),
        ({"vote": 1, "human": 1.0}, VOTES, "the row states its preference twice, by task.comparisons.preference"),
    ],
)
def test_a_wrong_preference_is_named_by_file_and_line(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    pair = {"prompt": "p", "response_a": "x", "response_b": "y"}
    path = write_rows(tmp_path / "rows.jsonl", [pair | row])
    with pytest.raises(DataError) as raised:
        comparisons(make_task(data=str(path), comparisons=settings))
    assert str(raised.value).startswith(f"{path}, line 1: {expected}")


def test_a_fault_is_reported_once_although_rows_are_read_twice(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "x", "rejected": "y"}, {"question": "q", "chosen": "x", "rejected": "y"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(DataError) as raised:
        prompts(make_task(data=str(path), comparisons={}))
    assert [line.strip().partition(": ")[0] for line in str(raised.value).splitlines()[:2]] == [
        f"{path}, line 2",
        f"{path}, line 3",
    ]
    assert "likewise" not in str(raised.value)
    task = make_task(data=str(path), comparisons={}, skip_invalid=True)
    assert (len(prompts(task)), len(comparisons(task))) == (1, 1)
    assert task.data_notes() == ["skipped 2 invalid rows of 3"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "task.data is missing: set it to a file or folder with prompts"),
        ({"data": "DATA", "comparisons": {}}, "has two responses; expected prompt + responses"),
        ({"data": "DATA", "prompt": "Write a poem."}, "task.prompt: it uses no column, such as {{ question }}"),
        ({"data": "DATA", "truncate": "x"}, "task.truncate: the row has no column 'x'; it has q, prompt"),
        ({"data": "DATA", "fields": {"id": "number"}}, "has the column 'number', mapped to 'id'; known: prompt, q."),
        ({"data": "DATA", "prompt": "{{ q.__class__ }}"}, "cannot use '__class__'"),
        (
            {"data": "DATA", "messages": [{"role": "assistant", "content": "{{ q }}"}]},
            "task.messages: the last message must be the user's",
        ),
        (
            {"data": "DATA", "annotator_prompts": {"labl": "x"}},
            "task.annotator_prompts: labl: unknown key; did you mean",
        ),
        (
            {"data": "DATA", "annotator_prompts": {"sample": "{{ source }}"}},
            "task.annotator_prompts: sample: it does not use {{ first }}, {{ second }}",
        ),
        (
            {"data": "DATA", "truncate": "q", "prompt": "{{ q | upper }}"},
            "task.prompt changes the column 'q'; prompts must",
        ),
    ],
)
def test_wrong_settings_have_one_message(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    path = str(write_rows(tmp_path / "rows.jsonl", [{"q": "a question", "prompt": "p"}]))
    with pytest.raises(RlaifError) as raised:
        prompts(make_task(**{name: path if value == "DATA" else value for name, value in settings.items()}))
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": "x.jsonl", "columns": ["id"]}, "columns: functions get 'id' anyway; remove it"),
        ({"data": "x.jsonl", "prompt": "a\n{{ q }"}, "line 2: unexpected '}'"),
        ({"data": "x.jsonl", "reference": "{% if %}"}, "line 1: Expected an expression"),
        ({"data": "x.jsonl", "messages": [{"role": "user", "content": "{{ q"}]}, "line 1: unexpected end of template"),
        ({"comparisons": {}}, "name the data set, in 'data' or in 'comparisons.data'"),
        ({"data": "x.jsonl", "comparisons": {"values": {1: "first"}}}, "name the column of these values"),
        ({"data": "x.jsonl", "comparisons": {"preference": "v", "values": {1: "best"}}}, "'first', 'second' or 'tie'"),
        (
            {"data": "x.jsonl", "messages": "talk", "prompt": "{{ q }}"},
            "prompt: a dialogue in a column needs no prompt",
        ),
        ({"data": "x.jsonl", "messages": [{"role": "bot", "content": "x"}]}, "'system', 'user' or 'assistant'"),
        ({"data": "x.jsonl", "promt": "x"}, "did you mean 'prompt'?"),
        ({"data": "x.jsonl", "validation_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TextConfig.model_validate({**ALL, **settings})
    assert expected in str(raised.value)


def test_check_finds_a_wrong_column_and_an_empty_split(
    rlaif: Callable[..., tuple[int, str, str]], tiny_model: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"question": f"{i}?", "answer": "x"} for i in range(5)])
    spec: dict[str, Any] = {
        "task": {"kind": "text", "data": "rows.jsonl", "prompt": "{{ qestion }}", "reference": "{{ answer }}", **ALL},
        "policy": {"model": str(tiny_model)},
        "evaluate": {"judge": "rouge"},
        "arms": {"a": {"reward": "length", "algorithm": "reinforce"}},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    code, _, err = rlaif("check", tmp_path / "spec.json")
    assert code == 2
    text = " ".join(err.split())
    assert "rows.jsonl, line 1: task.prompt, line 1: 'qestion' is undefined; did you mean 'question'?" in text
    assert "likewise line 2" in text
    code, _, err = rlaif("check", tmp_path / "spec.json", "--set", "task.prompt='{{ question }'")
    assert code == 2
    assert "task.prompt: line 1: unexpected '}'" in " ".join(err.split())
    code, _, err = rlaif("check", tmp_path / "spec.json", "--set", "task.prompt='{{ question }}'")
    assert code == 2
    assert "test" in err


@pytest.mark.parametrize("seed", ["0", "3"])
def test_of_two_columns_of_equal_length_the_first_may_be_cut_in_every_process(seed: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"one": "Find the adjective.", "two": "The tall man waved."}])
    code = (
        "from rlaif_plugins.tasks.text import TextConfig; from rlaif_plugins.tasks.text.task import TextTask; "
        f"config = TextConfig(data={str(path)!r}, prompt='{{{{ one }}}} {{{{ two }}}}', validation_fraction=0, "
        "test_fraction=0); print(TextTask(config, None).prompts('train')[0].truncatable)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "(0, 19)"


def test_several_pairs_with_the_id_of_their_prompt_do_not_count_as_repeated(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "prompt": "q", "response_a": first, "response_b": "no", "label": label}
        for first, label in (("yes", "a"), ("yes", "b"), ("perhaps", "a"))
    ]
    task = make_task(data=str(write_rows(tmp_path / "a.jsonl", rows)), prompt="{{ prompt }}", comparisons={})
    assert len({pair.id for pair in task.comparisons("train")}) == 3
    assert any(note.startswith("1 comparisons repeat") for note in task.data_notes())
