"""Results of slow computations are remembered, and damaged ones are computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_framework import files
from rlaif_framework.models.remember import remember


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"result": {"a": 2}, "hash": "0"}', '{"a": 1}'])
def test_a_damaged_result_is_computed_again(cache: Path, content: str) -> None:
    computed: list[int] = []

    def compute() -> dict[str, int]:
        computed.append(1)
        return {"a": 1}

    assert [remember("made", "key", compute) for _ in range(2)] == [{"a": 1}] * 2
    assert len(computed) == 1
    (file,) = (cache / "made").iterdir()
    file.write_text(content)
    assert remember("made", "key", compute) == {"a": 1}
    assert remember("made", "other key", compute) == {"a": 1}
    assert len(computed) == 3


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert remember("made", "key", lambda: {"a": 1}) == {"a": 1}


def test_what_a_killed_process_left_is_removed(cache: Path) -> None:
    remember("made", "key", lambda: {"a": 1})
    leftover = cache / "made" / f".x.json.{10**30}@{files._host()}.tmp"
    leftover.touch()
    remember("made", "other key", lambda: {"a": 1})
    assert not leftover.exists()
