"""Read mutated specs and data files: each is accepted, or refused with one message."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework import PluginManager, RlaifError, load_spec
from rlaif_framework.labelling.command import label_file
from rlaif_framework.labelling.job import Job
from rlaif_framework.pipeline.planning import check_spec
from rlaif_framework.progress import Progress
from rlaif_framework.spec.loading import load_labeler, load_task
from torture.world import ALGORITHMS, make_model, make_spec

ROOT = Path(__file__).parents[2]
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        0.5,
        -0.0,
        1e308,
        10**50,
        10**400,
        float("inf"),
        float("nan"),
        "",
        " ",
        "x",
        "auto",
        "null",
    ),
    *(
        "a\0b",
        "\x1b[31m",
        "\ud800",
        "é" * 300,
        "x" * 5000,
        "/",
        "..",
        "../..",
        "~",
        "~nobody/x",
        "/dev/null",
        "/dev/zero",
    ),
    *("{{ 1/0 }}", "{% for i in range(10**9) %}{% endfor %}", "package:nothing", "a/b", "./nowhere", "http://", "1e5"),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"kind": "llm"},
        {"kind": None},
        {"kind": "similarity", "kinds": 1},
        ["a", "a"],
    ),
]
"""Values that a mutation puts anywhere in a spec or a row."""


def mutate_specs(count: int, seed: int, folder: Path) -> str:
    """Load and check `count` mutated specs in this process."""
    draw, manager = random.Random(seed), PluginManager.load()
    os.chdir(folder)
    originals = [make_spec(make_model(folder), *ALGORITHMS)]
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        originals.append(yaml.safe_load(path.read_text(encoding="utf-8")))
    outcomes = Counter[str]()
    for case in range(count):
        spec = deepcopy(draw.choice(originals))
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            _mutate(spec, draw)
        text, suffix = _dump(spec, draw)
        if draw.random() < 0.1:
            text = _lengthen_number(text, suffix, draw)
        if draw.random() < 0.2:
            text = _damage(text, draw)
        path = folder / f"spec{suffix}"
        path.write_bytes(text)
        if draw.random() < 0.2:
            path = _put_on_top(path, deepcopy(draw.choice(originals)), draw)
        where = f"seed {seed}, case {case}"
        outcomes[_try(lambda path=path: _check_spec(path, manager), path, where)] += 1  # type: ignore[misc]
    return f"mutated specs: {count} specs, {outcomes['accepted']} accepted, {outcomes['refused']} refused"


def _put_on_top(base: Path, other: dict[str, Any], draw: random.Random) -> Path:
    """Write a spec with one mutated key of another one, on top of a mutated base."""
    key = draw.choice(sorted(other))
    top = {"base": draw.choice((base.name, str(base), f"./{base.name}", "top.yaml", "package:rlaif_plugins/x.yaml", 3))}
    top[key] = other[key]
    _mutate(top[key], draw)
    path = base.with_name("top.yaml")
    path.write_bytes(_dump(top, draw)[0])  # JSON is YAML
    return path


def _check_spec(path: Path, manager: PluginManager) -> None:
    try:
        check_spec(load_spec(path, manager=manager), manager)
    except OSError as error:
        if error.filename is None:
            raise
        raise RlaifError(str(error)) from error  # `rlaif` prints it as one message


PAIRS = [
    {"id": "a", "prompt": "Post one.", "responses": ["a", "bb"], "human": 1, "model": "m"},
    {"prompt": "Post two.", "chosen": "good", "rejected": "bad"},
    {"instruction": "Name a lake.", "output1": "Como.", "output2": "Garda.", "preference": 2},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello"}],
        "rejected": "x",
    },
    {"prompt": "p", "response_a": "x", "response_b": "y", "winner": "model_a", "score": 0.5},
]


def mutate_data(count: int, seed: int, folder: Path) -> str:
    """Label `count` mutated files of pairs, or read them as a task's data, in this process."""
    draw, manager = random.Random(seed), PluginManager.load()
    os.chdir(folder)
    outcomes = Counter[str]()
    for case in range(count):
        rows: list[Any] = (
            [deepcopy(draw.choice(PAIRS))] * draw.randint(1, 3) if draw.random() < 0.7 else deepcopy(PAIRS)
        )
        for _ in range(draw.randint(0, 3)):
            _mutate(rows, draw)
        text, suffix = _dump_rows(rows, draw)
        if draw.random() < 0.3:
            text = _damage(text, draw)
        path = folder / f"pairs{suffix}"
        path.write_bytes(text)
        where = f"seed {seed}, case {case}"
        outcomes[_try(lambda path=path: _read_data(path, draw, manager, folder), path, where)] += 1  # type: ignore[misc]
        path.unlink()
    return f"mutated data: {count} files, {outcomes['accepted']} accepted, {outcomes['refused']} refused"


def _read_data(path: Path, draw: random.Random, manager: PluginManager, folder: Path) -> None:
    from rlaif_framework.assembly.context import Context

    kind = draw.choice(("tldr", "dialogue"))
    if draw.random() < 0.3:
        task = load_task(kind, [], manager).model_copy(update={"data": str(path)})
        context = Context(task, None, 0, manager)
        for split in ("train", "validation", "test"):
            list(context.task.prompts(split))
            list(context.task.comparisons(split))
        return
    labelers = {"": load_labeler("length", [], manager)}
    skip = draw.random() < 0.5
    out = folder / "labels.jsonl"
    job = Job(
        pairs=path,
        labelers=labelers,
        task=load_task(kind, [], manager),
        out=out,
        report=folder / "report.html",
        skip_invalid=skip,
        overwrite=True,
    )
    label_file(job, manager, Progress())
    for line in out.read_text(encoding="utf-8").splitlines():
        probabilities = json.loads(line)["probabilities"]
        assert probabilities is None or abs(sum(probabilities) - 1) < 1e-9


def _try(work: Callable[[], None], path: Path, where: str) -> str:
    """Do work that reads a mutated file; return whether the file was accepted or refused, with a fair message."""
    try:
        work()
    except RlaifError as error:
        text = str(error)
        fair = 0 < len(text) < 6000 and "Traceback" not in text
        assert fair, f"{where}: the message {text[:500]!r} for {path.read_bytes()!r:.500}"
    except Exception as error:
        raise AssertionError(f"{where}: {error!r} for {path.read_bytes()!r:.2000}") from error
    else:
        return "accepted"
    return "refused"


def _mutate(tree: Any, draw: random.Random) -> None:
    """Change one place of nested mappings and lists."""
    places = list(_places(tree))
    if not places:
        return
    node, key = draw.choice(places)
    action = draw.choice(("replace", "replace", "delete", "rename", "nest", "copy"))
    if action == "replace":
        node[key] = deepcopy(draw.choice(ODD))
    elif action == "delete":
        del node[key]
    elif action == "rename" and isinstance(node, dict):
        name = str(key)
        at = draw.randrange(len(name) + 1)
        node[name[:at] + draw.choice(["", "x", "\0", ".", " "]) + name[at + 1 :]] = node.pop(key)
    elif action == "nest":
        for _ in range(draw.choice((1, 2, 100))):
            node[key] = [node[key]] if draw.random() < 0.5 else {"x": node[key]}
    elif action == "copy":
        other, name = draw.choice(places)
        node[key] = deepcopy(other[name])


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            stack.append(node[key])
    return found


def _dump(spec: Any, draw: random.Random) -> tuple[bytes, str]:
    """Write a spec as JSON or YAML."""
    if draw.random() < 0.5:
        return json.dumps(spec).encode(), ".json"
    return yaml.safe_dump(spec, allow_unicode=False).encode(), ".yaml"


def _dump_rows(rows: list[Any], draw: random.Random) -> tuple[bytes, str]:
    """Write rows in one of the formats of text files."""
    suffix = draw.choice((".jsonl", ".jsonl", ".json", ".csv", ".jsonl.gz"))
    if suffix == ".json":
        return json.dumps(rows).encode(), suffix
    if suffix == ".csv":
        columns = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        cells = [[row.get(key, "") for key in columns] for row in rows if isinstance(row, dict)]
        lines = [",".join(json.dumps(str(cell)) for cell in line) for line in (columns, *cells)]
        return "\n".join(lines).encode(errors="replace"), suffix
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return (gzip.compress(text) if suffix.endswith(".gz") else text), suffix


def _lengthen_number(text: bytes, suffix: str, draw: random.Random) -> bytes:
    """Replace one number after a key by a very long one, as no library writes it."""
    numbers = [found.span() for found in re.finditer(rb"(?<=: )[0-9]+\b", text)]
    if not numbers:
        return text
    start, end = draw.choice(numbers)
    forms = [b"9" * 5000] if suffix == ".json" else [b"9" * 5000, b"0x" + b"f" * 5000, b"1" + b":59" * 5000]
    return text[:start] + draw.choice(forms) + text[end:]


def _damage(text: bytes, draw: random.Random) -> bytes:
    """Change bytes: cut, flip, insert or repeat some."""
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        noise = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        text = draw.choice(
            (text[:at], text[at:], text[:at] + noise + text[at:], text[:at] + text[end:], text[:end] + text[at:])
        )
    return text
