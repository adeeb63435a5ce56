"""Hashes of code: they change with the code that makes answers, and with nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlaif_framework.plugins.code import hash_code


def change(path: Path, text: str) -> None:
    path.write_text(text)
    hash_code.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_hash", raising=False)  # of the folder of another test
    folder = tmp_path / "acme_hash"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "backend.py").write_text("X = 1\n")
    (folder / "reading.py").write_text("Y = 1\n")
    hash_code.cache_clear()
    return folder


def test_a_change_of_any_module_of_the_package_changes_the_hash(package: Path) -> None:
    first = hash_code("acme_hash.backend")
    assert first
    change(package / "reading.py", "Y = 2\n")
    second = hash_code("acme_hash.backend")
    assert second != first
    change(package / "reading.py", "Y = 1\n")
    assert hash_code("acme_hash.backend") == first


def test_the_frameworks_packages_that_are_imported_count(package: Path) -> None:
    first = hash_code("acme_hash.backend")
    change(package / "backend.py", "from rlaif_framework.records.ballots import Ballot\n")
    second = hash_code("acme_hash.backend")
    change(package / "backend.py", "from rlaif_framework.data import copy_rate\n")
    assert len({first, second, hash_code("acme_hash.backend")}) == 3


def test_a_module_without_a_package_is_hashed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_alone.py").write_text("X = 1\n")
    first = hash_code("acme_alone")
    (tmp_path / "other.py").write_text("Y = 1\n")
    hash_code.cache_clear()
    assert hash_code("acme_alone") == first
    assert hash_code("no_such_module_at_all") == ""


@pytest.mark.parametrize("kind", ["transformers", "openai"])
def test_the_built_in_backends_are_hashed(kind: str) -> None:
    assert hash_code(f"rlaif_plugins.backends.{kind}.backend")


def test_sources_may_have_another_encoding(package: Path) -> None:
    before = hash_code("acme_hash.backend")
    (package / "old.py").write_bytes(b"# -*- coding: latin-1 -*-\n# M\xfc\n")
    hash_code.cache_clear()
    assert len(hash_code("acme_hash.backend")) == len(before) == 16
    assert hash_code("acme_hash.backend") != before
