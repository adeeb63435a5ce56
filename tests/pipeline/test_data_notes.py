"""A plan says which rows of the data are left out, as a run does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from rlaif_framework import PluginManager, Spec, plan_spec
from rlaif_framework.progress import Progress
from rlaif_framework.store import Store
from support.fake_plugins import write_rows


def test_dropped_rows_are_counted(tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    posts = [{"id": f"p{i}", "post": f"Post {i}.", "summary": "S."} for i in range(12)]
    data = {
        "train": str(write_rows(tmp_path / "train.jsonl", posts[:10])),
        "test": str(write_rows(tmp_path / "test.jsonl", posts[8:])),
    }
    pairs = [{"prompt": row["post"], "responses": ["a", "b"], "human": 1} for row in posts]
    comparisons = {"train": str(write_rows(tmp_path / "pairs.jsonl", pairs))}
    spec = tiny_spec(task={"kind": "tldr", "data": data, "comparisons": comparisons}, arms={}, evaluate=None)
    out = io.StringIO()
    plan_spec(spec, Store(tmp_path / "store"), manager, Progress(Console(file=out, width=200)))
    assert out.getvalue().splitlines() == [
        "data: dropped 2 of 10 prompts of split 'train', because their text is also in 'test'",
        "data: dropped 4 of 12 comparisons of split 'train', because their text is also in 'test'",
    ]
