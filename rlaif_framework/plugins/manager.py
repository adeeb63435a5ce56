"""The components of all plugins by slot and name, and the hooks to call."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pluggy

from rlaif_framework.contracts.protocols import PROTOCOLS
from rlaif_framework.errors import MissingPackageError, PluginError, describe_missing, suggest
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.builtins import BUILTINS
from rlaif_framework.plugins.component import SLOTS, Component, ComponentConfig, Slot
from rlaif_framework.plugins.discovery import DISTRIBUTION, Discovery, Plugin, _reason, framework_version


class PluginManager:
    """The components of all plugins by slot and name, and the hooks to call."""

    def __init__(self) -> None:
        self.hooks = pluggy.PluginManager(hookspecs.PROJECT)
        self.hooks.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self._components: dict[Slot, dict[str, tuple[Component, Plugin]]] = {slot: {} for slot in SLOTS}

    @classmethod
    def load(cls) -> PluginManager:
        """Register the built-ins, then the installed plugins.

        The environment variable RLAIF_PLUGINS limits the latter: empty for none, else names separated by commas.
        """
        manager, installed = cls(), framework_version()
        for name in BUILTINS:
            plugin = Plugin(name.removeprefix("rlaif_plugins."), DISTRIBUTION, installed)
            plugin.module = importlib.import_module(name)
            manager.add(plugin)
        allowed = os.environ.get("RLAIF_PLUGINS")
        names = None if allowed is None else [name.strip() for name in allowed.split(",") if name.strip()]
        for plugin in Discovery(names).rows:
            manager.add(plugin)
        for name in names or ():
            if name not in (plugin.name for plugin in manager.plugins):
                error = "RLAIF_PLUGINS names it, but no installed plugin is called that"
                manager.plugins.append(Plugin(name, "not installed", "", error=error))
        if os.environ.get("RLAIF_TRACE"):
            manager.hooks.add_hookcall_monitoring(
                lambda name, impls, kwargs: print(f"rlaif trace: {name} -> {[i.plugin_name for i in impls]}"),
                lambda outcome, name, impls, kwargs: None,
            )
        return manager

    def add(self, plugin: Plugin) -> None:
        """Register a plugin and its components, or note in its row why not; either all of it counts or nothing."""
        others = [other for other in self.plugins if not other.error]
        self.plugins.append(plugin)
        if plugin.module is None:
            return
        registered = False
        try:
            _check_names(plugin, others)
            self._check_hooks(plugin.module)
            registered = self.hooks.register(plugin.module, plugin.name) is not None
            plugin.hooks = sorted(caller.name for caller in self.hooks.get_hookcallers(plugin.module) or ())
            if not plugin.hooks:
                raise PluginError("it implements no hook; its entry point must name a module with @hookimpl functions")
            staged = self._collect(plugin)
        except Exception as error:
            plugin.error, plugin.hooks = _reason(error), []
            if registered:
                self.hooks.unregister(plugin.module)
            return
        for slot, component in staged:
            self._components[slot][component.name] = (component, plugin)
            plugin.components.append(f"{slot} {component.name}")

    def _check_hooks(self, module: ModuleType) -> None:
        known = [n for n in vars(hookspecs) if n.startswith("rlaif_")]
        for name, value in vars(module).items():
            if not name.startswith("rlaif_") or not inspect.isfunction(value):
                continue
            if name not in known:
                raise PluginError(f"no hook named '{name}'; {suggest(name, known)}")
            if self.hooks.parse_hookimpl_opts(module, name) is None:
                raise PluginError(f"'{name}' is not marked as a hook; write @hookimpl above it")

    def _collect(self, plugin: Plugin) -> list[tuple[Slot, Component]]:
        staged: list[tuple[Slot, Component]] = []
        for slot in SLOTS:
            hook = getattr(self.hooks.hook, hookspecs.SLOT_HOOKS[slot])
            for impl in hook.get_hookimpls():
                if impl.plugin is plugin.module:
                    staged += [(slot, component) for component in _call_hook(hookspecs.SLOT_HOOKS[slot], impl.function)]
        seen: set[tuple[Slot, str]] = set()
        for slot, component in staged:
            self._check_component(slot, component, plugin, seen)
        return staged

    def _check_component(self, slot: Slot, component: object, plugin: Plugin, seen: set[tuple[Slot, str]]) -> None:
        if not isinstance(component, Component):
            raise PluginError(f"{hookspecs.SLOT_HOOKS[slot]} gave {component!r}, not a Component")
        if not (isinstance(component.config, type) and issubclass(component.config, ComponentConfig)):
            raise PluginError(f"{slot} '{component.name}': its config {component.config!r} is not a ComponentConfig")
        try:
            if plugin.distribution != DISTRIBUTION:  # its fields are built now, where a failure is this plugin's alone
                component.config.model_rebuild()
        except Exception as error:  # pydantic's own, NameError, whatever a validator's maker raises
            raise PluginError(f"{slot} '{component.name}': its config cannot be built: {error}") from error
        if ":" not in component.target:
            raise PluginError(f"{slot} '{component.name}': its target '{component.target}' is not 'module:attribute'")
        if (slot, component.name) in seen:
            raise PluginError(f"offers two components named {slot} '{component.name}'")
        seen.add((slot, component.name))
        other = self._components[slot].get(component.name)
        if other is not None:
            raise PluginError(
                f"{slot} '{component.name}' is already offered by {other[1].title}; uninstall one, "
                f"or choose with RLAIF_PLUGINS; plugin authors: name yours '<namespace>/{component.name}'"
            )
        if "/" not in component.name and plugin.distribution != DISTRIBUTION:
            raise PluginError(f"{slot} '{component.name}': only built-ins have bare names; use '<namespace>/<name>'")

    def call_hooks(self, hook: str, **facts: Any) -> Iterator[tuple[str, str]]:
        """Call a lifecycle hook, plugin by plugin; yield name and error of each one that fails."""
        for impl in reversed(getattr(self.hooks.hook, hook).get_hookimpls()):  # pluggy's own order
            others = [module for module in self.hooks.get_plugins() if module is not impl.plugin]
            try:
                self.hooks.subset_hook_caller(hook, others)(**facts)
            except (Exception, SystemExit) as error:
                yield impl.plugin_name, _reason(error)

    def names(self, slot: Slot) -> list[str]:
        """Names of a slot's components, sorted."""
        return sorted(self._components[slot])

    def components(self, slot: Slot) -> list[tuple[Component, Plugin]]:
        """A slot's components with the plugin that offers each, sorted by name."""
        return [self._components[slot][name] for name in self.names(slot)]

    def find(self, slot: Slot, name: str) -> Component:
        """Look a component up by its name.

        Raises:
            PluginError: There is none; the message has the nearest name, and a plugin's own error if one failed.
        """
        if name in self._components[slot]:
            return self._components[slot][name][0]
        failed = [f"{p.title} failed to load: {p.error}" for p in self.plugins if p.error]
        hint = f"; {'; '.join(failed)}" if failed else ""
        raise PluginError(
            f"no {slot} named '{name}'; {suggest(name, self.names(slot))} "
            f"Run 'rlaif components {slot}' to list them{hint}"
        )

    def resolve(self, slot: Slot, config: ComponentConfig) -> Any:
        """Import the class a component's target names.

        Raises:
            MissingPackageError: Something the component needs is not installed.
            PluginError: The target does not exist or does not satisfy the slot's protocol.
        """
        component = self.find(slot, config.kind)
        module, _, attribute = component.target.partition(":")
        try:
            target = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            missing = _missing_module(error)
            if missing and missing.partition(".")[0] != module.partition(".")[0]:
                raise MissingPackageError(f"{slot} '{component.name}': {describe_missing(missing)}") from error
            raise PluginError(
                f"{slot} '{component.name}': cannot import {component.target}: {_reason(error)}"
            ) from error
        protocol = PROTOCOLS[slot]
        lacking = [n for n in vars(protocol) if not n.startswith("_") and not callable(getattr(target, n, None))]
        if lacking:
            raise PluginError(f"{slot} '{component.name}': {component.target} missing_field {', '.join(lacking)}()")
        return target


def _check_names(plugin: Plugin, others: Sequence[Plugin]) -> None:
    for other in others:
        if other.name == plugin.name:
            raise PluginError(f"{other.title} has the same name; uninstall one of the two")
        if other.module is plugin.module:
            raise PluginError(f"{other.title} is the same module; uninstall one of the two")


def _call_hook(name: str, function: Callable[[], Iterable[Component]]) -> list[Component]:
    try:
        return list(function())
    except (Exception, SystemExit) as error:
        raise PluginError(f"{name}() failed: {_reason(error)}") from error


def _missing_module(error: BaseException) -> str | None:
    """The module whose absence an import failed on, if that is why."""
    return error.name if isinstance(error, ModuleNotFoundError) else None
