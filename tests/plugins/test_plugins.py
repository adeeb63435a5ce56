"""The plugin layer: what is found, what a broken plugin does to the others, and what a user is told."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import (
    Comparison,
    DataError,
    MissingPackageError,
    PluginError,
    PluginManager,
    Prompt,
)
from rlaif_framework.assembly.preflight import check_labeler
from rlaif_framework.cli.main import main
from rlaif_framework.contracts.protocols import PROTOCOLS
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.builtins import BUILTINS
from rlaif_framework.plugins.component import SLOTS, Slot, walk_configs
from rlaif_framework.plugins.configs import BASES
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.plugins.versions import framework_version
from support.fake_plugins import HEAD, Site, labeler_code

ROOT = Path(__file__).parents[2]


def row(name: str, manager: PluginManager | None = None) -> Plugin:
    found = [p for p in (manager or PluginManager.load()).plugins if p.name == name]
    assert len(found) == 1, f"{name} is listed {len(found)} times"
    return found[0]


def third_parties(manager: PluginManager) -> dict[str, str | None]:
    return {p.name: p.error for p in manager.plugins if p.distribution != "rlaif-framework"}


# What is found


def test_a_healthy_plugin_is_listed_with_its_distribution_and_components_and_can_be_used(site: Site) -> None:
    site.install("rlaif-acme", labeler_code("acme/committee"), version="0.3.1")
    manager = PluginManager.load()
    plugin = row("acme", manager)
    assert (plugin.distribution, plugin.version, plugin.error) == ("rlaif-acme", "0.3.1", None)
    assert (plugin.hooks, plugin.components) == (["rlaif_labelers"], ["labeler acme/committee"])
    component = manager.find("labeler", "acme/committee")
    assert component.summary == "Made for a test."
    config = component.config.model_validate({"kind": "acme/committee", "votes": 5})
    assert manager.resolve("labeler", config).__name__ == "LengthLabeler"


def test_every_builtin_is_registered_without_any_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_PLUGINS", "")
    plugins = PluginManager.load().plugins
    assert [f"rlaif_plugins.{p.name}" for p in plugins] == list(BUILTINS)
    assert [p.error for p in plugins] == [None] * len(BUILTINS)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("", []), ("acme", ["acme"]), ("acme, other", ["acme", "other"]), ("other", ["other"]), (" , ", [])],
)
def test_rlaif_plugins_names_the_plugins_that_are_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch, variable: str, expected: list[str]
) -> None:
    for name in ("acme", "other"):
        site.install(f"rlaif-{name}", labeler_code(f"{name}/x"))
    assert sorted(third_parties(PluginManager.load())) == ["acme", "other"]
    sys.modules.pop("rlaif_acme"), sys.modules.pop("rlaif_other")
    monkeypatch.setenv("RLAIF_PLUGINS", variable)
    assert sorted(third_parties(PluginManager.load())) == expected
    imported = [name for name in ("acme", "other") if f"rlaif_{name}" in sys.modules]
    assert imported == expected, "a plugin that is not allowed was imported"


def test_a_misspelt_name_in_rlaif_plugins_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    monkeypatch.setenv("RLAIF_PLUGINS", "acmee")
    assert "RLAIF_PLUGINS" in str(row("acmee").error)


# What a broken plugin does

BROKEN = {
    "import": ("import rlaif_not_there\n", "ModuleNotFoundError: No module named 'rlaif_not_there'"),
    "syntax": ("def (:\n", "SyntaxError"),
    "exit": ("raise SystemExit('bye')\n", "SystemExit: bye"),
    "assertion": ("assert False, 'never'\n", "AssertionError: never"),
    "hook-raises": (HEAD + "@hookimpl\ndef rlaif_labelers():\n    raise RuntimeError('boom')\n", "rlaif_labelers"),
    "hook-exits": (HEAD + "@hookimpl\ndef rlaif_tasks():\n    raise SystemExit(3)\n", "SystemExit: 3"),
    "hook-gives-none": (
        HEAD + "@hookimpl\ndef rlaif_tasks():\n    return None\n",
        "rlaif_tasks() returned None; yield",
    ),
    "hook-gives-one": (
        labeler_code("b/x").replace("yield Comp", "return Comp"),
        "yield each Component, or return a list of them",
    ),
    "command-gives-none": (
        HEAD + "@hookimpl\ndef rlaif_commands():\n    return None\n",
        "rlaif_commands() returned None; yield each Command",
    ),
    "kind": (
        labeler_code("b/x").replace('Component("b/x"', 'Component("b/y"'),
        "labeler 'b/y': the 'kind' of its config MadeConfig is 'b/x'; use the same name in both",
    ),
    "hook-gives-text": (HEAD + "@hookimpl\ndef rlaif_tasks():\n    return ['x']\n", "not a Component"),
    "misspelt": (HEAD + "@hookimpl\ndef rlaif_labellers():\n    return []\n", "did you mean 'rlaif_labelers'?"),
    "unmarked": (
        HEAD + "def rlaif_labelers():\n    return []\n@hookimpl\ndef rlaif_tasks():\n    return []\n",
        "'rlaif_labelers' is not marked as a hook; write @hookimpl above it",
    ),
    "nothing": ("x = 1\n", "no hook"),
    "argument": (HEAD + "@hookimpl\ndef rlaif_run_started(runn):\n    pass\n", "runn"),
    "bare": (labeler_code("committee"), "only built-ins have bare names"),
    "builtin": (labeler_code("llm"), "already offered by plugin 'labelers.llm' (rlaif-framework"),
    "target": (labeler_code("b/x", target="rlaif_plugins.labelers.length"), "not 'module:attribute'"),
    "no target": (
        labeler_code("b/x").replace('"rlaif_plugins.labelers.length:LengthLabeler"', "None"),
        "labeler 'b/x': its target 'None' is not 'module:attribute'",
    ),
    "fields": (
        labeler_code("b/x").replace("MadeConfig(LabelerConfig):", "MadeConfig(LabelerConfig):\n    odd: 'Nowhere' = 1"),
        "its config cannot be built",
    ),
    "config": (labeler_code("b/x").replace("MadeConfig(LabelerConfig)", "MadeConfig"), "is not a LabelerConfig"),
    "config of another kind": (
        labeler_code("b/x").replace("LabelerConfig", "RewardConfig"),
        "labeler 'b/x': its config MadeConfig is not a LabelerConfig; derive it from LabelerConfig",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_one_row_of_the_report_and_the_others_keep_working(site: Site, case: str) -> None:
    code, reason = BROKEN[case]
    site.install("rlaif-a", labeler_code("a/x"))
    site.install("rlaif-broken", code)
    site.install("rlaif-z", labeler_code("z/x"))
    manager = PluginManager.load()
    broken = row("broken", manager)
    assert reason in str(broken.error)
    assert broken.components == []
    assert third_parties(manager) == {"a": None, "broken": broken.error, "z": None}
    assert {"a/x", "z/x", "llm", "length"} <= set(manager.names("labeler"))
    assert broken.module is None or not manager.hooks.is_registered(broken.module)


def test_a_component_that_fails_second_takes_the_first_with_it(site: Site) -> None:
    code = labeler_code("two/x") + "    yield Component('bare', MadeConfig, 'a:b')\n"
    site.install("rlaif-two", code)
    manager = PluginManager.load()
    assert "bare" in str(row("two", manager).error)
    assert "two/x" not in manager.names("labeler")


def test_one_plugin_with_two_components_of_one_name_is_refused(site: Site) -> None:
    site.install("rlaif-two", labeler_code("two/x") + "    yield Component('two/x', MadeConfig, 'a:b')\n")
    assert "two components named labeler 'two/x'" in str(row("two").error)


def test_a_plugin_named_like_a_builtin_does_not_replace_it(site: Site) -> None:
    site.install("rlaif-mine", labeler_code("mine/llm"), name="labelers.llm")
    manager = PluginManager.load()
    builtin, other = (p for p in manager.plugins if p.name == "labelers.llm")
    assert (builtin.error, other.error) == (None, None)
    assert manager.find("labeler", "llm").target == "rlaif_plugins.labelers.llm:LLMLabeler"
    assert manager.hooks.is_registered(builtin.module)


def test_one_module_under_two_names_does_not_unregister_the_first(site: Site) -> None:
    site.install("rlaif-a", labeler_code("a/x"), module="rlaif_shared")
    site.install("rlaif-b", labeler_code("a/x"), module="rlaif_shared")
    manager = PluginManager.load()
    first = row("a", manager)
    assert "plugin 'a' (rlaif-a 1.0) is the same module" in str(row("b", manager).error)
    assert first.error is None
    assert manager.hooks.is_registered(first.module), "the healthy plugin was unregistered"


@pytest.mark.parametrize(
    "requirement", ["rlaif-framework>=99", "rlaif_framework (>=99)", 'rlaif-framework>=99; python_version >= "3"']
)
def test_a_plugin_for_another_framework_version_is_refused_before_its_code_runs(site: Site, requirement: str) -> None:
    site.install("rlaif-new", "raise RuntimeError('its code ran')\n", requires=["pydantic>=2", requirement])
    error = str(row("new").error)
    assert ">=99" in error
    assert framework_version() in error
    assert "rlaif_new" not in sys.modules


@pytest.mark.parametrize(
    "requirement", ["rlaif-framework>=0.0.1", 'rlaif-framework>=99; extra == "future"', "someone-else>=99"]
)
def test_a_plugin_whose_requirements_are_met_is_loaded(site: Site, requirement: str) -> None:
    site.install("rlaif-old", labeler_code("old/x"), requires=[requirement])
    assert row("old").error is None


def test_a_component_of_a_plugin_that_failed_is_reported_with_the_plugins_error(site: Site) -> None:
    site.install("rlaif-gone", "import rlaif_not_there\n")
    with pytest.raises(
        PluginError,
        match=r"no labeler named 'gone/x'.*plugin 'gone' \(rlaif-gone 1\.0\) failed to load: .*rlaif_not_there",
    ):
        PluginManager.load().find("labeler", "gone/x")


# What a component's target may be


def resolve(site: Site, target: str) -> object:
    site.install("rlaif-t", labeler_code("t/x", target=target))
    manager = PluginManager.load()
    config = manager.find("labeler", "t/x").config.model_validate({"kind": "t/x"})
    return manager.resolve("labeler", config)


def test_a_missing_package_of_a_target_gives_the_pip_command(site: Site) -> None:
    (site.folder / "rlaif_heavy.py").write_text("import committee_models.deep\n")
    with pytest.raises(MissingPackageError, match=r"labeler 't/x': the package .*: pip install committee_models$"):
        resolve(site, "rlaif_heavy:Committee")


def test_a_target_module_that_is_not_there_is_the_plugins_fault_not_a_missing_package(site: Site) -> None:
    with pytest.raises(PluginError, match=r"labeler 't/x': cannot import rlaif_t\.deep:X"):
        resolve(site, "rlaif_t.deep:X")


def test_a_target_attribute_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(PluginError, match=r"cannot import rlaif_plugins\.labelers\.length:Lenght: .*Lenght"):
        resolve(site, "rlaif_plugins.labelers.length:Lenght")


@pytest.mark.parametrize("code", ["raise ValueError('half built')", "raise SystemExit('half built')"])
def test_whatever_a_target_module_raises_is_a_message(site: Site, code: str) -> None:
    (site.folder / "rlaif_half.py").write_text(code)
    with pytest.raises(PluginError, match=r"cannot import rlaif_half:X: .*half built"):
        resolve(site, "rlaif_half:X")


def test_a_target_without_the_protocols_methods_is_refused_by_name(site: Site) -> None:
    with pytest.raises(PluginError, match=r"rlaif_plugins\.strategies\.direct:Direct lacks label\(\)"):
        resolve(site, "rlaif_plugins.strategies.direct:Direct")


@pytest.mark.parametrize("slot", SLOTS)
def test_every_builtin_target_can_be_imported_and_satisfies_its_protocol(slot: str) -> None:
    manager = PluginManager.load()
    assert manager.names(slot), f"no built-in fills the slot {slot}"  # type: ignore[arg-type]
    for component, _ in manager.components(slot):  # type: ignore[arg-type]
        config = component.config.model_construct(kind=component.name)
        try:
            target = manager.resolve(slot, config)  # type: ignore[arg-type]
        except MissingPackageError as error:
            if not error.is_optional:
                raise
            continue
        methods = [n for n in vars(PROTOCOLS[slot]) if not n.startswith("_")]
        assert all(inspect.isfunction(getattr(target, name)) for name in methods)
        assert component.summary.endswith("."), f"{component.name}: its config has no docstring"


# The command line


def run_main(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rlaif", *argv])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_plugins_strict_exits_with_1_only_if_one_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-a", labeler_code("a/x"))
    assert run_main(monkeypatch, "plugins", "--strict") == 0
    site.install("rlaif-broken", "import rlaif_not_there\n")
    assert run_main(monkeypatch, "plugins") == 0
    assert "FAILED: ModuleNotFoundError: No module named 'rlaif_not_there'" in capsys.readouterr().out
    assert run_main(monkeypatch, "plugins", "--strict") == 1


def test_plugins_and_components_print_json_with_owners_and_errors(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-a", labeler_code("a/x"))
    site.install("rlaif-broken", "import rlaif_not_there\n")
    run_main(monkeypatch, "plugins", "--json")
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["a"]["components"] == ["labeler a/x"]
    assert "rlaif_not_there" in rows["broken"]["error"]
    run_main(monkeypatch, "components", "labeler", "--json")
    found = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert found["a/x"]["plugin"] == "a"
    assert {r["kind"] for r in found.values()} == {"labeler"}


CHECK_IMPORTS = """
import sys
from rlaif_framework.cli.main import main
sys.argv = ["rlaif", *{argv!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [n for n in ("torch", "transformers", "datasets", "scipy", "numpy", "peft", "jinja2") if n in sys.modules]
assert not heavy, f"imports {{heavy}}"
"""


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["run", "--help"], ["plugins"], ["components"], ["show", "labeler", "llm"], ["schema"]],
    ids=" ".join,
)
def test_a_command_that_only_looks_imports_nothing_heavy(argv: list[str]) -> None:
    code = CHECK_IMPORTS.format(argv=argv)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_in_a_lifecycle_hook_has_the_line_of_the_plugin(site: Site) -> None:
    code = HEAD + "@hookimpl\ndef rlaif_run_finished(error):\n    {}['lost']\n"
    site.install("rlaif-acme", code)
    ((_, message),) = PluginManager.load().call_hooks("rlaif_run_finished", run=None, error=None)
    assert message == f"KeyError: 'lost' ({site.folder / 'rlaif_acme.py'}, line 5)"


def test_rlaif_trace_tells_which_plugins_a_hook_calls(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("rlaif-acme", HEAD + "@hookimpl\ndef rlaif_run_finished(error):\n    pass\n")
    monkeypatch.setenv("RLAIF_TRACE", "1")
    PluginManager.load().hooks.hook.rlaif_run_finished(run=None, error=None)
    assert "rlaif trace: rlaif_run_finished -> ['acme']" in capsys.readouterr().out


# What a component is asked before anything is computed


def config(manager: PluginManager, slot: Slot, value: object) -> Any:
    return narrow(slot, value, manager)


LLM = {
    "kind": "llm",
    "backend": {"kind": "openai", "model": "m", "base_urls": "http://localhost/v1", "concurrency": 96},
}
COMPARISON = Comparison("c", Prompt("p", "text", "text"), ("a", "b"), 1.0, "synthetic")


def test_a_question_is_asked_of_the_components_in_slots_at_any_depth(manager: PluginManager) -> None:
    repeated = {"kind": "self-consistency", "strategy": {"kind": "few-shot", "strategy": "chain-of-thought"}}
    assert config(manager, "strategy", repeated).longest_answer == 512
    assert config(manager, "strategy", "direct").longest_answer == 0
    ensemble = {"kind": "ensemble", "labelers": {"a": "length", "b": {"kind": "mix", "labeler": LLM}, "c": "rouge"}}
    assert config(manager, "labeler", ensemble).preferred_chunk_size() == 96
    assert config(manager, "labeler", ensemble).missing_field(COMPARISON) == "has a prompt without a reference"
    assert config(manager, "reward", {"kind": "sum", "terms": {"a": "length", "b": "bradley-terry"}}).needs_preferences
    assert not config(manager, "reward", {"kind": "ensemble", "members": ["length", "length"]}).needs_preferences


def test_the_outer_labeler_answers_for_the_inner_one(manager: PluginManager) -> None:
    """A mix asks its labeler only about comparisons whose preference it does not copy."""
    mix = config(manager, "labeler", {"kind": "mix", "labeler": "rouge", "gold_source": "synthetic"})
    assert mix.missing_field(COMPARISON) is None
    check_labeler("evaluate.judge", mix, [COMPARISON])
    with pytest.raises(DataError, match="judge 'mix': comparison 'c' has a prompt without a reference"):
        check_labeler("evaluate.judge", mix, [replace(COMPARISON, preference_source="human")])
    direct = config(manager, "reward", {"kind": "direct", "labeler": "rouge"})
    with pytest.raises(DataError, match="reward 'direct': comparison 'c' has a prompt without a reference"):
        check_labeler("reward", direct, [COMPARISON])


def test_slots_inside_groups_of_settings_are_found(manager: PluginManager) -> None:
    selection = {"judge": {"kind": "similarity"}}
    algorithm = config(manager, "algorithm", {"kind": "reinforce", "checkpoint_selection": selection})
    assert [part.kind for part in walk_configs([algorithm])] == ["reinforce", "similarity"]
    assert "embedding" in [load.role for load in algorithm.loads("policy")]


def test_a_slot_refuses_a_config_of_another_kind(manager: PluginManager) -> None:
    with pytest.raises(ValueError, match="expected a reward, got LengthConfig"):
        config(manager, "reward", config(manager, "labeler", "length"))


# What plugin authors rely on


def test_every_hook_is_documented_with_the_version_it_came_in() -> None:
    hooks = [f for name, f in vars(hookspecs).items() if name.startswith("rlaif_")]
    assert len(hooks) == 15
    for hook in hooks:
        assert "Added in 0." in (hook.__doc__ or ""), hook.__name__
    assert set(hookspecs.SLOT_HOOKS) == set(SLOTS) == set(PROTOCOLS)
    assert {f"{h.__name__}" for h in hooks} >= set(hookspecs.SLOT_HOOKS.values())


ROOMS = [
    "rlaif_framework",
    *(f"rlaif_framework.{path.parent.name}" for path in ROOT.glob("rlaif_framework/*/__init__.pyi")),
]
PUBLIC = {room: list(importlib.import_module(room).__all__) for room in ROOMS}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in PUBLIC.items() for name in names])
def test_every_public_name_exists_and_is_documented(room: str, name: str) -> None:
    value = getattr(importlib.import_module(room), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__, f"{name} has no docstring"


def test_every_public_name_is_offered_in_one_place() -> None:
    rooms: dict[str, list[str]] = {}
    for room, names in PUBLIC.items():
        for name in names:
            rooms.setdefault(name, []).append(room)
    assert {name: found for name, found in rooms.items() if len(found) > 1} == {}


def modules_of_plugins() -> list[Path]:
    return sorted((ROOT / "plugins" / "rlaif_plugins").rglob("*.py"))


@pytest.mark.parametrize("path", modules_of_plugins(), ids=lambda p: str(p.relative_to(ROOT / "plugins")))
def test_builtin_plugins_use_only_the_public_names(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.partition(".")[0] == "rlaif_framework"]
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rlaif_framework":
            assert node.module in PUBLIC, f"line {node.lineno}: {node.module} is not a room"
            private = {a.name for a in node.names} - set(PUBLIC[node.module])
            assert not private, f"line {node.lineno}: {private} not in {node.module}.__all__"


def test_every_public_name_of_a_room_has_a_user() -> None:
    """Framework code imports from modules: the rooms' names are for plugins, the documentation and the tests."""
    folders = [ROOT / "plugins", ROOT / "docs", ROOT / "tests", ROOT / "benchmarks", ROOT / "README.md"]
    files = [f for folder in folders for f in ([folder] if folder.is_file() else folder.rglob("*.*"))]
    text = "\n".join(f.read_text() for f in files if f.suffix in (".py", ".md"))
    unused = [f"{room}.{name}" for room in ROOMS[1:] for name in PUBLIC[room] if not re.search(rf"\b{name}\b", text)]
    assert unused == []


def test_a_builtin_plugin_reads_no_other_plugin() -> None:
    """A plugin is read without opening another: what two of them need is the framework's to offer."""
    for path in modules_of_plugins():
        parts = path.relative_to(ROOT / "plugins" / "rlaif_plugins").with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlaif_plugins."):
                assert str(node.module).split(".")[1] == parts[0], f"{path}, line {node.lineno}"


def test_every_component_config_documents_every_setting() -> None:
    manager = PluginManager.load()
    for slot in SLOTS:
        for component, _ in manager.components(slot):
            assert issubclass(component.config, BASES[slot])
            for key, field in component.config.model_fields.items():
                assert key == "kind" or field.description, f"{slot} {component.name}: '{key}' has no docstring"


def test_plugins_work_in_a_fresh_process_too(site: Site) -> None:
    """Entry points are found by every process that `accelerate launch` starts."""
    site.install("rlaif-acme", labeler_code("acme/committee"))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "rlaif_framework", "show", "labeler", "acme/committee"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    assert "votes" in done.stdout
