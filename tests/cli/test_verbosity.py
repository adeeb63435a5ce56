"""What the options -q and -v print, and help texts that are not cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
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
    usual = rlaif("run", spec, "--out", "out")[1].splitlines()
    code, out, err = rlaif("run", spec, "--out", "out", "-v")
    details = [line for line in out.splitlines() if line not in usual]
    steps = json.loads(Path("out/run.json").read_text())["steps"]
    assert code == 0
    assert set(usual) < set(out.splitlines())
    assert sum(line.startswith(f"  in {Path('runs/.store')}") for line in details) == len(steps)
    assert any("comparisons 8" in line for line in details)
    assert rlaif("run", spec, "--out", "labels", "-q", "--set", "evaluate=null")[1] == f"{Path('labels').resolve()}\n"


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


@pytest.mark.parametrize("columns", [60, 200])
def test_help_fills_the_terminal(columns: int, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    width = max(map(len, rlaif("label", "--help")[1].splitlines()))
    assert min(columns, 120) - 15 < width <= min(columns, 120)
