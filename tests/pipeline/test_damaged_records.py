"""Records with values that are missing or have another type are refused with one message, by every command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import PluginManager, RlaifError, Spec
from support.runs import execute

RunCommand = Callable[..., tuple[int, str, str]]

OTHERS: list[Any] = [None, "x", [3], {"a": []}]
MISSING = object()
WINS = "evaluation/wins/rlaif-vs-sft"


@pytest.fixture
def folder(tmp_path: Path, run_folder: Path) -> Path:
    """A copy of a finished run, whose files are no links to those of the store."""
    return Path(shutil.copytree(run_folder, tmp_path / "runs" / "done"))


@pytest.fixture
def store(tmp_path: Path, run_folder: Path) -> Path:
    return Path(shutil.copytree(run_folder.parent / "run-store", tmp_path / "store"))


def mutate(file: Path) -> Iterator[str]:
    """Write mutations of a JSON file, yield what was changed, and restore the file at the end.

    Each value of the object, and of the first ones in each object and list in it, is left out, and null or of another
    type.
    """
    text = file.read_text()
    try:
        for number, place in enumerate(list_places(json.loads(text))):
            for value in (MISSING, OTHERS[number % len(OTHERS)]):  # each is tried at several places
                content = json.loads(text)
                node = content
                for part in place[:-1]:
                    node = node[part]
                if value is MISSING:
                    del node[place[-1]]
                else:
                    node[place[-1]] = value
                file.write_text(json.dumps(content))
                yield f"{'.'.join(map(str, place))} = {'missing' if value is MISSING else value}"
    finally:
        file.write_text(text)


def list_places(value: Any, inner: bool = False) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in islice(items, 1 if inner else None):
        yield (name,)
        yield from ((name, *rest) for rest in list_places(below, inner=True))


def check(rlaif: RunCommand, change: str, *argv: object) -> bool:
    """Run a command, which may do its work or refuse it with one line; return whether it was refused."""
    try:
        code, _, err = rlaif(*argv)
    except Exception as error:
        raise AssertionError(f"{argv[0]} with {change}: {error!r}") from error
    assert code in (0, 2), change
    assert "Traceback" not in err, change
    assert code == 0 or len(err.splitlines()) == 1, f"{argv[0]} with {change}: {err}"
    return code == 2


def test_manifests_of_a_run_folder(folder: Path, run_folder: Path, rlaif: RunCommand) -> None:
    file = folder / WINS / "artefact.json"
    for change in mutate(file):
        check(rlaif, change, "runs", folder.parent)
        check(rlaif, change, "compare", folder, run_folder)
        if check(rlaif, change, "lineage", file.parent):
            check(rlaif, change, "report", folder)
    file.write_text("{}")
    assert f"not read: {file} is damaged" in rlaif("runs", folder.parent)[2]
    for argv in (("report", folder), ("compare", folder, run_folder), ("lineage", file.parent)):
        assert f"{file} is damaged: stage: Field required; delete the folder {file.parent} and" in rlaif(*argv)[2]


def test_manifests_of_a_store(
    folder: Path, store: Path, rlaif: RunCommand, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    key = json.loads((folder / "run.json").read_text())["steps"]["sft"]
    file = store / f"sft-{key[:20]}" / "artefact.json"
    for change in mutate(file):
        check(rlaif, change, "gc", "--store", store, "--runs", folder.parent)
    for content in ("{}", '{"files": []}', file.read_text().replace('"facts"', '"fact"')):
        file.write_text(content)
        with pytest.raises(RlaifError, match=f"{file} is damaged: .*: Field required; delete the folder {file.parent}"):
            execute(tiny_spec(), folder, manager, store)


def test_the_record_of_a_run(
    folder: Path,
    run_folder: Path,
    store: Path,
    rlaif: RunCommand,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
) -> None:
    for change in mutate(folder / "run.json"):
        for argv in (("runs", folder.parent), ("report", folder), ("compare", folder, run_folder)):
            check(rlaif, change, *argv)
        check(rlaif, change, "lineage", folder / WINS)
        check(rlaif, change, "gc", "--store", store, "--runs", folder.parent)
    (folder / "run.json").write_text('{"steps": {"sft": null}}')
    with pytest.raises(RlaifError, match=r"run\.json was not written by a run.*choose another --out"):
        execute(tiny_spec(), folder, manager, store)


def test_other_records_of_a_run(folder: Path, rlaif: RunCommand) -> None:
    for change in mutate(folder / "status.json"):
        check(rlaif, change, "runs", folder)
    (folder / "environment.json").write_text('{"packages": "x"}')
    assert "environment.json is damaged: rlaif_framework: Field required; " in rlaif("report", folder)[2]


def test_a_run_started_at_a_time_without_a_zone_is_listed_beside_others(folder: Path, rlaif: RunCommand) -> None:
    other = Path(shutil.copytree(folder, folder.with_name("other")))
    (other / "status.json").write_text('{"started": "2026-01-01T00:00:00"}')
    code, out, err = rlaif("runs", folder.parent)
    assert (code, err, len(out.splitlines())) == (0, "", 3)


def test_the_record_of_a_family(folder: Path, store: Path, rlaif: RunCommand) -> None:
    family = folder.parent / "seeds"
    family.mkdir()
    members: list[dict[str, Any]] = [
        {"name": f"seed={seed}", "variant": "a", "seed": seed, "choices": {}} for seed in (0, 1)
    ]
    (family / "family.json").write_text(json.dumps({"name": "seeds", "spec": {}, "members": members}))
    (family / "steps.json").write_text(json.dumps({"keys": ["x"]}))
    for name in ("family.json", "steps.json"):
        for change in mutate(family / name):
            check(rlaif, change, "runs", folder.parent)
            if name == "family.json":
                check(rlaif, change, "report", family)
            check(rlaif, change, "gc", "--store", store, "--runs", folder.parent)


@pytest.mark.parametrize("name", ["", ".", "..", "../done", "/done", "a\x00b"])
def test_a_member_outside_of_its_family_is_refused(folder: Path, rlaif: RunCommand, name: str) -> None:
    family = folder.parent / "seeds"
    family.mkdir()
    member = {"name": name, "variant": "a", "seed": 0, "choices": {}}
    (family / "family.json").write_text(json.dumps({"name": "seeds", "spec": {}, "members": [member]}))
    code, _, err = rlaif("report", family)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{family / 'family.json'} is damaged: members: 0: name: " in err
