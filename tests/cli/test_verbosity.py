"""What the options -q and -v print, and help texts that are not cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from rlaif_framework.cli.main import app
from support.fake_plugins import write_rows

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec that runs in a second."""
    monkeypatch.chdir(tmp_path)
    data: dict[str, Any] = {
        "task": "tldr",
        "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96},
        "sft": None,
        "arms": {"a": {"feedback": {"kind": "ai", "labeler": "synthetic", "pairs": {"limit": 8}}}},
        "evaluate": {"comparisons": 6},
        "trackers": [],
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "spec.yaml"


def test_quiet_prints_the_path_and_verbose_prints_where_and_what(spec: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("run", spec, "--out", "out", "-q")
    assert (code, err) == (0, "")
    assert out == f"{Path('out/report.html').resolve()}\n"
    *usual, finished, report = rlaif("run", spec, "--out", "out")[1].splitlines()
    assert re.fullmatch(r"finished in \S+ s: (\d+) stages, of which \1 were reused", finished)
    assert report == f"report: {out.strip()}"
    assert usual[-1] == "Of the labelers, a agrees most with the gold preferences: 100.0 % [61.0, 100.0], n=6."
    code, out, err = rlaif("run", spec, "--out", "out", "-v")
    details = [line for line in out.splitlines() if line not in usual]
    steps = json.loads(Path("out/run.json").read_text())["steps"]
    assert code == 0
    assert set(usual) < set(out.splitlines())
    assert sum(line.startswith(f"  in {Path('runs/.store')}") for line in details) == len(steps)
    assert any("comparisons 8" in line for line in details)
    argv = ("run", spec, "--out", "labels", "--set", "evaluate=null")
    assert rlaif(*argv, "-q")[1] == f"{Path('labels').resolve()}\n"
    assert rlaif(*argv)[1].splitlines()[-1] == f"run folder: {Path('labels').resolve()}"
    assert "\nexpected time: about " in rlaif("run", spec, "--out", "other", "--set", "seed=1")[1]


def test_quiet_families_name_the_members_that_failed(spec: Path, rlaif: RunCommand) -> None:
    bad = {"kind": "length", "prefer": "shorter"}
    values = json.dumps({"arms.a.feedback.labeler": {"good": "synthetic", "bad": bad}})
    reward = "arms.a.reward={kind: bradley-terry, model: base}"
    code, out, err = rlaif("run", spec, "--out", "f", "-q", "--set", f"matrix={values}", "--set", reward)
    assert (code, out) == (1, f"{Path('f/family.html').resolve()}\n")
    assert err.splitlines()[-1].startswith("rlaif: member 'bad' failed: a/gate: "), err


def test_quiet_labels_print_their_file(tmp_path: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{i}", "response_a": "a", "response_b": "longer"} for i in range(3)]
    pairs = write_rows(tmp_path / "pairs.jsonl", rows)
    argv = ("label", pairs, "--labeler", "length", "--out", "labels.jsonl")
    assert rlaif(*argv, "-q") == (0, "labels.jsonl\n", "")
    code, out, _ = rlaif(*argv, "--verbose")
    assert code == 0
    assert 'labeler: {"kind": "length", "prefer": "longer"}\n' in out
    (tmp_path / "compare.yaml").write_text("{one: length, two: {kind: length, prefer: shorter}}")
    found = rlaif("label", pairs, "--compare", "compare.yaml", "--out", "both.jsonl", "-q")
    assert found == (0, "both.one.jsonl\nboth.two.jsonl\n", "")


def test_errors_are_printed_in_quiet_commands_too(spec: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("run", spec, "-q", "--set", "arms.a.feedback.labeler=nowhere")
    assert (code, out) == (2, "")
    assert "no labeler named 'nowhere'" in err
    assert rlaif("run", spec, "-q", "-v") == (2, "", "rlaif: give either --quiet or --verbose\n")


def test_summaries_of_commands_are_not_cut() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "..." not in shown.partition("Commands:")[2]
    assert "with their rewards. lineage Show what" in shown


def test_no_help_is_cut_or_wider_than_the_terminal(rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("", *get_command(app).commands):  # type: ignore[attr-defined]
        code, shown, _ = rlaif(*([command] if command else []), "--help")
        assert code == 0
        assert max(map(len, shown.splitlines())) <= 80, command
        assert "\u2026" not in shown, command
        # Ellipses stand in what is to be typed, never at the end of a sentence.
        assert not re.search(r"[a-z]\.\.\.$", shown, re.MULTILINE), command


@pytest.mark.parametrize("columns", [60, 200])
def test_help_fills_the_terminal(columns: int, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    width = max(map(len, rlaif("label", "--help")[1].splitlines()))
    assert min(columns, 120) - 15 < width <= min(columns, 120)
