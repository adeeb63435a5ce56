"""Find plugins, register them, and collect the components they offer, each plugin guarded on its own."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import Any, cast

import pluggy
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stevedore.extension import Extension, ExtensionManager

from rlaif_framework import hookspecs
from rlaif_framework.component import SLOTS, Component, ComponentConfig, Slot
from rlaif_framework.errors import MissingPackageError, PluginError, describe_missing, suggest
from rlaif_framework.protocols import PROTOCOLS

GROUP = "rlaif_framework.plugins"
DISTRIBUTION = "rlaif-framework"
BUILTINS = (
    "rlaif_plugins.tldr",
    "rlaif_plugins.dialogue",
    "rlaif_plugins.transformers_backend",
    "rlaif_plugins.openai_backend",
    "rlaif_plugins.direct",
    "rlaif_plugins.few_shot",
    "rlaif_plugins.chain_of_thought",
    "rlaif_plugins.self_consistency",
    "rlaif_plugins.free_form",
    "rlaif_plugins.principles",
    "rlaif_plugins.llm",
    "rlaif_plugins.rate",
    "rlaif_plugins.known",
    "rlaif_plugins.similarity",
    "rlaif_plugins.rouge",
    "rlaif_plugins.length",
    "rlaif_plugins.likelihood",
    "rlaif_plugins.ensemble",
    "rlaif_plugins.mix",
    "rlaif_plugins.bradley_terry",
    "rlaif_plugins.direct_reward",
    "rlaif_plugins.combined_rewards",
    "rlaif_plugins.length_reward",
    "rlaif_plugins.pretrained_reward",
    "rlaif_plugins.reinforce",
    "rlaif_plugins.a2c",
    "rlaif_plugins.ppo",
    "rlaif_plugins.rloo",
    "rlaif_plugins.grpo",
    "rlaif_plugins.dpo",
    "rlaif_plugins.online_dpo",
    "rlaif_plugins.best_of_n",
    "rlaif_plugins.teacher",
    "rlaif_plugins.tensorboard",
)


@dataclass
class Plugin:
    """One row of the plugin report."""

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)
    error: str | None = None
    module: ModuleType | None = None

    @property
    def title(self) -> str:
        """The plugin and the distribution it comes from, for messages."""
        return f"plugin '{self.name}' ({f'{self.distribution} {self.version}'.strip()})"


class Discovery(ExtensionManager[ModuleType]):
    """Find third-party plugins; one that fails becomes a row of the report."""

    def __init__(self, allowed: Sequence[str] | None) -> None:
        self.allowed = allowed
        self.rows: list[Plugin] = []
        super().__init__(GROUP, on_load_failure_callback=self._record_failure)

    def list_entry_points(self) -> list[EntryPoint]:
        """Entry points of the allowed plugins, by distribution and name."""
        # stevedore's cache loses the distribution and can be stale for two minutes after a reinstall.
        found = sorted(entry_points(group=GROUP), key=lambda e: (_distribution(e).name or "", e.name))
        return [e for e in found if self.allowed is None or e.name in self.allowed]

    def _load_one_plugin(self, ep: EntryPoint, *args: Any, **kwargs: Any) -> Extension[ModuleType] | None:
        try:
            check_requirement(_distribution(ep))
            extension = super()._load_one_plugin(ep, *args, **kwargs)
        except (AssertionError, SystemExit) as error:  # stevedore lets both escape
            raise PluginError(f"{type(error).__name__}: {error}") from error
        if extension is not None:
            self.rows.append(_describe(ep, module=cast(ModuleType, extension.plugin)))
        return extension

    def _record_failure(self, _: ExtensionManager[ModuleType], ep: EntryPoint, error: BaseException) -> None:
        self.rows.append(_describe(ep, error=_reason(error)))


def _distribution(ep: EntryPoint) -> Distribution:
    assert ep.dist is not None, "entry points from importlib.metadata know their distribution"
    return ep.dist


def _describe(ep: EntryPoint, module: ModuleType | None = None, error: str | None = None) -> Plugin:
    dist = _distribution(ep)
    return Plugin(ep.name, dist.name, dist.version, module=module, error=error)


def _reason(error: BaseException) -> str:
    """What went wrong in one line; our own errors need no type in front."""
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"


def check_requirement(dist: Distribution) -> None:
    """Refuse a plugin whose metadata asks for another version of this framework, before its code runs."""
    for text in dist.requires or ():
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != DISTRIBUTION:
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = framework_version()
        if not requirement.specifier.contains(installed, prereleases=True):
            raise PluginError(f"needs {requirement}, installed is {installed}; upgrade one of the two with pip")


def framework_version() -> str:
    """Version of the installed framework."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout on the path that was never installed
        return "0.0.0"


class Registry:
    """The components of all plugins by slot and name, and the hooks to call."""

    def __init__(self) -> None:
        self.hooks = pluggy.PluginManager(hookspecs.PROJECT)
        self.hooks.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self._components: dict[Slot, dict[str, tuple[Component, Plugin]]] = {slot: {} for slot in SLOTS}

    @classmethod
    def load(cls) -> Registry:
        """Register the built-ins, then the installed plugins.

        The environment variable RLAIF_PLUGINS limits the latter: empty for none, else names separated by commas.
        """
        registry, installed = cls(), framework_version()
        for name in BUILTINS:
            plugin = Plugin(name.removeprefix("rlaif_plugins."), DISTRIBUTION, installed)
            plugin.module = importlib.import_module(name)
            registry.add(plugin)
        allowed = os.environ.get("RLAIF_PLUGINS")
        names = None if allowed is None else [name.strip() for name in allowed.split(",") if name.strip()]
        for plugin in Discovery(names).rows:
            registry.add(plugin)
        for name in names or ():
            if name not in (plugin.name for plugin in registry.plugins):
                error = "RLAIF_PLUGINS names it, but no installed plugin is called that"
                registry.plugins.append(Plugin(name, "not installed", "", error=error))
        if os.environ.get("RLAIF_TRACE"):
            registry.hooks.add_hookcall_monitoring(
                lambda name, impls, kwargs: print(f"rlaif trace: {name} -> {[i.plugin_name for i in impls]}"),
                lambda outcome, name, impls, kwargs: None,
            )
        return registry

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

    def tell(self, hook: str, **facts: Any) -> Iterator[tuple[str, str]]:
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
            raise PluginError(f"{slot} '{component.name}': {component.target} lacks {', '.join(lacking)}()")
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


def require_plugins(requirements: Iterable[str]) -> list[str]:
    """List which of a spec's `requires` are not met, each with the pip command that meets it."""
    unmet = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            unmet.append(f"{text} is not installed; install it: pip install '{text}'")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            unmet.append(f"{text} is required, installed is {have}; upgrade it: pip install -U '{text}'")
    return unmet
