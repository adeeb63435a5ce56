"""Progress is shown as bars in a notebook, and as lines where nothing can be redrawn."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from rlaif_framework.progress import NotebookProgress, Progress


class ZMQInteractiveShell:
    """What rich knows a notebook by."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)


@pytest.mark.usefixtures("notebook")
def test_a_notebook_gets_plain_lines_and_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bars: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, **settings: Any) -> None:
            bars.append(settings | {"updates": 0})

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exception: object) -> None:
            bars[-1]["closed"] = True

        def update(self) -> None:
            bars[-1]["updates"] += 1

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    progress = Progress.create()
    assert isinstance(progress, NotebookProgress)
    progress.print("a [bold]line[/bold] " + "x" * 300)
    assert capsys.readouterr().out == "a [bold]line[/bold] " + "x" * 300 + "\n"

    def items() -> Iterator[int]:
        yield from range(3)

    assert list(progress.track(items(), 5, "a\x1bb", done=2)) == [0, 1, 2]
    assert bars[0]["total"] == 5
    assert bars[0]["initial"] == 2
    assert bars[0]["desc"] == "a\\x1bb"
    assert bars[0]["updates"] == 3
    assert bars[0]["closed"]


@pytest.mark.usefixtures("notebook")
def test_a_quiet_notebook_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress.create(quiet=True)
    progress.print("a line")
    assert list(progress.track([1], 1, "bar")) == [1]
    assert capsys.readouterr() == ("", "")


def test_without_a_notebook_nothing_of_tqdm_is_used() -> None:
    assert type(Progress.create()) is Progress
    output = io.StringIO()
    Progress(Console(file=output)).print("x")
    assert output.getvalue() == "x\n"
