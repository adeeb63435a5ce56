"""A namespace belongs to one distribution: no other one can take its components away, whatever is loaded first."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework import PluginError, PluginManager
from rlaif_framework.plugins.builtins import BUILTINS
from rlaif_framework.plugins.component import SLOTS
from support.fake_plugins import HEAD, Site, labeler_code

SIX = (
    HEAD
    + "".join(
        f"""
class C{i}(LabelerConfig):
    kind: Literal["acme/c{i}"] = "acme/c{i}"
"""
        for i in range(6)
    )
    + """
@hookimpl
def rlaif_labelers():
    for config in (C0, C1, C2, C3, C4, C5):
        name = config.model_fields["kind"].default
        yield Component(name, config, "rlaif_plugins.labelers.length:LengthLabeler")
"""
)
NAMES = {f"acme/c{i}" for i in range(6)}
REFUSED = "the namespace 'acme' belongs to the distribution 'rlaif-acme'"

# Distributions that sort before and after the owner.
INTRUDERS = ("aaa", "rlaif-aaa", "zzz", "rlaif-zzz", "rlaif-acme-plus")


def errors(manager: PluginManager) -> dict[str, str | None]:
    return {p.distribution: p.error for p in manager.plugins if not p.builtin}


@pytest.mark.parametrize("intruder", INTRUDERS)
def test_another_distribution_cannot_take_a_namespace(site: Site, intruder: str) -> None:
    site.install("rlaif-acme", SIX)
    site.install(intruder, labeler_code("acme/c0"), name="intruder")
    manager = PluginManager.load()
    assert set(manager.names("labeler")) >= NAMES
    found = errors(manager)
    assert found["rlaif-acme"] is None
    assert f"labeler 'acme/c0': {REFUSED}, and this one is '{intruder}'" in str(found[intruder])


@pytest.mark.parametrize("intruder", INTRUDERS)
def test_a_namespace_is_reserved_where_its_owner_is_not_installed(site: Site, intruder: str) -> None:
    site.install(intruder, labeler_code("acme/c0"), name="intruder")
    manager = PluginManager.load()
    assert REFUSED in str(errors(manager)[intruder])
    assert "acme/c0" not in manager.names("labeler")


@pytest.mark.parametrize("intruder", ["rlaif-aaa", "rlaif-zzz", "rlaif-acme-plus"])
def test_a_plugin_of_the_same_name_takes_nothing_away(site: Site, intruder: str) -> None:
    own = intruder.removeprefix("rlaif-")
    site.install("rlaif-acme", SIX, name="same")
    site.install(intruder, labeler_code(f"{own}/x"), name="same")
    manager = PluginManager.load()
    assert errors(manager) == {"rlaif-acme": None, intruder: None}
    assert set(manager.names("labeler")) >= {*NAMES, f"{own}/x"}
    assert len([p for p in manager.plugins if p.name == "same"]) == 2


@pytest.mark.parametrize("intruder", INTRUDERS)
def test_an_entry_point_to_the_owners_module_takes_nothing_away(site: Site, intruder: str) -> None:
    site.install("rlaif-acme", SIX)
    site.install(intruder, SIX, name="intruder", module="rlaif_acme")
    manager = PluginManager.load()
    assert set(manager.names("labeler")) >= NAMES
    found = errors(manager)
    assert found["rlaif-acme"] is None
    assert "plugin 'acme' (rlaif-acme 1.0) is the same module" in str(found[intruder])
    assert manager.title("labeler", "acme/c3") == "labeler 'acme/c3' of rlaif-acme 1.0"


@pytest.mark.parametrize("intruder", INTRUDERS)
def test_a_module_with_hooks_only_stays_its_owners(site: Site, intruder: str) -> None:
    code = "from rlaif_framework import hookimpl\n@hookimpl\ndef rlaif_run_started(run): pass\n"
    site.install("rlaif-acme", code)
    site.install(intruder, code, name="intruder", module="rlaif_acme")
    found = errors(PluginManager.load())
    assert found["rlaif-acme"] is None
    assert "same module" in str(found[intruder])


def test_names_are_compared_as_pip_compares_them(site: Site) -> None:
    site.install("RLAIF_Acme.Labs", labeler_code("acme-labs/x"), name="labs", module="rlaif_acme_labs")
    manager = PluginManager.load()
    assert errors(manager) == {"RLAIF_Acme.Labs": None}
    assert "acme-labs/x" in manager.names("labeler")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x", "only built-ins have bare names; use '<namespace>/<name>', such as 'acme/x'"),
        ("acme/a/b", "use '<namespace>/<name>', such as 'acme/b'"),
        ("/x", "use '<namespace>/<name>', such as 'acme/x'"),
        ("acme/", "use '<namespace>/<name>'"),
        ("acme/x y", "use '<namespace>/<name>'"),
        ("acme.x/y", "use '<namespace>/<name>', such as 'acme/y'"),
        (
            "other/x",
            "belongs to the distribution 'rlaif-other', and this one is 'rlaif-acme'; rename the component to 'acme/x'",
        ),
    ],
)
def test_other_names_are_refused_with_one_that_would_do(site: Site, name: str, message: str) -> None:
    site.install("rlaif-acme", labeler_code(name))
    assert message in str(errors(PluginManager.load())["rlaif-acme"])


def test_a_distribution_called_like_the_framework_has_no_bare_names(site: Site) -> None:
    site.install("rlaif-framework", labeler_code("better"), name="better", version="9.9", module="rlaif_better")
    manager = PluginManager.load()
    (error,) = errors(manager).values()
    assert "only built-ins have bare names" in str(error)
    assert "better" not in manager.names("labeler")


def test_builtins_keep_bare_names(manager: PluginManager) -> None:
    own = {component.name for slot in SLOTS for component, plugin in manager.components(slot) if plugin.builtin}
    assert own
    assert not [name for name in own if "/" in name]
    assert len([p for p in manager.plugins if p.builtin]) == len(BUILTINS)


@pytest.mark.parametrize("text", ["[rlaif_framework.plugins]\nnonsense\n", "[rlaif_framework.plugins]\nx = \n"])
def test_a_malformed_entry_point_file_is_one_row_and_the_others_keep_working(site: Site, text: str) -> None:
    site.install("rlaif-acme", SIX)
    name = site.install("rlaif-broken", labeler_code("broken/x"))
    (site.folder / "rlaif_broken-1.0.dist-info" / "entry_points.txt").write_text(text)
    importlib.invalidate_caches()
    manager = PluginManager.load()
    assert set(manager.names("labeler")) >= NAMES
    found = errors(manager)
    assert found["rlaif-acme"] is None
    assert found["rlaif-broken"], name


def test_entry_points_in_another_encoding_stop_nothing(site: Site) -> None:
    site.install("rlaif-acme", SIX)
    site.install("old-tool", "")
    (site.folder / "old_tool-1.0.dist-info" / "entry_points.txt").write_bytes(b"[console_scripts]\n# M\xfc\nx = x:y\n")
    importlib.invalidate_caches()
    manager = PluginManager.load()
    assert set(manager.names("labeler")) >= NAMES
    assert errors(manager)["rlaif-acme"] is None
    assert "old-tool" not in errors(manager)  # it has no plugins
    site.install("rlaif-broken", "")
    (site.folder / "rlaif_broken-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nnonsense\n")
    importlib.invalidate_caches()
    with pytest.raises(
        PluginError, match=r"'rlaif-broken 1\.0' is installed, but its entry_points\.txt cannot be read"
    ):
        PluginManager.load().find("labeler", "broken/x")


def test_a_distribution_without_metadata_is_one_row_and_the_others_keep_working(site: Site) -> None:
    site.install("rlaif-acme", SIX)
    site.install("rlaif-broken", labeler_code("broken/x"))
    (site.folder / "rlaif_broken-1.0.dist-info" / "METADATA").unlink()
    manager = PluginManager.load()
    assert set(manager.names("labeler")) >= NAMES
    assert len([p for p in manager.plugins if p.error]) == 1


@pytest.fixture
def install_entry_points(site: Site) -> Callable[[str, dict[str, str]], Path]:
    def install(distribution: str, plugins: dict[str, str]) -> Path:
        site.install(distribution, "")
        file = site.folder / f"{distribution.replace('-', '_')}-1.0.dist-info" / "entry_points.txt"
        lines = [f"{name} = {module}" for name, module in plugins.items()]
        file.write_text("\n".join(["[rlaif_framework.plugins]", *lines]) + "\n")
        importlib.invalidate_caches()
        return file

    return install


def test_one_distribution_may_have_several_plugins_in_its_namespace(
    site: Site, install_entry_points: Callable[[str, dict[str, str]], Path]
) -> None:
    install_entry_points("rlaif-acme", {"one": "rlaif_acme_one", "two": "rlaif_acme_two"})
    (site.folder / "rlaif_acme_one.py").write_text(labeler_code("acme/one"))
    (site.folder / "rlaif_acme_two.py").write_text(labeler_code("acme/two"))
    assert {"acme/one", "acme/two"} <= set(PluginManager.load().names("labeler"))


def test_a_component_offered_twice_names_its_owner_and_keeps_the_first(
    site: Site, install_entry_points: Callable[[str, dict[str, str]], Path]
) -> None:
    install_entry_points("rlaif-acme", {"one": "rlaif_acme_one", "two": "rlaif_acme_two"})
    for name in ("one", "two"):
        (site.folder / f"rlaif_acme_{name}.py").write_text(labeler_code("acme/x", target=f"rlaif_acme_{name}:X"))
    manager = PluginManager.load()
    assert manager.find("labeler", "acme/x").target == "rlaif_acme_one:X"
    (failed,) = (p for p in manager.plugins if p.error)
    assert "labeler 'acme/x' is already offered by plugin 'one' (rlaif-acme 1.0)" in str(failed.error)
