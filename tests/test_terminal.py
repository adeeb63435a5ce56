"""Texts of strangers cannot steer a terminal."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from rich.console import Console

from rlaif_framework.cli.printing import print_json, print_table, print_yaml
from rlaif_framework.progress import Progress
from rlaif_framework.terminal import escape_controls

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\r\x08\x7f\x9bc\u202eevil\u2066x\u2028y\ud800"
ESCAPED = r"a\x1b[31mred\x1b]0;title\x07\r\x08\x7f\x9bc\u202eevil\u2066x\u2028y\ud800"


def is_safe(text: str) -> bool:
    return escape_controls(text) == text


def test_control_characters_are_escaped_and_others_stay() -> None:
    assert escape_controls(HOSTILE) == ESCAPED
    plain = "tab\tline\nélan 日本語 \U0001f469\u200d\U0001f52c שלום"
    assert escape_controls(plain) == plain


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_escaped(terminal: bool) -> None:
    output = io.StringIO()
    progress = Progress(Console(file=output, force_terminal=terminal, width=300))
    progress.print(HOSTILE)
    progress.print("a:x:b [bold]")
    assert output.getvalue() == f"{ESCAPED}\na:x:b [bold]\n"
    list(progress.track([1, 2], 2, f"[bold]{HOSTILE}"))
    assert HOSTILE not in output.getvalue()
    assert "\x1b]0;title" not in output.getvalue()


def test_tables_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [(f"[bold]{HOSTILE}\nb",)])
    assert f"[bold]{ESCAPED} b" in capsys.readouterr().out


def test_json_is_escaped_and_stays_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"é": [HOSTILE, "tab\tline\n"]}
    print_json(value)
    text = capsys.readouterr().out
    assert is_safe(text)
    assert "é" in text
    assert json.loads(text) == value


def test_yaml_is_escaped_and_stays_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"é": [HOSTILE.removesuffix("\ud800"), "two\nlines\n"]}
    print_yaml(value)
    text = capsys.readouterr().out
    assert is_safe(text)
    assert yaml.safe_load(text) == value
    print_yaml({"é": 1})
    assert capsys.readouterr().out == "é: 1\n"
