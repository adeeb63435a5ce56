"""Tests of components of every kind: the settings, the class and the module of the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from rlaif_framework.assembly.context import Context
from rlaif_framework.plugins.component import SLOTS, Component, ComponentConfig, Slot
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.testing.tiny_model import save_tiny_model
from rlaif_framework.testing.world import TINY_MODEL, load_manager, make_context, replace_texts

HEAVY = ("torch", "transformers", "accelerate", "datasets")
"""Libraries that the module of a plugin must not import, since every command imports the module."""

MANAGER = pytest.StashKey[PluginManager]()
"""The manager of the tests of a class."""


class ComponentConformance:
    """Tests of a component of any kind. Use the subclass for its kind.

    A subclass in a plugin's tests names the component, and its settings if some are required:

        class TestShorter(LabelerConformance):
            component = "acme/shorter"

    All attributes can be overridden, and so can the fixtures, such as `settings`. A standard test that does not apply
    is overridden by one that is marked with `pytest.mark.xfail(reason=...)`.
    """

    slot: ClassVar[Slot]
    """The kind of component. Set by the subclass for the kind."""
    component: ClassVar[str]
    """Name of the component, such as `acme/shorter`."""
    config: ClassVar[Mapping[str, Any]] = {}
    """Settings of the component. `TINY_MODEL` is replaced by the folder of a tiny model."""
    policy: ClassVar[Mapping[str, Any]] = {}
    """Settings of the policy that differ from those of the tests."""
    task: ClassVar[Any] = "testing/tiny"
    """Task of the context, as in a spec."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep answers of earlier tests out."""
        monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def manager(self, request: pytest.FixtureRequest) -> PluginManager:
        """All installed plugins, and the components of `rlaif_framework.testing`. The tests of a class share it."""
        stash = request.node.getparent(pytest.Class).stash
        if MANAGER not in stash:
            stash[MANAGER] = load_manager()
        found: PluginManager = stash[MANAGER]
        return found

    @pytest.fixture
    def tiny_model(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Folder of a tiny model; made once in a test run."""
        folder = tmp_path_factory.getbasetemp() / "rlaif-tiny-model"
        return folder if folder.exists() else save_tiny_model(folder)

    @pytest.fixture
    def settings(self, request: pytest.FixtureRequest) -> Mapping[str, Any]:
        """The settings of the component, with its kind. Override it for settings that need other fixtures."""
        filled: Mapping[str, Any] = _fill_in({"kind": self.component, **self.config}, request)
        return filled

    @pytest.fixture
    def parsed(self, manager: PluginManager, settings: Mapping[str, Any]) -> ComponentConfig:
        """The settings as the config of the component."""
        return narrow(self.slot, settings, manager)

    @pytest.fixture
    def context(self, manager: PluginManager, request: pytest.FixtureRequest) -> Context:
        """The context of a run on the tiny model, which is only made if the tests of the kind use it."""
        folder = Path("unused")
        if "tiny_model" in request.fixturenames or TINY_MODEL in json.dumps([self.config, self.task]):
            folder = request.getfixturevalue("tiny_model")
        return make_context(manager, folder, _fill_in(self.task, request), **self.policy)

    def test_it_is_listed(self, manager: PluginManager) -> None:
        """Check that the hook of an installed plugin offers the component, without any fault."""
        found, plugin = self._find(manager)
        assert found.summary, f"{found.config.__name__} has no docstring; its first line is shown by 'rlaif components'"
        assert plugin.error is None

    def test_its_class_satisfies_the_protocol(self, manager: PluginManager, parsed: ComponentConfig) -> None:
        """Check that the target can be imported, and has all methods with their parameters."""
        manager.resolve(self.slot, parsed)

    def test_its_settings_round_trip_through_json(self, manager: PluginManager, parsed: ComponentConfig) -> None:
        """Check that settings that are written to a file and read again are the same."""
        again = narrow(self.slot, json.loads(parsed.model_dump_json()), manager)
        assert again == parsed, "settings that are written as JSON and read again have changed"

    def test_its_settings_have_a_schema_with_descriptions(self, manager: PluginManager) -> None:
        """Check that editors and `rlaif show` can explain every setting."""
        schema = self._find(manager)[0].config.model_json_schema()
        json.dumps(schema, allow_nan=False)
        bare = [
            name
            for name, field in schema["properties"].items()
            if name != "kind" and not field.get("description") and "$ref" not in field
        ]
        assert not bare, f"settings without a docstring below them: {', '.join(bare)}"

    def test_an_unknown_setting_is_refused(self, manager: PluginManager, settings: Mapping[str, Any]) -> None:
        """Check that a typing error in a spec is reported."""
        with pytest.raises(ValidationError) as error:
            narrow(self.slot, {**settings, "no_such_setting": 1}, manager)
        assert "no_such_setting" in str(error.value)

    def test_settings_are_frozen(self, parsed: ComponentConfig) -> None:
        """Check that a component cannot change settings, which are in the keys of artefacts."""
        with pytest.raises(ValidationError):
            parsed.__setattr__("kind", "other")

    def test_importing_its_module_imports_no_heavy_library(self, manager: PluginManager) -> None:
        """Check that commands which only read specs stay fast."""
        found, plugin = self._find(manager)
        assert plugin.module is not None
        for module in {plugin.module.__name__, found.config.__module__}:
            heavy = find_heavy_imports(module, manager)
            assert not heavy, f"importing {module} imports {', '.join(heavy)}; import them in the module of the target"

    def test_no_standard_test_is_overridden(self) -> None:
        """Check that every standard test runs, or fails for a stated reason."""
        changed = [name for name in _standard_tests(type(self)) if not _is_kept(type(self), name)]
        assert not changed, f"{', '.join(changed)}: mark an overriding test with @pytest.mark.xfail(reason=...)"

    def _find(self, manager: PluginManager) -> tuple[Component, Plugin]:
        """Return the component and its plugin. The error of a missing one lists plugins that failed to load."""
        manager.find(self.slot, self.component)
        return next((c, p) for c, p in manager.components(self.slot) if c.name == self.component)


def _fill_in(value: Any, request: pytest.FixtureRequest) -> Any:
    """Replace `TINY_MODEL` in settings by the folder of the model, which is made only if it is needed."""

    def change(text: str) -> str:
        return str(request.getfixturevalue("tiny_model")) if text == TINY_MODEL else text

    return replace_texts(value, change)


def _standard_tests(kind: type) -> Iterator[str]:
    """Yield the names of the tests that a class inherits from this package."""
    for base in kind.__mro__:
        if base.__module__.startswith("rlaif_framework.testing."):
            yield from (name for name in vars(base) if name.startswith("test_"))


def _is_kept(kind: type, name: str) -> bool:
    """Return True if a test is that of this package, or is expected to fail for a reason."""
    method = getattr(kind, name)
    if method.__module__.startswith("rlaif_framework.testing."):
        return True
    marks = getattr(method, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)


def find_heavy_imports(module: str, manager: PluginManager) -> list[str]:
    """Import a module in a new process, and return the heavy libraries that this imports.

    Args:
        module: Name of the module.
        manager: The installed plugins. If none of them is heavy, one process is enough for all.
    """
    modules = {plugin.module.__name__ for plugin in manager.plugins if plugin.module is not None}
    modules |= {component.config.__module__ for slot in SLOTS for component, _ in manager.components(slot)}
    if module in modules and not _find_in_process(*sorted(modules)):
        return []
    return _find_in_process(module)


@cache
def _find_in_process(*modules: str) -> list[str]:
    code = (
        "import importlib, sys\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
        f"print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"cannot import {', '.join(modules)}: {done.stderr}"
    return done.stdout.rpartition("heavy:")[2].split()
