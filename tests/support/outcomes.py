"""What a command did, and a spec to give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.logging import disable_progress_bar

from rlaif_framework.spec.merging import set_value

POSTS = [{"id": f"p{i}", "post": f"Post {i} is here.", "summary": f"Post {i}.", "split": "train"} for i in range(4)]
SPLITS = ("train", "validation", "test")
PAIRS = [{"prompt": f"Post {i}.", "responses": ["a", "b"], "human": 1, "split": "train"} for i in range(4)]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What a user reads, spaces and line breaks evened out."""
        return " ".join(self.err.split())


@pytest.fixture
def rlaif(
    rlaif: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    """Run a command in an empty folder, without a new process."""
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("RLAIF_STORE", raising=False)

    def run(*argv: object) -> Outcome:
        return Outcome(*rlaif(*argv))

    return run


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Write a small spec with `--set` overrides, beside the folder that commands run in."""
    disable_progress_bar()  # a new process does so before it imports transformers
    base = {
        "name": "small",
        "task": {"kind": "tldr"},
        "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 4},
        "sft": None,
        "arms": {
            "a": {
                "feedback": {"kind": "ai", "labeler": "length"},
                "reward": "bradley-terry",
                "algorithm": {"kind": "reinforce"},
            }
        },
        "evaluate": None,
    }

    def write(*overrides: str) -> Path:
        data: dict[str, Any] = deepcopy(base)
        for override in overrides:
            set_value(data, override)
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(data))
        return path

    return write


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def refused(found: Outcome, *parts: str, code: int = 2) -> None:
    """One clear message on one screen, and no traceback."""
    assert found.code == code, found
    assert found.err.startswith("rlaif: ")
    assert "Traceback" not in found.err
    assert len(found.err.splitlines()) <= 24
    assert len(found.err) < 1500
    for part in parts:
        assert part in found.message, found.err
