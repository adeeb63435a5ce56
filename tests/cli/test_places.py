"""Folders that cannot be written, odd environments and closed streams: one line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fake_plugins import write_rows

ROOT = Path(__file__).parents[2]
PAIRS = [{"id": f"c{i}", "prompt": f"Pöst {i}.", "responses": ["a", "b" * i]} for i in range(1, 5)]
LABEL = ("label", "pairs.jsonl", "--labeler", "length", "--out", "labels.jsonl")


@pytest.fixture
def rlaif(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command in its own process, in an empty folder with a file of pairs."""
    work = tmp_path / "work"
    work.mkdir()
    write_rows(work / "pairs.jsonl", PAIRS)

    def run(
        *argv: str | bytes,
        folder: Path = work,
        before: Callable[[], None] | None = None,
        stdout: int | None = subprocess.PIPE,
        **variables: str | None,
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, **variables}
        return subprocess.run(
            [sys.executable, "-m", "rlaif_framework", *argv],
            cwd=folder,
            env={name: value for name, value in environment.items() if value is not None},
            preexec_fn=before,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )

    return run


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def refused(found: subprocess.CompletedProcess[bytes], *parts: str) -> None:
    """One line on stderr that has the parts, and exit code 2."""
    text = found.stderr.decode()
    assert found.returncode == 2, (text, found.stdout)
    assert text.startswith("rlaif: ")
    assert len(text.splitlines()) == 1, text
    for part in parts:
        assert part in text


def spec(folder: Path, **changes: object) -> str:
    path = folder / "spec.json"
    content = {"task": "tldr", "policy": {"model": "./nowhere"}, "sft": None, "arms": {}, "evaluate": None, **changes}
    path.write_text(json.dumps(content))
    return str(path)


def test_without_a_home_folder(rlaif: Run, tmp_path: Path) -> None:
    """As in a container that runs under a number that no user has."""
    (tmp_path / "sitecustomize.py").write_text("import pwd\ndef none(user): raise KeyError\npwd.getpwuid = none\n")
    nobody = {"HOME": None, "RLAIF_CACHE": None, "PYTHONPATH": str(tmp_path)}
    found = rlaif(*LABEL, **nobody)
    assert found.returncode == 0, found.stderr
    similar = (*LABEL[:3], "similarity", *LABEL[4:-1], "similar.jsonl")
    refused(rlaif(*similar, **nobody), "the home folder of '~' is unknown; set HOME or RLAIF_CACHE to a folder")
    refused(rlaif("check", spec(tmp_path, policy={"model": "~nobody-has-this/x"})), "'~nobody-has-this' is unknown")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_in_a_locale_without_utf8(rlaif: Run, locale: dict[str, str]) -> None:
    found = rlaif(*LABEL, "--report", "r.html", **locale)
    assert found.returncode == 0, found.stderr
    refused(rlaif("check", "Zürich.yaml", **locale), "Z", "rich.yaml")


def test_names_that_are_not_utf8(rlaif: Run, tmp_path: Path) -> None:
    name = b"p\xff.jsonl"
    refused(rlaif("label", name, *LABEL[2:]), r"p\xff.jsonl is not utf-8; rename the file or folder")
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 - not a name that Path can be made from
    refused(rlaif(*LABEL, folder=Path(os.fsdecode(folder))), r"caf\xe9 is not utf-8")


def test_output_that_nobody_reads(rlaif: Run) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = rlaif("components", stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (1, b"")


def test_streams_that_are_closed(rlaif: Run, tmp_path: Path) -> None:
    def close() -> None:
        os.close(1)

    found = rlaif(*LABEL, before=close)
    assert (found.returncode, found.stderr) == (0, b"")
    assert len((tmp_path / "work" / "labels.jsonl").read_text().splitlines()) == len(PAIRS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_to_a_full_disk(rlaif: Run) -> None:
    with Path("/dev/full").open("w") as full:
        refused(rlaif("components", stdout=full.fileno()), "the disk is full")


def test_a_limit_on_the_size_of_files(rlaif: Run, tmp_path: Path) -> None:
    rows = [{"id": f"c{i}", "prompt": "x" * 1000, "responses": ["a", "b" * i]} for i in range(1, 200)]
    write_rows(tmp_path / "work" / "pairs.jsonl", rows)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    refused(rlaif(*LABEL, before=limit), "file-size limit is reached", "rerun the same command")
    assert rlaif(*LABEL).returncode == 0
    assert len((tmp_path / "work" / "labels.jsonl").read_text().splitlines()) == len(rows)


def test_links_that_lead_in_a_circle(rlaif: Run, tmp_path: Path, tiny_model: Path) -> None:
    loop = tmp_path / "work" / "loop"
    loop.symlink_to(loop)
    refused(rlaif("check", "loop"), "loop")
    refused(rlaif("label", "loop", *LABEL[2:]), "loop")
    refused(rlaif("label", "pairs.jsonl", "--labeler", "length", "--out", "loop/labels.jsonl"), "loop")
    refused(rlaif("check", spec(tmp_path, policy={"model": "./loop"})), "loop")
    policy = {"model": str(tiny_model)}
    refused(rlaif("check", spec(tmp_path, task={"kind": "tldr", "data": "./loop"}, policy=policy)), "loop")


def test_names_that_are_too_long(rlaif: Run, tmp_path: Path) -> None:
    long = "x" * 300
    refused(rlaif("check", long), "File name too long")
    refused(rlaif(*LABEL[:-1], f"{long}.jsonl"), "File name too long")
    refused(rlaif("check", spec(tmp_path, policy={"model": f"./{long}"})), "File name too long")
    refused_spec = rlaif("check", spec(tmp_path, name=long))
    assert refused_spec.returncode == 2
    assert b"at most 100 characters" in refused_spec.stderr


def test_a_null_character_in_a_path(rlaif: Run, tmp_path: Path, tiny_model: Path) -> None:
    policy = {"model": str(tiny_model)}
    refused(rlaif("check", spec(tmp_path, policy={"model": "a\0b"})), "'a\\x00b' cannot be the name of a file")
    refused(rlaif("check", spec(tmp_path, task={"kind": "tldr", "data": "a\0b"}, policy=policy)), "a", "b")


@pytest.mark.parametrize("name", ["run.json", "status.json", "report.html", "Report.JSON", "SFT", "environment.json"])
def test_names_of_arms_that_runs_use(rlaif: Run, tmp_path: Path, name: str) -> None:
    arm = {"reward": "length", "algorithm": "reinforce"}
    found = rlaif("check", spec(tmp_path, arms={name: arm}))
    assert found.returncode == 2
    assert f"the name '{name}' is reserved".encode() in found.stderr


def test_a_cache_that_cannot_be_written(rlaif: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = {"RLAIF_CACHE": str(tmp_path / "cache")}
    assert rlaif(*LABEL, **cache).returncode == 0, "nothing of the cache is needed"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["passive", "10000"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active"]),
        ({"GOMP_SPINCOUNT": "5"}, ["passive", "5"]),
    ],
)
def test_threads_that_wait_sleep_unless_the_user_wants_otherwise(given: dict[str, str], expected: list[str]) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    script = (
        "import os, sys; from rlaif_framework.cli.setup import prepare_process; prepare_process(); "
        f"assert 'torch' not in sys.modules; print(*[os.environ[n] for n in {names} if n in os.environ])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == expected
