"""Help, versions and misspelt commands."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from support.outcomes import Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


def run_process(*argv: object, folder: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlaif_framework", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=timeout,
    )


def test_a_real_process_exits_with_2_and_says_why(tmp_path: Path) -> None:
    done = run_process("check", "nowhere.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlaif: no spec file at nowhere.yaml; see specs/ for examples\n"


def test_a_misspelt_command_or_option_is_answered_with_the_nearest(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("pluggins")
    assert found.code == 2
    assert "No such command 'pluggins'. Did you mean 'plugins', 'new-plugin'?" in found.err
    found = rlaif("run", "spec.yaml", "--ot", "x")
    assert found.code == 2
    assert "No such option: --ot" in found.err
    assert rlaif("run").code == 2


def test_the_version_and_help_are_printed(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("--version")
    assert (found.code, found.out) == (0, f"rlaif-framework {version('rlaif-framework')}\n")
    for argv in (["-h"], ["show", "-h"], ["show", "--help"]):
        found = rlaif(*argv)
        assert found.code == 0
        assert "-h, --help" in found.out


def test_the_list_of_commands_is_not_cut_off(rlaif: Callable[..., Outcome]) -> None:
    assert "..." not in rlaif("--help").out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["show", "labeler", "similarty"], "no labeler named 'similarty'; did you mean 'similarity'?"),
        (["show", "labeller", "llm"], "no kind of component named 'labeller'; did you mean 'labeler'?"),
        (["components", "rewrd"], "no kind of component named 'rewrd'; did you mean 'reward'?"),
        (
            ["components", "qqq"],
            "known: algorithm, backend, command, labeler, metric, reward, strategy, task, tracker.",
        ),
    ],
)
def test_a_misspelt_component_is_answered_with_the_nearest(
    rlaif: Callable[..., Outcome], argv: list[str], part: str
) -> None:
    refused(rlaif(*argv), part)


def test_show_prints_each_setting_with_its_default_and_meaning(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("show", "labeler", "llm")
    rows = [line.split() for line in found.out.splitlines()]
    assert next(row for row in rows if row[:1] == ["backend"])[1] == "required"
    assert "The prompt strategy." in found.out
    schema = json.loads(rlaif("show", "labeler", "length", "--json").out)
    assert schema["properties"]["prefer"]["enum"] == ["longer", "shorter"]


def test_plan_tells_what_is_to_do_and_what_it_loads_without_writing(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tiny_model: Path
) -> None:
    found = rlaif("plan", spec())
    assert found.code == 0
    assert "6 of 6 stages to do" in found.out
    assert found.out.splitlines()[-1].startswith("expected time: not known, because")
    steps = json.loads(rlaif("plan", spec(), "--json").out)
    assert [s["stage"] for s in steps] == ["sft", "sample", "label", "gate", "reward", "improve"]
    assert not any(s["cached"] for s in steps)
    assert steps[0]["loads"][0]["model"] == str(tiny_model)
    assert steps[0]["loads"][0]["parameters"] > 30_000
    assert files(Path()) == set()


def test_debug_shows_the_traceback_to_who_asks_for_it(
    rlaif: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_DEBUG", "1")
    assert "Traceback" in rlaif("check", "nowhere.yaml").err


def test_a_model_that_is_nowhere_is_told_at_once(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the libraries would go on trying for most of a minute."""
    looked_up: list[str] = []

    def look_up(host: str, *rest: Any) -> None:
        looked_up.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found = rlaif("run", spec("policy.model=nobody/nothing-here", "arms={}"), "--out", "out")
    assert found.code == 2
    assert "no model 'nobody/nothing-here' in the local cache" in found.err
    planned = rlaif("plan", spec("policy.model=nobody/nothing-here", "arms={}"))
    assert "size unknown" in planned.out
    assert looked_up == []
