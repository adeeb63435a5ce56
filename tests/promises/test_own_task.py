"""The page "Bring your own task": its files and commands lead from a CSV file to a report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-task.md").read_text(encoding="utf-8")
SMALL = {
    "policy.dtype": "fp32",
    "policy.max_new_tokens": "6",
    "sft.limit": "4",
    "arms.ai.algorithm.steps": "1",
    "arms.ai.algorithm.prompts_per_step": "2",
    "arms.ai.algorithm.responses_per_prompt": "2",
    "arms.best-of-n.algorithm.n": "2",
    "evaluate.prompts": "2",
}


def find_block(language: str, begin: str) -> str:
    """The fenced block of the page that begins in this way."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    (found,) = [block for block in blocks if block.startswith(begin)]
    return found


def test_the_commands_of_the_page_end_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rlaif: Callable[..., tuple[int, str, str]], tiny_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.csv").write_text(find_block("csv", "word,"), encoding="utf-8")
    Path("my-task.yaml").write_text(find_block("yaml", "task:\n  kind: text\n  data: words.csv"), encoding="utf-8")
    models = ("policy.model", "arms.*.feedback.labeler.backend.model")
    changes = {**SMALL, **dict.fromkeys(models, str(tiny_model))}
    tiny = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    commands = [
        shlex.split(line)[1:]
        for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
        for line in block.splitlines()
        if "specs/tasks" not in line
    ]
    assert [command[0] for command in commands] == ["check", "plan", "run", "label"]
    for command in commands:
        store = ["--store", "store"] if command[0] in ("plan", "run") else []
        code, out, err = rlaif(*command, *store, *([] if command[0] == "label" else tiny))
        assert code == 0, err
        assert out
    assert Path("runs/words/report.html").exists()
    assert Path("labels.jsonl").exists()


def test_the_page_names_every_spec_of_the_tasks() -> None:
    specs = {f"specs/tasks/{path.name}" for path in (ROOT / "specs" / "tasks").glob("*.yaml")}
    assert specs == set(re.findall(r"^\| `(specs/tasks/[\w-]+\.yaml)` \|", PAGE, re.M))
