"""What plugins print, fail at and take does not reach the JSON and YAML of other plugins' users."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from rlaif_framework.cli.main import main
from rlaif_framework.cli.setup import report_thread_error
from rlaif_framework.plugins import discovery
from support.fake_plugins import HEAD, Site, labeler_code

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "specs/quickstart.yaml")

NOISY = (
    """
import atexit, os, subprocess, sys
print("printed at import")
atexit.register(print, "printed at exit")
sys.__stdout__.write("written to the stream of the process\\n")
os.write(1, b"written to the descriptor\\n")
subprocess.run([sys.executable, "-c", "print('printed by a child')"])
"""
    + labeler_code("acme/x")
    + """
    print("printed in a hook")
"""
)


def run_process(site: Site, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.folder), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "rlaif_framework", *argv], capture_output=True, text=True, check=False, env=env
    )


JSON = [
    ["schema"],
    ["plugins", "--json"],
    ["components", "--json"],
    ["show", "labeler", "acme/x", "--json"],
    ["check", QUICKSTART, "--json"],
]


@pytest.mark.parametrize("argv", [*JSON, ["check", QUICKSTART]], ids=lambda argv: " ".join(map(str, argv[:1])))
def test_what_a_plugin_prints_goes_to_stderr(site: Site, argv: Sequence[str]) -> None:
    site.install("rlaif-acme", NOISY)
    done = run_process(site, *argv)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) if argv == ["check", QUICKSTART] else json.loads(done.stdout)
    for text in ("at import", "at exit", "to the stream", "to the descriptor", "by a child", "in a hook"):
        assert text in done.stderr
        assert text not in done.stdout


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rlaif", *argv])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


POSTS = """
from typing import Literal
from rlaif_framework import Component, hookimpl
from rlaif_plugins.tasks.tldr import TldrConfig

class PostsConfig(TldrConfig):
    kind: Literal["acme/posts"] = "acme/posts"

    def loads(self, policy):
        print("printed by a config")
        return super().loads(policy)

@hookimpl
def rlaif_tasks():
    yield Component("acme/posts", PostsConfig, "rlaif_target:Posts")
"""
PLAN = {
    "task": "acme/posts",
    "policy": {"model": "MODEL", "dtype": "fp32"},
    "sft": None,
    "arms": {"a": {"reward": "length", "algorithm": "reinforce"}},
    "evaluate": None,
}


def test_a_plan_as_json_is_free_of_what_plugins_print(
    site: Site, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-acme", POSTS)
    code = "from rlaif_plugins.tasks.tldr.task import TldrTask\nprint('printed by a target')\n"
    (site.folder / "rlaif_target.py").write_text(code + "class Posts(TldrTask): pass\n")
    spec = site.folder / "spec.json"
    spec.write_text(json.dumps(PLAN).replace("MODEL", str(tiny_model)))
    assert call(monkeypatch, "plan", str(spec), "--json", "--store", str(site.folder / "store")) == 0
    captured = capfd.readouterr()
    assert [step["name"] for step in json.loads(captured.out)][:2] == ["sft", "a/reward"]
    assert "printed by a target" in captured.err
    assert "printed by a config" in captured.err


WITHOUT_SCHEMA = (
    HEAD
    + """
from collections.abc import Callable

class OddConfig(LabelerConfig):
    kind: Literal["odd/x"] = "odd/x"
    votes: int = 3
    hook: Callable[[int], int] = abs

@hookimpl
def rlaif_labelers():
    yield Component("odd/x", OddConfig, "rlaif_odd:X")
"""
)
REASON = "plugin 'odd' (rlaif-odd 1.0) failed to load: labeler 'odd/x': its config has no JSON Schema (field 'hook')"


@pytest.mark.parametrize("argv", [["schema"], ["check", QUICKSTART, "--json"], ["components", "--json"]])
def test_a_config_without_a_schema_is_its_plugins_error_only(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    site.install("rlaif-odd", WITHOUT_SCHEMA)
    assert call(monkeypatch, *argv) == 0
    captured = capsys.readouterr()
    text = json.dumps(json.loads(captured.out))
    assert "acme" in text or argv[0] == "check"
    assert "odd/x" not in text
    assert f"rlaif: warning: {REASON}" in captured.err


@pytest.mark.parametrize(
    "field",
    [
        "hook: Callable[[int], int] = abs",
        "hook: Callable[[int], int] | None = None",
        "hooks: list[Callable[[], None]] = []",
        "thing: Thing = Thing()",
        "limit: Annotated[int, WithJsonSchema({'minimum': {1}})] = 1",
        "limit: Annotated[float, WithJsonSchema({'minimum': float('nan')})] = 1",
    ],
)
def test_every_kind_of_missing_schema_is_found_when_the_plugin_is_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    head = (
        "from typing import Annotated\nfrom pydantic import ConfigDict, WithJsonSchema\nclass Thing: pass\n"
        "from collections.abc import Callable\n"
    )
    code = WITHOUT_SCHEMA.replace("    hook: Callable[[int], int] = abs", f"    {field}").replace(
        "class OddConfig(LabelerConfig):", "class OddConfig(LabelerConfig, arbitrary_types_allowed=True):"
    )
    site.install("rlaif-odd", head + code)
    assert call(monkeypatch, "schema") == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert "labeler 'odd/x': its config has no JSON Schema" in captured.err


def test_settings_that_cannot_be_written_are_an_error_of_their_component(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = WITHOUT_SCHEMA.replace("    hook: Callable[[int], int] = abs", "    limit: Any = object()")
    site.install("rlaif-odd", "from typing import Any\n" + code)
    assert call(monkeypatch, "check", QUICKSTART, "--set", "evaluate.judge=odd/x") == 2
    message = "labeler 'odd/x' of rlaif-odd 1.0: its settings cannot be written as JSON"
    assert message in capsys.readouterr().err


def test_a_config_that_contains_itself_has_a_schema(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = WITHOUT_SCHEMA.replace("    hook: Callable[[int], int] = abs", "    inner: 'OddConfig | None' = None")
    site.install("rlaif-odd", code)
    assert call(monkeypatch, "schema") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    definition = json.loads(captured.out)["$defs"]["labeler.odd.x"]
    assert definition["properties"]["kind"]["const"] == "odd/x"


FAULTY = (
    HEAD
    + """
class AConfig(LabelerConfig):
    pass

class NoLabel:
    def __init__(self, config, context): pass

class WrongLabel(NoLabel):
    def label(self): pass

@hookimpl
def rlaif_labelers():
    for name, target in (("a", "rlaif_bad:NoLabel"), ("b", "rlaif_bad:WrongLabel"), ("c", "rlaif_bad.gone:X")):
        yield Component(f"bad/{name}", AConfig, target)
"""
)


def test_strict_imports_every_target_and_names_each_fault_in_a_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    assert call(monkeypatch, "plugins", "--strict") == 0
    site.install("rlaif-bad", FAULTY)
    site.install("rlaif-broken", "import rlaif_not_there\n")
    capsys.readouterr()
    assert call(monkeypatch, "plugins", "--json") == 0
    assert {row["name"]: row["error"] for row in json.loads(capsys.readouterr().out)}["bad"] is None
    assert call(monkeypatch, "plugins", "--strict", "--json") == 1
    captured = capsys.readouterr()
    title = "rlaif: plugin 'bad' (rlaif-bad 1.0): labeler"
    file = site.folder / "rlaif_broken.py"
    assert captured.err.splitlines() == [
        f"{title} 'bad/a': rlaif_bad:NoLabel lacks label()",
        f"{title} 'bad/b': rlaif_bad:WrongLabel cannot be called as label(comparisons)",
        f"{title} 'bad/c': cannot import rlaif_bad.gone:X: ModuleNotFoundError: No module named 'rlaif_bad.gone'; "
        "'rlaif_bad' is not a package",
        "rlaif: plugin 'broken' (rlaif-broken 1.0): ModuleNotFoundError: No module named 'rlaif_not_there' "
        f"({file}, line 1)",
    ]
    rows = {row["name"]: row["error"] for row in json.loads(captured.out)}
    assert rows["acme"] is None
    assert "lacks label()" in rows["bad"]


def test_a_slow_plugin_is_named_with_its_time(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    call(monkeypatch, "check", QUICKSTART)
    assert "s to load" not in capsys.readouterr().err
    monkeypatch.setattr(discovery, "SLOW_SECONDS", -1.0)
    call(monkeypatch, "plugins")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "acme" in line)
    assert re.search(r"labeler acme/x \(slow: \d+\.\d s to load\)", line)
    call(monkeypatch, "check", QUICKSTART)
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if "acme" in line)
    assert re.match(r"rlaif: warning: plugin 'acme' \(rlaif-acme 1\.0\) took \d+\.\d s to load", warning)


def test_rlaif_debug_prints_the_traceback_of_a_plugin(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-broken", "import rlaif_not_there\n")
    call(monkeypatch, "check", QUICKSTART)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("RLAIF_DEBUG", "1")
    call(monkeypatch, "check", QUICKSTART)
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "import rlaif_not_there" in error


def test_an_error_of_the_system_in_a_thread_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> str:
        def work() -> None:
            raise error

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return capsys.readouterr().err

    monkeypatch.setattr(threading, "excepthook", report_thread_error)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert fail(full) == "rlaif: warning: a thread has failed: [Errno 28] No space left on device\n"
    assert "Traceback" in fail(ValueError("a bug"))
    monkeypatch.setenv("RLAIF_DEBUG", "1")
    assert "Traceback" in fail(full)
