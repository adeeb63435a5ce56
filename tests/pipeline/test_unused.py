"""What no run uses is deleted from the store, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from rlaif_framework import DataError, PluginManager, Spec, SpecError, Store, load_family, run_family
from rlaif_framework.pipeline.store_use import locked_for_cleaning, used_artefacts
from rlaif_framework.pipeline.unused import delete_unused, measure_store
from rlaif_framework.store import MANIFEST, link_tree
from support.rows import make_manifest
from support.runs import execute

RunCommand = Callable[..., tuple[int, str, str]]


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def make(store: Store, name: str, size: int = 1000) -> Path:
    """Make one artefact."""
    work, _ = store.begin("sft", key_of(name))
    (work / "weights").write_bytes(b"x" * size)
    return store.commit("sft", key_of(name), make_manifest("sft", key_of(name)))


def make_run(folder: Path, store: Store, names: Iterable[str], link: bool = True) -> Path:
    """Make a run folder with these artefacts."""
    folder.mkdir(parents=True)
    for name in names if link else ():
        link_tree(store.path("sft", key_of(name)), folder / name)
    (folder / "run.json").write_text(json.dumps({"steps": {name: key_of(name) for name in names}}))
    return folder


def disk_use(folder: Path) -> int:
    """Bytes of all files in a folder, each once however many links it has."""
    found = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sum(found.values())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with three artefacts, of which the run folder `runs/one` uses two."""
    found = Store(tmp_path / "runs" / ".store")
    for name in ("a", "b", "c"):
        make(found, name)
    make_run(tmp_path / "runs" / "one", found, ["a", "b"])
    return found


def names(store: Store) -> set[str]:
    return {name for name in ("a", "b", "c", "d") if store.has("sft", key_of(name))}


def clean(store: Store, *folders: Path) -> int:
    """Delete what is unused, and return what was said to be freed."""
    found = delete_unused(store, folders or [store.root.parent], pytest.fail)
    return sum(artefact.frees for artefact in found.select("unused"))


def test_what_no_run_folder_uses_is_deleted_and_what_is_freed_is_said_before(store: Store, tmp_path: Path) -> None:
    before = disk_use(tmp_path)
    found = measure_store(store, [tmp_path / "runs"])
    assert [artefact.path for artefact in found.select("unused")] == [store.path("sft", key_of("c"))]
    assert (names(store), disk_use(tmp_path)) == ({"a", "b", "c"}, before)
    freed = clean(store)
    assert names(store) == {"a", "b"}
    assert before - disk_use(tmp_path) == freed == found.select("unused")[0].size


def test_an_artefact_with_links_elsewhere_is_kept_since_deleting_it_frees_nothing(store: Store, tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere" / "two", store, ["c"])
    (held,) = measure_store(store, [tmp_path / "runs"]).select("held")
    assert (held.frees, held.size > 1000) == (0, True)
    assert clean(store) == 0
    assert names(store) == {"a", "b", "c"}
    shutil.rmtree(tmp_path / "elsewhere")
    assert clean(store) == held.size


def test_run_folders_with_copies_are_found_by_their_records(store: Store, tmp_path: Path) -> None:
    """On another file system there are no hard links."""
    other = tmp_path / "other"
    make_run(other / "two", store, ["c"], link=False)
    clean(store, tmp_path / "runs", other)
    assert names(store) == {"a", "b", "c"}
    clean(store, tmp_path / "runs")
    assert names(store) == {"a", "b"}


def test_what_the_store_did_not_write_stays(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("x")
    link = store.root / f"sft-{key_of('link')[:20]}"
    link.symlink_to(make(Store(victim), "link"))
    added = make(store, "d")
    (added / "notes.txt").write_text("x")
    bare = store.root / f"sft-{key_of('bare')[:20]}"
    shutil.copytree(victim, bare)
    wrong = store.root / f"sft-{key_of('wrong')[:20]}"
    shutil.copytree(store.path("sft", key_of("c")), wrong)
    unlisted = make(store, "e")
    manifest = json.loads((unlisted / MANIFEST).read_text())
    manifest.pop("files")
    (unlisted / MANIFEST).write_text(json.dumps(manifest))
    (store.root / "sft").mkdir()
    (store.root / ".use-1-zzzzzzzz.json").write_text("{}")
    kept = {bare, wrong, added, unlisted}
    found = measure_store(store, [tmp_path / "runs"])
    assert {artefact.path for artefact in found.select("foreign")} == kept
    clean(store)
    assert names(store) == {"a", "b", "d"}
    for path in (*kept, link, store.root / "sft", store.root / ".use-1-zzzzzzzz.json"):
        assert path.exists()
    assert (victim / "thesis.tex").exists()
    assert (link / "weights").exists()


def test_unfinished_artefacts_are_kept_for_runs_that_will_resume(store: Store, tmp_path: Path) -> None:
    for name in ("wanted", "abandoned"):
        _, checkpoint = store.begin("sft", key_of(name))
        (checkpoint / "weights").write_text("x")
    make_run(tmp_path / "runs" / "stopped", store, ["wanted"], link=False)
    clean(store)
    assert store.path("sft", key_of("wanted")).with_suffix(".partial").exists()
    assert not store.path("sft", key_of("abandoned")).with_suffix(".partial").exists()


def test_what_a_running_process_needs_is_kept_wherever_its_folder_is(store: Store, tmp_path: Path) -> None:
    with used_artefacts(store, [("sft", key_of("c")), ("sft", key_of("d"))], pytest.fail):
        assert not measure_store(store, [tmp_path / "runs"]).select("unused")
        make(store, "d")
        clean(store)
        assert names(store) == {"a", "b", "c", "d"}
    assert not list(store.root.glob(".use*"))
    clean(store)
    assert names(store) == {"a", "b"}


def test_what_a_killed_process_needed_is_not(store: Store) -> None:
    script = (
        "import os, sys; from pathlib import Path; from rlaif_framework.store import Store; "
        "from rlaif_framework.pipeline.store_use import used_artefacts\n"
        "with used_artefacts(Store(Path(sys.argv[1])), [('sft', sys.argv[2])], print): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(store.root), key_of("c")]).returncode == 9
    assert len(list(store.root.glob(".use*.json"))) == 1
    clean(store)
    assert names(store) == {"a", "b"}
    assert not list(store.root.glob(".use*"))


def test_a_run_that_starts_while_artefacts_are_deleted_waits(store: Store) -> None:
    waits, started = threading.Event(), threading.Event()

    def start() -> None:
        with used_artefacts(store, [("sft", key_of("c"))], lambda text: waits.set()):
            started.set()

    with locked_for_cleaning(store, pytest.fail):
        thread = threading.Thread(target=start)
        thread.start()
        assert waits.wait(60)
        assert not started.is_set()
    thread.join(60)
    assert started.is_set()


def test_nothing_is_deleted_if_it_is_unknown_what_a_run_uses(store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs" / "one" / "run.json").unlink()
    (tmp_path / "runs" / "one" / "run.json").write_text('{"steps')
    with pytest.raises(DataError, match=r"one/run\.json is damaged"):
        clean(store)
    with pytest.raises(SpecError, match="no folder of runs at"):
        clean(store, tmp_path / "nowhere")
    with pytest.raises(SpecError, match="no store at"):
        clean(Store(tmp_path / "nowhere"), tmp_path / "runs")
    assert names(store) == {"a", "b", "c"}


def test_a_run_is_registered_while_it_runs(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is deleted that is not in use, after each of its stages, and the run does not notice."""
    from rlaif_framework.pipeline import engine

    finish = engine._finish_step
    (tmp_path / "empty").mkdir()
    counts = []

    def finish_and_clean(run: engine.Run, *rest: object) -> None:
        finish(run, *rest)  # type: ignore[arg-type]
        found = delete_unused(run.store, [tmp_path / "empty"], pytest.fail)
        counts.append((len(found.select("used")), len(found.select("unused", "held"))))

    monkeypatch.setattr(engine, "_finish_step", finish_and_clean)
    execute(tiny_spec(arms={}, sft=None), tmp_path / "out", manager, tmp_path / "store")
    assert counts
    assert all(rest == 0 for _, rest in counts)
    # Afterwards, without hard links, only the record of the run folder protects them.
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert not measure_store(Store(tmp_path / "copy"), [tmp_path / "out"]).select("unused")
    assert len(measure_store(Store(tmp_path / "copy"), [tmp_path / "empty"]).select("unused")) == counts[-1][0]


def test_stages_of_a_family_are_kept_before_its_members_have_started(
    tmp_path: Path, tiny_model: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif_framework.pipeline import families

    path = tmp_path / "family.yaml"
    text = "name: f\nseeds: [0, 1]\ntask: tldr\nsft: null\narms: {}\nevaluate: {prompts: 2}\ntrackers: []\n"
    path.write_text(f"{text}policy: {{model: {tiny_model}, dtype: fp32}}\n")

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(families, "_run_members", stop)
    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        run_family(load_family(path, manager=manager), tmp_path / "runs" / "f", store, manager)  # type: ignore[arg-type]
    keys = json.loads((tmp_path / "runs" / "f" / "steps.json").read_text())["keys"]
    (tmp_path / "runs" / "f" / "family.json").write_text("{}")
    work, _ = store.begin("sft", keys[0])
    (work / "weights").write_text("x")
    store.commit("sft", keys[0], make_manifest("sft", keys[0]))
    make(store, "c")
    clean(store, tmp_path / "runs")
    assert store.has("sft", keys[0])
    assert not names(store)


def test_the_command_shows_first_and_deletes_only_if_it_is_told_to(
    store: Store, tmp_path: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLAIF_STORE", raising=False)
    code, out, err = rlaif("gc")
    assert (code, err) == (0, "")
    assert "unused: 1 sft\nnothing is deleted; --delete frees 1." in out
    assert names(store) == {"a", "b", "c"}
    found = json.loads(rlaif("gc", "--delete", "--json", "--store", store.root, "--runs", tmp_path / "runs")[1])
    assert (found["deleted"], len(found["artefacts"])) == (True, 3)
    assert names(store) == {"a", "b"}
    assert "nothing is deleted; --delete frees 0 B" in rlaif("gc")[1]
    os.chdir(tmp_path / "runs")
    code, _, err = rlaif("gc", "--store", ".store")
    assert (code, "no folder of runs at runs; name the folders" in err) == (2, True)


def test_a_run_removes_what_killed_runs_have_registered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in (".use-1-0123abcd.json", ".use-1-0123abcd.lock", ".use-2-0123abcd.lock"):
        (tmp_path / name).write_text("{}")
    (tmp_path / ".use-3-0123abcd.lock").symlink_to(tmp_path / "elsewhere")
    with used_artefacts(store, [("sft", "0" * 64)], print):
        assert len(list(tmp_path.glob(".use-*.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".use-3-0123abcd.lock"]
