"""The catalogue: valid, true, searched, and the owner of its namespaces."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

import rlaif_registry
from rlaif_framework import PluginError, PluginManager
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.namespaces import find_owner
from rlaif_registry import read_catalogue, read_files, read_owners
from rlaif_registry.entry import Entry, Kind
from support.fake_plugins import Site, labeler_code

ROOT = Path(__file__).parents[2]
ENTRIES = {entry.distribution: entry for entry in read_catalogue()}
VALID: dict[str, Any] = {
    "distribution": "rlaif-acme",
    "namespace": "acme",
    "summary": "Committees",
    "homepage": "https://example.org/acme",
    "requires": "rlaif-framework>=0.1,<0.2",
    "status": "listed",
    "components": {"labeler": ["acme/a", "acme/b"], "command": ["acme"]},
}
RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put an entry into the catalogue."""

    def add(**changes: Any) -> None:
        found = [*read_files(), {**VALID, **changes}]
        monkeypatch.setattr(rlaif_registry, "read_files", lambda: iter(found))
        read_owners.cache_clear()

    yield add
    monkeypatch.undo()
    read_owners.cache_clear()


# Entries


def test_namespaces_and_distributions_are_listed_once_in_files_of_their_name() -> None:
    names = [entry.distribution for entry in read_catalogue()]
    assert len({entry.namespace for entry in read_catalogue()}) == len(names) == len(set(names))
    assert names == ["rlaif-framework", *sorted(set(names) - {"rlaif-framework"})]
    folder = ROOT / "registry/rlaif_registry/catalogue"
    assert sorted(names) == sorted(path.stem for path in folder.glob("*"))
    assert all(
        path.read_text().startswith("#:schema ../../../specs/schemas/catalogue.json\n") for path in folder.glob("*")
    )


def test_every_slot_is_a_kind() -> None:
    assert set(SLOTS) <= set(get_args(Kind))


def components(manager: PluginManager, distribution: str) -> dict[str, list[str]]:
    """What a distribution offers, by kind."""
    found = defaultdict(list)
    for slot in SLOTS:
        for component, plugin in manager.components(slot):
            if plugin.distribution == distribution:
                found[str(slot)].append(component.name)
    return dict(found)


def test_the_entry_of_the_built_ins_lists_what_there_is() -> None:
    assert ENTRIES["rlaif-framework"].components == components(PluginManager.load(), "rlaif-framework")


@pytest.mark.parametrize("folder", ["example-plugin", "rlaif-trl"])
def test_the_entries_of_our_plugins_list_what_they_offer(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ROOT / "plugins" / folder
    if not source.exists():
        pytest.skip(f"{folder} is not in this checkout")
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    entry = ENTRIES[project["name"]]
    monkeypatch.syspath_prepend(str(source / "src"))
    manager = PluginManager.load()
    for name, module in project["entry-points"]["rlaif_framework.plugins"].items():
        plugin = Plugin(name, project["name"], project["version"], module=importlib.import_module(module))
        manager.add(plugin)
        assert plugin.error is None
    assert entry.components == components(manager, project["name"])
    assert entry.requires in project["dependencies"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"namespace": "a b"}, "namespace"),
        ({"namespace": ""}, "only the built-ins have no namespace"),
        ({"distribution": "rlaif acme"}, "distribution"),
        ({"homepage": "http://example.org"}, "homepage"),
        ({"homepage": "javascript:alert(1)"}, "homepage"),
        ({"summary": "two\nlines"}, "summary"),
        ({"summary": "x" * 121}, "summary"),
        ({"requires": "rlaif-framework=0.1"}, "is not a requirement such as"),
        ({"requires": "torch>=2"}, "is not a requirement of rlaif-framework"),
        ({"status": "endorsed"}, "status"),
        ({"components": {"labeler": ["acme/b", "acme/a"]}}, "list each name once, sorted"),
        ({"components": {"labeler": []}}, "list each name once, sorted"),
        ({"components": {"labeler": ["other/a"]}}, "does not begin with 'acme/'"),
        ({"components": {"labeller": ["acme/a"]}}, "components"),
        ({"stars": 5}, "stars"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", str(value))[:40],
)
def test_an_entry_with_a_fault_is_refused(change: dict[str, Any], reason: str) -> None:
    assert Entry.model_validate(VALID).kinds == ["labeler", "command"]
    with pytest.raises(ValidationError, match=reason):
        Entry.model_validate({**VALID, **change})


# The command


def test_the_command_searches_and_says_that_nothing_is_endorsed(rlaif: RunCommand, listed: Callable[..., None]) -> None:
    listed()
    code, out, _ = rlaif("catalogue")
    assert code == 0
    assert all(name in out for name in [*ENTRIES, "rlaif-acme"])
    assert "not reviewed and not endorsed" in out
    code, out, _ = rlaif("catalogue", "COMMITTEE")
    assert "rlaif-acme" in out
    assert "rlaif-trl" not in out
    assert "labeler acme/a, labeler acme/b, command acme" in out
    code, out, _ = rlaif("catalogue", "grpo")
    assert "algorithm grpo " in out
    assert "algorithm trl/grpo " in out
    assert "in the folder 'plugins' of the repository" in out
    code, out, _ = rlaif("catalogue", "grpo", "--json")
    assert [(entry["distribution"], entry["kinds"]) for entry in json.loads(out)] == [
        ("rlaif-framework", list(ENTRIES["rlaif-framework"].components)),
        ("rlaif-trl", ["reward", "algorithm"]),
    ]
    assert rlaif("catalogue", "xyzzy")[:2] == (
        0,
        "no entry of the catalogue mentions 'xyzzy'; 'rlaif catalogue' lists all\n",
    )


# Unknown components


def error(name: str) -> str:
    with pytest.raises(PluginError) as raised:
        PluginManager.load().find("labeler", name)
    return str(raised.value)


def test_an_unknown_component_names_the_distribution_of_its_namespace(listed: Callable[..., None]) -> None:
    assert "not in the catalogue: 'rlaif catalogue' lists the known plugins" in error("acme/a")
    assert "pip install" not in error("acme/a")
    listed(distribution="acme-tools")
    assert (
        "'acme' is the namespace of 'acme-tools', which is not installed; install it: pip install acme-tools"
        in error("acme/a")
    )
    assert "known:" not in error("acme/a")
    assert "list the file in the spec's 'plugins', or name it with --plugin" in error("local/a")
    assert "the namespace 'amce' is not in the catalogue: did you mean 'acme'?" in error("amce/a")


def test_an_unknown_component_of_an_installed_distribution_says_so(site: Site) -> None:
    site.install("rlaif-acme", labeler_code("acme/a"))
    assert "'rlaif-acme 1.0' is installed, and does not offer it" in error("acme/b")
    assert "did you mean 'acme/a'? Run 'rlaif components labeler' to list them" in error("acme/b")
    assert "did you mean 'length'" in error("lenght")
    assert "catalogue" not in error("lenght")


def test_an_unknown_component_of_an_excluded_distribution_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("rlaif-acme", labeler_code("acme/a"))
    monkeypatch.setenv("RLAIF_PLUGINS", "")
    assert "'rlaif-acme 1.0' is installed, and the variable RLAIF_PLUGINS excludes it" in error("acme/a")


def test_an_unknown_component_of_a_distribution_without_an_entry_point_says_what_to_add(site: Site) -> None:
    site.install("rlaif-acme", labeler_code("acme/a"))
    (site.folder / "rlaif_acme-1.0.dist-info" / "entry_points.txt").unlink()
    importlib.invalidate_caches()
    assert "'rlaif-acme 1.0' is installed, but declares no entry point of the group" in error("acme/a")


def test_an_unknown_component_of_a_plugin_that_failed_has_its_error_only(site: Site) -> None:
    site.install("rlaif-acme", "import rlaif_not_there\n")
    assert "failed to load: ModuleNotFoundError" in error("acme/a")
    assert "does not offer it" not in error("acme/a")


# Namespaces


def offers(manager: PluginManager) -> dict[str, str | None]:
    return {plugin.distribution: plugin.error for plugin in manager.plugins if not plugin.builtin}


def test_a_namespace_in_the_catalogue_belongs_to_its_distribution_only(site: Site, listed: Callable[..., None]) -> None:
    listed(distribution="acme-tools")
    site.install("acme-tools", labeler_code("acme/a"))
    site.install("rlaif-acme", labeler_code("acme/b"))
    manager = PluginManager.load()
    errors = offers(manager)
    assert errors["acme-tools"] is None
    assert "the namespace 'acme' belongs to the distribution 'acme-tools'" in str(errors["rlaif-acme"])
    assert {"acme/a"} == {name for name in manager.names("labeler") if name.startswith("acme/")}


@pytest.mark.parametrize("intruder", ["rlaif-dupother", "aaa", "rlaif-example-2", "rlaif-trl-plus"])
def test_a_distribution_with_names_of_others_knocks_nothing_out(site: Site, intruder: str) -> None:
    """Whether it offers a name of a catalogued namespace, of another plugin, or of a built-in."""
    site.install("rlaif-acme", labeler_code("acme/a"))
    for number, name in enumerate(("example/vader", "trl/x", "acme/a", "length")):
        site.install(f"{intruder}{number}", labeler_code(name), module=f"intruder_{number}")
    manager = PluginManager.load()
    errors = offers(manager)
    assert errors.pop("rlaif-acme") is None
    assert len([reason for reason in errors.values() if reason]) == 4
    assert manager.title("labeler", "acme/a") == "labeler 'acme/a' of rlaif-acme 1.0"
    assert manager.title("labeler", "length").startswith("labeler 'length' of rlaif-framework")
    assert not {"example/vader", "trl/x"} & set(manager.names("labeler"))


def test_loading_plugins_does_not_build_the_model_of_entries(site: Site) -> None:
    """Every command loads the plugins: only names are read for them."""
    site.install("rlaif-acme", labeler_code("acme/a"))
    kept = sys.modules.pop("rlaif_registry.entry")
    try:
        assert PluginManager.load().find("labeler", "acme/a")
        assert find_owner("trl") == "rlaif-trl"
        assert "rlaif_registry.entry" not in sys.modules
    finally:
        sys.modules["rlaif_registry.entry"] = kept
