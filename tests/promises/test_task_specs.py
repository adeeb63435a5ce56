"""The specs of `specs/tasks/` run to a report, with tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.data.mappings import read_mapping

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs" / "tasks").glob("*.yaml"))
ARMS = ["ai", "human", "hybrid", "direct", "best-of-n"]
SMALL = {
    "policy.dtype": "fp32",
    "policy.lora.rank": "2",
    "policy.max_new_tokens": "6",
    "sft.limit": "4",
    "evaluate.prompts": "3",
    "evaluate.comparisons": "4",
    "evaluate.matchups": "[[ai, sft]]",
    "arms.ai.feedback.allow_weak_labels": "true",
    "arms.hybrid.feedback.allow_weak_labels": "true",
    "arms.best-of-n.algorithm.n": "2",
    **{f"arms.{arm}.feedback.pairs.limit": "4" for arm in ("ai", "human", "hybrid")},
    **{
        f"arms.{arm}.algorithm.{name}": value
        for arm in ("ai", "human", "hybrid", "direct")
        for name, value in {"steps": "1", "prompts_per_step": "2", "responses_per_prompt": "2"}.items()
    },
}


def find_models(settings: Any, path: str = "") -> dict[str, str]:
    """Every `model` of a spec, by its path, and the rewards by a score that random weights hardly ever write."""
    if not isinstance(settings, dict):
        return {}
    found = {f"{path}model": "MODEL"} if "model" in settings else {}
    if settings.get("kind") == "direct" and "backend" in settings["labeler"]:
        found[f"{path}allow_weak_labels"] = "true"
    for name, inner in settings.items():
        found |= find_models(inner, f"{path}{name}.")
    return found


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_has_all_arms_in_at_most_40_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    assert list(read_mapping(path, "spec")["arms"]) == ARMS


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_runs_to_a_report(
    path: Path, tiny_model: Path, rlaif: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    changes = {**SMALL, **dict.fromkeys(find_models(read_mapping(path, "spec")), str(tiny_model))}
    weak = [name for name in changes if name.endswith("allow_weak_labels")]
    changes |= dict.fromkeys(weak, "true")
    arguments = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    code, out, err = rlaif("run", path, "--out", tmp_path / "run", "--store", tmp_path / "store", *arguments)
    assert code == 0, err
    assert "report.html" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert {"sft", *ARMS} <= set(report["evaluation"]["policies"])
