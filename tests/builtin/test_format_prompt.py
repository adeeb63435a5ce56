"""Tasks make the prompt of a text that a user types as they make those of their data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import DataError, Prompt, Turn
from rlaif_framework.data import RowFault
from rlaif_plugins.tasks.dialogue import DialogueConfig
from rlaif_plugins.tasks.dialogue.task import DialogueTask
from rlaif_plugins.tasks.text import TextConfig
from rlaif_plugins.tasks.text.task import TextTask
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.task import TldrTask


def make_text(**settings: Any) -> TextTask:
    return TextTask(TextConfig.model_validate(settings), None)  # type: ignore[arg-type]


def make_tldr(**settings: Any) -> TldrTask:
    return TldrTask(TldrConfig.model_validate(settings), None)  # type: ignore[arg-type]


def test_a_post_gets_the_cue_and_the_instruction_of_its_task(tmp_path: Path) -> None:
    post = "My dog ate my shoes.\n\nI am sad."
    row = {"id": "p", "post": post, "summary": "A dog.", "split": "test"}
    (tmp_path / "posts.jsonl").write_text(json.dumps(row))
    task = make_tldr(data=str(tmp_path / "posts.jsonl"), system="Be brief.")
    (known,) = task.prompts("test")
    typed = task.format_prompt(f"{post}\n")
    assert (typed.text, typed.turns, typed.source) == (known.text, known.turns, known.source)
    assert typed.text == f"POST: {post}\n\nTL;DR:"
    assert typed.turns[1].content.startswith("Summarize the following text")


def test_a_prompt_in_the_form_of_the_data_is_not_wrapped_twice() -> None:
    whole = "SUBREDDIT: r/dogs\n\nTITLE: Shoes\n\nPOST: My dog ate them.\n\nTL;DR:"
    found = make_tldr().format_prompt(whole)
    assert (found.text, found.source) == (whole, "My dog ate them.")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompt": "Q: {{ question }}\nA:"}, Prompt("", "Q: Why?\nA:", "Q: Why?\nA:")),
        (
            {"messages": "chat", "system": "Be kind."},
            Prompt(
                "", "Human: Why?\n\nAssistant:", "Human: Why?", turns=(Turn("system", "Be kind."), Turn("user", "Why?"))
            ),
        ),
    ],
)
def test_a_text_fills_the_only_column_or_is_the_turn_of_a_dialogue(settings: dict[str, Any], expected: Prompt) -> None:
    found = make_text(**settings).format_prompt("Why?")
    assert (found.text, found.source, found.turns) == (expected.text, expected.source, expected.turns)


def test_a_text_is_no_prompt_of_several_columns() -> None:
    task = make_text(prompt="{{ context }}\n\n{{ question }}")
    with pytest.raises(DataError, match="a text alone makes no prompt, whose templates use context, question"):
        task.format_prompt("Why?")


def test_a_transcript_keeps_its_turns() -> None:
    task = DialogueTask(DialogueConfig(), None)  # type: ignore[arg-type]
    typed = task.format_prompt("Human: Hi!\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:")
    assert typed.turns == (Turn("user", "Hi!"), Turn("assistant", "Hello."), Turn("user", "Why?"))
    assert typed.text.endswith("Human: Why?\n\nAssistant:")
    assert task.format_prompt("Why?").text == "Human: Why?\n\nAssistant:"
    with pytest.raises(RowFault):
        task.format_prompt("Human: Hi!\n\nAssistant: Hello.")
