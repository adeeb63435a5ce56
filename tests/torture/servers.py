"""Label with a server that fails at random in all known ways, and compare with one that does not fail."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import PluginManager, RlaifError
from rlaif_framework.labelling.command import label_file
from rlaif_framework.labelling.job import Job
from rlaif_framework.progress import Progress
from rlaif_framework.spec.loading import load_labeler, load_task
from support.faulty_server import FAULTS, healthy
from support.remote import KEY, Clock
from support.server import Reply, serve

PAIRS = 12


def fail_at_random(count: int, seed: int, folder: Path) -> str:
    """Label `count` files with a server that fails at random; each command is repeated when it ends with an error."""
    os.chdir(folder)
    os.environ["OPENAI_API_KEY"] = KEY
    rows = [{"prompt": f"Post {i}", "responses": ["good one", "bad one"]} for i in range(PAIRS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        Clock(patch)  # waits take no time
        return _fail_at_random(count, random.Random(seed), seed, folder)


def _fail_at_random(count: int, draw: random.Random, seed: int, folder: Path) -> str:
    manager, seen, messages = PluginManager.load(), Counter[str](), list[str]()
    for case in range(count):
        rate = draw.choice((0.1, 0.3, 0.6))

        def fail(body: dict[str, Any], number: int, rate: float = rate) -> Reply | bytes | None:
            if draw.random() > rate:
                return healthy(body)
            name = draw.choice(list(FAULTS))
            seen[name] += 1
            return FAULTS[name].reply(body)

        out = folder / f"case-{case}"
        out.mkdir()
        os.environ["RLAIF_CACHE"] = str(out / "cache")
        with serve(fail) as server:
            backend = {"kind": "openai", "model": "made", "base_urls": server.url, "retries": 2, "samples": 2}
            (folder / "judge.json").write_text(json.dumps({"kind": "llm", "backend": backend}))
            for _ in range(3):
                try:
                    _label(out, manager)
                    break
                except RlaifError as error:
                    messages.append(str(error))
            server.behave = healthy
            (out / "labels.jsonl").unlink(missing_ok=True)
            _label(out, manager)
        assert KEY not in "".join(messages), f"seed {seed}, case {case}: the key is in a message"
        labels = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
        assert len(labels) == PAIRS, f"seed {seed}, case {case}: {len(labels)} labels"
        for label in labels:
            probabilities = label["probabilities"]
            assert probabilities is not None, f"seed {seed}, case {case}: a fault was kept: {label}"
            assert probabilities[0] > 0.6, f"seed {seed}, case {case}: a wrong label: {label}"
        for path in out.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), f"the key is in {path}"
        shutil.rmtree(out)
    return (
        f"faulty servers: {count} files labelled through {sum(seen.values())} faults of {len(seen)} kinds, "
        f"{len(messages)} commands ended with a message; all labels right in the end"
    )


def _label(out: Path, manager: PluginManager) -> None:
    labelers = {"": load_labeler("judge.json", [], manager)}
    job = Job(
        pairs=Path("pairs.jsonl"),
        labelers=labelers,
        task=load_task("tldr", [], manager),
        out=out / "labels.jsonl",
        overwrite=True,
    )
    label_file(job, manager, Progress())
