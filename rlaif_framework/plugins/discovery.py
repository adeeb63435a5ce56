"""Find installed plugins and load them, each guarded on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import Any, cast

from stevedore.extension import Extension, ExtensionManager

from rlaif_framework.errors import PluginError
from rlaif_framework.plugins.versions import check_requirement

GROUP = "rlaif_framework.plugins"
"""Group of the entry points that name plugins."""


@dataclass
class Plugin:
    """A plugin with its distribution, hooks and components, or the error if it failed to load."""

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)
    error: str | None = None
    module: ModuleType | None = None

    @property
    def title(self) -> str:
        """Name of the plugin and its distribution, for messages."""
        return f"plugin '{self.name}' ({f'{self.distribution} {self.version}'.strip()})"


class Discovery(ExtensionManager[ModuleType]):
    """Load the installed plugins; a plugin that fails is recorded with its error."""

    def __init__(self, allowed: Sequence[str] | None) -> None:
        self.allowed = allowed
        self.rows: list[Plugin] = []
        super().__init__(GROUP, on_load_failure_callback=self._record_failure)

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry points of the allowed plugins, sorted by distribution and name."""
        # Not from stevedore's cache: it drops the distribution and can be stale for two minutes after a reinstall.
        found = sorted(entry_points(group=GROUP), key=lambda e: (_distribution(e).name or "", e.name))
        return [e for e in found if self.allowed is None or e.name in self.allowed]

    def _load_one_plugin(self, ep: EntryPoint, *args: Any, **kwargs: Any) -> Extension[ModuleType] | None:
        try:
            check_requirement(_distribution(ep))
            extension = super()._load_one_plugin(ep, *args, **kwargs)
        # stevedore would not pass these two to the callback, and one plugin would stop all commands.
        except (AssertionError, SystemExit) as error:
            raise PluginError(f"{type(error).__name__}: {error}") from error
        if extension is not None:
            self.rows.append(_describe(ep, module=cast(ModuleType, extension.plugin)))
        return extension

    def _record_failure(self, _: ExtensionManager[ModuleType], ep: EntryPoint, error: BaseException) -> None:
        self.rows.append(_describe(ep, error=describe_error(error)))


def _distribution(ep: EntryPoint) -> Distribution:
    assert ep.dist is not None  # set by importlib.metadata
    return ep.dist


def _describe(ep: EntryPoint, module: ModuleType | None = None, error: str | None = None) -> Plugin:
    dist = _distribution(ep)
    return Plugin(ep.name, dist.name, dist.version, module=module, error=error)


def describe_error(error: BaseException) -> str:
    """Return an error's message, with its type unless it is a `PluginError`."""
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
