"""Subcommands of plugins: listed without an import, imported when they are called, and never in place of another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from rlaif_framework import PluginManager
from rlaif_framework.cli.main import app
from rlaif_framework.plugins.command import BUILTIN_COMMANDS
from support.fake_plugins import Site

RunCommand = Callable[..., tuple[int, str, str]]


def offering(*commands: str) -> str:
    lines = "".join(f"    yield Command({command})\n" for command in commands)
    return f"from rlaif_framework import Command, hookimpl\n\n@hookimpl\ndef rlaif_commands():\n{lines}"


COMPARE = offering("'acme/compare', 'Compare two runs.', 'rlaif_acme_cli:compare'")
CLI = '''
import typer
from rlaif_framework import DataError

def compare(first: str, times: int = 1):
    """Compare two runs, at length."""
    if first == "gone":
        raise DataError("there is no run 'gone'")
    print(f"{first} {times}")
    if first == "worse":
        raise typer.Exit(3)

app = typer.Typer(help="Everything of acme.")

@app.command()
def up(host: str):
    print(f"up {host}")

@app.command()
def down(host: str):
    print(f"down {host}")
'''


@pytest.fixture
def acme(site: Site) -> Site:
    """A plugin with a function and with a group of commands."""
    site.install("rlaif-acme", COMPARE + "    yield Command('acme', 'All of acme.', 'rlaif_acme_cli:app')\n")
    (site.folder / "rlaif_acme_cli.py").write_text(CLI)
    return site


def test_the_list_of_the_built_in_commands_is_that_of_the_program() -> None:
    group = typer.main.get_command(app)
    assert sorted(group.commands) == sorted(BUILTIN_COMMANDS)  # type: ignore[attr-defined]


def test_the_commands_of_plugins_are_listed_without_importing_them(acme: Site, rlaif: RunCommand) -> None:
    code, out, _ = rlaif("components", "command")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["command", "acme", "All", "of", "acme."] in lines
    assert ["command", "acme/compare", "Compare", "two", "runs."] in lines
    assert {row["kind"] for row in json.loads(rlaif("components", "--json")[1])} > {"labeler", "command"}
    code, out, _ = rlaif("plugins")
    assert "command acme/compare, command acme" in next(line for line in out.splitlines() if "rlaif-acme" in line)
    assert "rlaif_acme_cli" not in sys.modules


HELP = """
import sys
from rlaif_framework.cli.main import main
sys.argv = ["rlaif", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("imported:", *(name for name in ("rlaif_acme", "pydantic", "pluggy") if name in sys.modules))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]], ids=" ".join)
def test_help_imports_no_plugin_and_says_where_commands_are_listed(acme: Site, arguments: list[str]) -> None:
    path = os.pathsep.join([str(acme.folder), *sys.path])
    command = [sys.executable, "-c", HELP.format(arguments=arguments)]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    imported = found.stdout.splitlines()[-1].split()[1:]
    assert set(imported) <= (set() if arguments == ["--help"] else {"pydantic"})
    assert ("'rlaif components command'" in found.stdout) == (arguments == ["--help"])


def test_help_without_plugins_has_no_word_about_their_commands(
    rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_PLUGINS", "")
    assert "components command" not in rlaif("--help")[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["acme/compare", "a"], (0, "a 1\n")),
        (["acme/compare", "a", "--times", "3"], (0, "a 3\n")),
        (["acme/compare", "worse"], (3, "worse 1\n")),
        (["acme", "down", "x"], (0, "down x\n")),
    ],
    ids=["default", "option", "exit code", "group"],
)
def test_a_command_gets_its_arguments_and_sets_the_exit_code(
    acme: Site, rlaif: RunCommand, arguments: list[str], expected: tuple[int, str]
) -> None:
    code, out, _ = rlaif(*arguments)
    assert (code, out) == expected


def test_a_command_has_its_own_help_and_its_own_errors(acme: Site, rlaif: RunCommand) -> None:
    assert "Compare two runs, at length." in rlaif("acme/compare", "--help")[1]
    assert "--times" in rlaif("acme/compare", "--help")[1]
    assert "up" in rlaif("acme", "--help")[1]
    code, _, err = rlaif("acme/compare", "a", "--tims", "3")
    assert (code, "No such option: --tims" in err) == (2, True)
    code, _, err = rlaif("acme/compare", "gone")
    assert (code, err) == (2, "rlaif: there is no run 'gone'\n")


def test_an_unknown_command_is_an_error_that_suggests_one(acme: Site, rlaif: RunCommand) -> None:
    code, _, err = rlaif("acme/compar")
    assert code == 2
    assert "No such command 'acme/compar'" in err
    assert "acme/compare" in err


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("'run', 'x', 'a:b'", "command 'run' is a command of rlaif itself, which no plugin can replace"),
        ("'inspect', 'x', 'a:b'", "command 'inspect': the namespace 'inspect' belongs to the distribution"),
        ("'other/x', 'x', 'a:b'", "command 'other/x': the namespace 'other' belongs to the distribution 'rlaif-other'"),
        ("'acme/x', 'x', 'ab'", "command 'acme/x': its target 'ab' is not 'module:attribute'"),
    ],
)
def test_a_command_that_cannot_be_registered_is_its_plugins_error(site: Site, command: str, reason: str) -> None:
    site.install("rlaif-acme", offering(command))
    (plugin,) = (plugin for plugin in PluginManager.load().plugins if not plugin.builtin)
    assert reason in str(plugin.error)


@pytest.mark.parametrize("intruder", ["rlaif-aaa", "rlaif-zzz"])
def test_another_distribution_cannot_take_a_command(site: Site, intruder: str) -> None:
    site.install("rlaif-acme", COMPARE)
    site.install(intruder, COMPARE)
    manager = PluginManager.load()
    assert manager.commands["acme/compare"][1].distribution == "rlaif-acme"
    errors = {plugin.distribution: plugin.error for plugin in manager.plugins if not plugin.builtin}
    assert errors["rlaif-acme"] is None
    assert "belongs to the distribution 'rlaif-acme'" in str(errors[intruder])


def test_what_yields_no_command_and_one_offered_twice_are_refused(site: Site) -> None:
    site.install("rlaif-acme", COMPARE + "    yield Command('acme/compare', '', 'a:b')\n")
    site.install(
        "rlaif-b", "from rlaif_framework import hookimpl\n@hookimpl\ndef rlaif_commands():\n    return ['x']\n"
    )
    errors = {plugin.name: str(plugin.error) for plugin in PluginManager.load().plugins if not plugin.builtin}
    assert "command 'acme/compare' is already offered by plugin 'acme'" in errors["acme"]
    assert "rlaif_commands returned 'x', not a Command" in errors["b"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("rlaif_gone:x", "cannot import rlaif_gone:x: ModuleNotFoundError"),
        ("rlaif_framework.cli.main:nothing", "cannot import rlaif_framework.cli.main:nothing: AttributeError"),
        ("rlaif_acme:no_package", "the package 'absent' is not installed; install it: pip install absent"),
    ],
)
def test_a_target_that_is_not_there_is_an_error_with_plugin_and_version(
    site: Site, rlaif: RunCommand, target: str, reason: str
) -> None:
    absent = "\ndef __getattr__(name):\n    import absent\n"
    site.install("rlaif-acme", offering(f"'acme', 'x', '{target}'") + absent)
    code, _, err = rlaif("acme")
    assert code == 2
    assert err.startswith(f"rlaif: command 'acme' of rlaif-acme 1.0: {reason}")
    code, _, err = rlaif("plugins", "--strict")
    assert (code, f"plugin 'acme' (rlaif-acme 1.0): command 'acme': {reason}" in err) == (1, True)


def test_a_target_that_is_no_command_is_an_error(site: Site, rlaif: RunCommand) -> None:
    site.install("rlaif-acme", offering("'acme', 'x', 'rlaif_framework.cli.listings:KINDS'"))
    code, _, err = rlaif("acme")
    assert (code, err) == (
        2,
        "rlaif: command 'acme' of rlaif-acme 1.0: rlaif_framework.cli.listings:KINDS is neither a function nor a "
        "typer.Typer\n",
    )
