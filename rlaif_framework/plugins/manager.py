"""The components of all plugins by slot and name, and the hooks to call."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import pluggy

from rlaif_framework.contracts.checked import check_returns
from rlaif_framework.contracts.lifecycle import RunInfo
from rlaif_framework.contracts.panels import Panel
from rlaif_framework.contracts.values import read_record
from rlaif_framework.errors import MissingPackageError, PluginError, RlaifError, shorten_name, suggest
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.builtins import BUILTINS
from rlaif_framework.plugins.checks import check_command, check_component, check_hooks, check_module, has_hooks
from rlaif_framework.plugins.command import Command
from rlaif_framework.plugins.component import SLOTS, Component, ComponentConfig, Slot
from rlaif_framework.plugins.discovery import Clock, Discovery, Plugin
from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.plugins.namespaces import describe_absent, owns_name
from rlaif_framework.plugins.own_code import OwnCode, absolute_name, is_file
from rlaif_framework.plugins.targets import import_attribute, import_target
from rlaif_framework.plugins.versions import DISTRIBUTION, framework_version

FILES = "rlaif-local"
"""Stands for the distribution of plugins that are files, so that their components are named `local/NAME`."""

Offers = dict[Slot, dict[str, tuple[Component, Plugin]]]
"""Components by slot and name, with the plugin that offers each."""


class PluginManager:
    """The components of all plugins by slot and name, and the hooks to call."""

    def __init__(self, clock: Clock = time.perf_counter, code: OwnCode | None = None) -> None:
        self.clock = clock
        self.code = code or OwnCode()
        """The code of the user's own that may run."""
        self.hooks = pluggy.PluginManager(hookspecs.PROJECT)
        self.hooks.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self._components: Offers = {slot: {} for slot in SLOTS}
        self.commands: dict[str, tuple[Command, Plugin]] = {}
        """Subcommands of `rlaif` by name, with the plugin that offers each."""

    @classmethod
    def load(
        cls, clock: Clock = time.perf_counter, code: OwnCode | None = None, builtins: bool = True
    ) -> PluginManager:
        """Register the built-in plugins, then the installed ones, then the files that the user allows.

        The environment variable RLAIF_PLUGINS limits the installed plugins to a comma-separated list of names; if it is
        empty, none is loaded. If RLAIF_TRACE is set, every hook call is printed.

        Args:
            clock: Measures how long each installed plugin takes to load.
            code: The code of the user's own that may run; default: none.
            builtins: If False, only the installed plugins are registered, for the commands that they offer.

        Raises:
            SpecError: There is no such file.
            PluginError: A file cannot be loaded.
        """
        manager = cls.load_builtins(clock, code) if builtins else cls(clock, code)
        manager._add_installed(os.environ.get("RLAIF_PLUGINS"))
        manager.add_files(name for name in manager.code.allowed if is_file(name))
        if os.environ.get("RLAIF_TRACE"):
            manager.hooks.add_hookcall_monitoring(
                lambda name, impls, kwargs: print(f"rlaif trace: {name} -> {[i.plugin_name for i in impls]}"),
                lambda outcome, name, impls, kwargs: None,
            )
        return manager

    @classmethod
    def load_builtins(cls, clock: Clock = time.perf_counter, code: OwnCode | None = None) -> PluginManager:
        """Register the built-in plugins only, whatever is installed."""
        manager, version = cls(clock, code), framework_version()
        for name in BUILTINS:
            plugin = Plugin(name.removeprefix("rlaif_plugins."), DISTRIBUTION, version, builtin=True)
            plugin.module = importlib.import_module(name)
            manager.add(plugin)
        return manager

    def _add_installed(self, allowed: str | None) -> None:
        # None: no restriction. An empty list: no installed plugin.
        names = None if allowed is None else [name.strip() for name in allowed.split(",") if name.strip()]
        for plugin in Discovery(names, self.clock).rows:
            self.add(plugin)
        for name in names or ():
            if name not in (plugin.name for plugin in self.plugins):
                error = "RLAIF_PLUGINS names it, but no installed plugin has this name"
                self.plugins.append(Plugin(name, "not installed", "", error=error))

    def add_files(self, names: Iterable[str]) -> None:
        """Register files of the user's own that implement hooks. The others may have functions to call.

        Raises:
            SpecError: A file is not allowed, or there is none.
            PluginError: A file cannot be loaded. Unlike an installed plugin, it was asked for.
        """
        for name in names:
            module = self.code.load(name)
            if any(plugin.module is module for plugin in self.plugins):
                continue
            path = absolute_name(name)
            try:
                check_hooks(module, self.hooks)
            except PluginError as error:
                raise PluginError(f"{path}: {error}") from error
            if not has_hooks(module, self.hooks):
                continue
            plugin = Plugin(Path(path).name, FILES, self.code.hash(path), file=path, module=module)
            self.add(plugin)
            if plugin.error:
                raise PluginError(f"{path}: {plugin.error}") from plugin.cause

    def add(self, plugin: Plugin) -> None:
        """Register a plugin with all its components, or none of it and record the error in its row."""
        others = [other for other in self.plugins if not other.error]
        self.plugins.append(plugin)
        if plugin.module is None:
            return
        registered, start = False, self.clock()
        try:
            check_module(plugin, others)
            check_hooks(plugin.module, self.hooks)
            registered = self.hooks.register(plugin.module, self._unused_name(plugin)) is not None
            plugin.hooks = sorted(caller.name for caller in self.hooks.get_hookcallers(plugin.module) or ())
            if not plugin.hooks:
                raise PluginError("it implements no hook; its entry point must name a module with @hookimpl functions")
            offers, commands = self._collect(plugin), self._collect_commands(plugin)
        except Exception as error:  # a plugin may raise anything, and must not stop commands that do not use it
            plugin.fail(error)
            if registered:
                self.hooks.unregister(plugin.module)
            return
        if not plugin.builtin:
            plugin.seconds += self.clock() - start
        # Only now, when nothing can fail any more: a plugin is registered as a whole or not at all.
        for slot, components in offers.items():
            self._components[slot].update(components)
            plugin.components += [f"{slot} {name}" for name in components]
        self.commands.update(commands)
        plugin.commands += list(commands)

    def _unused_name(self, plugin: Plugin) -> str:
        """Return a name to register a plugin under: plugins of two distributions may have the same one."""
        return plugin.title if self.hooks.has_plugin(plugin.name) else plugin.name

    def _collect(self, plugin: Plugin) -> Offers:
        """Call a plugin's component hooks and check the components they return."""
        offers: Offers = {slot: {} for slot in SLOTS}
        for slot in SLOTS:
            for component in self._call_own(hookspecs.SLOT_HOOKS[slot], plugin):
                check_component(slot, component, plugin, self._components[slot] | offers[slot])
                offers[slot][component.name] = component, plugin
        return offers

    def _collect_commands(self, plugin: Plugin) -> dict[str, tuple[Command, Plugin]]:
        """Call a plugin's hook for commands and check what it returns."""
        found: dict[str, tuple[Command, Plugin]] = {}
        for command in self._call_own("rlaif_commands", plugin):
            check_command(command, plugin, self.commands | found)
            found[command.name] = command, plugin
        return found

    def _call_own(self, hook: str, plugin: Plugin) -> list[Any]:
        """Return what a plugin's implementation of a registration hook returns; empty if it has none."""
        # Not through pluggy's call, which would run this hook of all plugins and stop at the first error.
        impls = getattr(self.hooks.hook, hook).get_hookimpls()
        own = [impl for impl in impls if impl.plugin is plugin.module]
        return [item for impl in own for item in _call_hook(hook, impl.function, plugin.package)]

    def call_hooks(self, hook: str, **facts: Any) -> Iterator[tuple[str, str]]:
        """Call a lifecycle hook of every plugin, and yield the name and error of each plugin that fails."""
        for impl in reversed(
            getattr(self.hooks.hook, hook).get_hookimpls()
        ):  # in pluggy's order: the last registered first
            # pluggy would stop at the first error: call the plugins one at a time.
            others = [module for module in self.hooks.get_plugins() if module is not impl.plugin]
            try:
                self.hooks.subset_hook_caller(hook, others)(**facts)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # plugin code may raise anything
                yield impl.plugin_name, describe_error(error, _package(impl))

    def collect_panels(self, run: RunInfo) -> Iterator[tuple[str, list[Panel] | str]]:
        """Yield the panels of each plugin that adds some to the report, by its name, or the error if it fails."""
        for impl in self.hooks.hook.rlaif_report_panels.get_hookimpls():
            function = cast(Callable[..., Iterable[Any]], impl.function)
            arguments = {"run": run} if "run" in impl.argnames else {}
            try:
                panels = [read_record(Panel, panel, "rlaif_report_panels()") for panel in function(**arguments)]
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # plugin code may raise anything
                yield impl.plugin_name, describe_error(error, _package(impl))
            else:
                yield impl.plugin_name, panels

    def names(self, slot: Slot) -> list[str]:
        """Return the sorted names of a slot's components."""
        return sorted(self._components[slot])

    def components(self, slot: Slot) -> list[tuple[Component, Plugin]]:
        """Return a slot's components, each with the plugin that offers it, sorted by name."""
        return [self._components[slot][name] for name in self.names(slot)]

    def find(self, slot: Slot, name: str) -> Component:
        """Find a component by its name.

        Raises:
            PluginError: There is none. The message suggests the nearest name, and lists plugins that failed to load.
        """
        if name in self._components[slot]:
            return self._components[slot][name][0]
        raise PluginError(f"no {slot} named '{shorten_name(name)}'; {self._explain_absent(slot, name)}")

    def _explain_absent(self, slot: Slot, name: str) -> str:
        names = self.names(slot)
        if "/" in name:  # a built-in with a similar name is another component
            names = [known for known in names if "/" in known]
        near = get_close_matches(name, names, n=1)
        failed = [plugin for plugin in self.plugins if plugin.error]
        explained = any(owns_name(plugin.distribution, name) for plugin in failed)  # its error says it all
        absent = "" if explained else describe_absent(name, {plugin.distribution for plugin in self.plugins})
        hints = [f"{suggest(name, names)} Run 'rlaif components {slot}' to list them"] if near or not absent else []
        hints += [f"{plugin.title} failed to load: {plugin.error}" for plugin in failed]
        return "; ".join([*hints, absent] if absent else hints)

    def resolve(self, slot: Slot, config: ComponentConfig) -> Any:
        """Import the class of the component that a config belongs to; its methods validate what they return.

        Raises:
            MissingPackageError: A package that the component needs is not installed.
            PluginError: The target does not exist or does not satisfy the slot's protocol.
        """
        component = self.find(slot, config.kind)
        target: Any = import_target(component, slot)
        return check_returns(target, slot, self.title(slot, component.name))

    def check_targets(self) -> Iterator[tuple[Plugin, str]]:
        """Import the targets of all components and commands, and check the classes of components against their
        protocols; yield each fault with its plugin. A package of an extra need not be installed."""
        for slot in SLOTS:
            for component, plugin in self.components(slot):
                try:
                    import_target(component, slot)
                except RlaifError as error:
                    if not (isinstance(error, MissingPackageError) and error.is_optional):
                        yield plugin, str(error)
        for name, (command, plugin) in self.commands.items():
            try:
                import_attribute(f"command '{name}'", command.target)
            except RlaifError as error:
                yield plugin, str(error)

    def title(self, slot: Slot, name: str) -> str:
        """Return the title of a component with its distribution and version, for messages about what it does."""
        _, plugin = self._components[slot][name]
        return f"{slot} '{name}' of {plugin.source}"


def _package(impl: pluggy.HookImpl) -> str:
    """Return the name of the module that implements a hook, to find its lines in a traceback."""
    return str(getattr(impl.plugin, "__name__", ""))


def _call_hook(name: str, function: Callable[[], Iterable[Any]], package: str) -> list[Any]:
    try:
        offered: object = function()
        if isinstance(offered, Iterable):
            return list(offered)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugin code may raise anything
        raise PluginError(f"{name}() failed: {describe_error(error, package)}") from error
    record = "Command" if name == "rlaif_commands" else "Component"
    raise PluginError(f"{name}() returned {offered!r}; yield each {record}, or return a list of them")
