"""Find installed plugins and check their requirements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stevedore.extension import Extension, ExtensionManager

from rlaif_framework.errors import PluginError

GROUP = "rlaif_framework.plugins.discovery"


DISTRIBUTION = "rlaif-framework"


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
