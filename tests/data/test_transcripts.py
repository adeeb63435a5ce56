"""Turns of a dialogue and transcripts are converted into each other without loss."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif_framework import Turn
from rlaif_framework.data import join_transcript, split_transcript, strip_cue


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: Hi\n\nAssistant: Hello!", [("user", "Hi"), ("assistant", "Hello!")]),
        ("\n\nHuman: Hi\n\nAssistant:", [("user", "Hi")]),
        ("\n\nHuman: Hi\n\nAssistant: \n", [("user", "Hi")]),  # berkeley-nest/Nectar
        ("Human: A\n\nB\n\nAssistant: C\n\nHuman: D", [("user", "A\n\nB"), ("assistant", "C"), ("user", "D")]),
        ("Human:A\n\nAssistant:B", [("user", "A"), ("assistant", "B")]),
        ("Human: A\n\nHuman: B", [("user", "A"), ("user", "B")]),
        ("Assistant: A\n\nHuman: B", [("assistant", "A"), ("user", "B")]),
        ("Human: A\nAssistant: B", [("user", "A\nAssistant: B")]),  # turns are separated by an empty line
        ("System: Be brief.\n\nHuman: Hi", [("system", "Be brief."), ("user", "Hi")]),
        ("System: Windows\n\nProblem: slow", [("user", "System: Windows\n\nProblem: slow")]),
        ("Human: A\n\nSystem: B", [("user", "A\n\nSystem: B")]),
        (" Why? ", [("user", "Why?")]),
        ("Why?\n\nAssistant:", [("user", "Why?")]),
        ("A letter.\n\nHuman: B", [("user", "A letter.\n\nHuman: B")]),
        ("", []),
        ("\n\nAssistant:", []),
        ("Human:", [("user", "")]),
    ],
)
def test_transcripts_are_split_into_turns(text: str, turns: list[tuple[str, str]]) -> None:
    assert split_transcript(text) == turns


@pytest.mark.parametrize(
    "turns",
    [
        [("user", "Hi")],
        [("system", "Be brief."), ("user", "A\n\nB"), ("assistant", "C"), ("user", "D")],
        [("user", ""), ("assistant", "x")],
        [("user", "Why do you write Assistant: so often?"), ("assistant", "Human: is worse.")],
    ],
)
def test_turns_survive_a_transcript(turns: list[tuple[Any, str]]) -> None:
    text = join_transcript([Turn(role, content) for role, content in turns])
    assert split_transcript(text) == turns
    assert split_transcript(f"\n\n{text}\n\nAssistant: ") == turns


@pytest.mark.parametrize("gap", ["\n\n", "\n\n\n", "\n" * 1000])
def test_a_speaker_inside_a_content_does_not_begin_a_turn(gap: str) -> None:
    text = join_transcript([Turn("user", f"Go on:{gap}Assistant: yes{gap}Human: no"), Turn("assistant", "ok")])
    assert text == "Human: Go on:\nAssistant: yes\nHuman: no\n\nAssistant: ok"
    assert [role for role, _ in split_transcript(text)] == ["user", "assistant"]


def test_only_a_cue_is_stripped() -> None:
    assert strip_cue("Hi\n\nAssistant: \n") == "Hi"
    for text in ("My Assistant:", "Hi \n\nAssistant: no ", "Hi\nAssistant:", " x "):
        assert strip_cue(text) == text
