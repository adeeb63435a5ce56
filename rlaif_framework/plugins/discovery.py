"""Find installed plugins and load them, each guarded on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from types import ModuleType
from typing import Any, cast

from packaging.utils import canonicalize_name
from stevedore.extension import Extension, ExtensionManager

from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.plugins.versions import GROUP, check_requirement

SLOW_SECONDS = 0.3
"""A plugin that takes longer to load is reported, because every command waits for it."""

Clock = Callable[[], float]
"""Returns seconds, as `time.perf_counter` does."""


@dataclass
class Plugin:
    """A plugin with its distribution, hooks and components, or the error if it failed to load."""

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    error: str | None = None
    module: ModuleType | None = None
    builtin: bool = False
    """True for a module of this package, whose components have bare names."""
    seconds: float = 0.0
    """Time to import the plugin and to call its registration hooks; not measured for built-ins."""
    file: str | None = None
    """Path of a plugin that is a file of the user's own; its version is the hash of its contents."""
    cause: BaseException | None = None
    """The exception that the plugin failed with."""

    @property
    def title(self) -> str:
        """Name of the plugin and its distribution, for messages."""
        return f"plugin '{self.name}' ({self.source})"

    @property
    def source(self) -> str:
        """The file, or the distribution with its version."""
        return self.file or f"{self.distribution} {self.version}".strip()

    @property
    def is_slow(self) -> bool:
        """True if the plugin slows every command down."""
        return self.seconds > SLOW_SECONDS

    @property
    def warning(self) -> str | None:
        """What is wrong with the plugin, as one line; None if it is fine."""
        if self.error:
            return f"{self.title} failed to load: {' '.join(self.error.split())}"
        if self.is_slow:
            return (
                f"{self.title} took {self.seconds:.1f} s to load, which every command waits for; its author should "
                "import heavy libraries in the module of a component's target only"
            )
        return None

    def fail(self, error: BaseException) -> None:
        """Record that the plugin failed to load."""
        self.error, self.cause, self.hooks = describe_error(error, self.package), error, []

    @property
    def package(self) -> str:
        """Name of the plugin's module; empty if it is not loaded."""
        return self.module.__name__ if isinstance(self.module, ModuleType) else ""


class Discovery(ExtensionManager[ModuleType]):
    """Load the installed plugins; a plugin that fails is recorded with its error.

    Args:
        allowed: Names of the plugins to load; None for all.
        clock: Measures how long a plugin takes to load.
    """

    def __init__(self, allowed: Sequence[str] | None, clock: Clock = time.perf_counter) -> None:
        self.allowed = allowed
        self.clock = clock
        self.rows: list[Plugin] = []
        super().__init__(GROUP, on_load_failure_callback=self._record_failure)

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry points of the allowed plugins: first those whose module has the name of their distribution,
        so that no other distribution can register it, then by distribution and name."""
        # Not from stevedore's cache: it drops the distribution and can be stale for two minutes after a reinstall.
        found = sorted(self._read_entry_points(), key=lambda e: (not _owns_module(e), *_identify(e), e.name))
        return [e for e in found if self.allowed is None or e.name in self.allowed]

    def _read_entry_points(self) -> list[EntryPoint]:
        try:
            return list(entry_points(group=GROUP))
        except Exception:  # one malformed file of any installed distribution
            return list(self._read_each_distribution())

    def _read_each_distribution(self) -> Iterator[EntryPoint]:
        """Yield the entry points of all distributions; those that cannot be read are recorded, if they are plugins."""
        seen = set()
        for dist in distributions():
            name, version = describe_distribution(dist)
            if canonicalize_name(name) in seen:  # the first one on the path counts
                continue
            seen.add(canonicalize_name(name))
            try:
                yield from dist.entry_points.select(group=GROUP)
            except Exception as error:
                if _may_have_plugins(dist):
                    reason = f"its entry_points.txt cannot be read: {describe_error(error)}"
                    self.rows.append(Plugin(name, name, version, error=reason, cause=error))

    def _load_one_plugin(self, ep: EntryPoint, *args: Any, **kwargs: Any) -> Extension[ModuleType] | None:
        start = self.clock()
        try:
            check_requirement(_distribution(ep))
            extension = super()._load_one_plugin(ep, *args, **kwargs)
        except KeyboardInterrupt:
            raise
        # stevedore passes on only some errors to the callback; with the others, one plugin would stop all commands.
        except BaseException as error:
            raise _LoadError from error
        if extension is not None:
            module = cast(ModuleType, extension.plugin)
            self.rows.append(Plugin(ep.name, *_identify(ep), module=module, seconds=self.clock() - start))
        return extension

    def _record_failure(self, _: ExtensionManager[ModuleType], ep: EntryPoint, error: BaseException) -> None:
        cause = error.__cause__ or error
        package = ep.value.partition(":")[0].partition(".")[0].strip()
        self.rows.append(Plugin(ep.name, *_identify(ep), error=describe_error(cause, package), cause=cause))


class _LoadError(Exception):
    """A plugin could not be loaded; the cause says why."""


def _distribution(ep: EntryPoint) -> Distribution:
    assert ep.dist is not None  # set by importlib.metadata
    return ep.dist


def _identify(ep: EntryPoint) -> tuple[str, str]:
    return describe_distribution(_distribution(ep))


def describe_distribution(dist: Distribution) -> tuple[str, str]:
    """Return the name and version of a distribution; `unknown` if its metadata is missing."""
    try:
        return dist.name or "unknown", dist.version or ""
    except Exception:  # what importlib.metadata raises without metadata depends on its version
        return "unknown", ""


def _owns_module(ep: EntryPoint) -> bool:
    module = ep.value.partition(":")[0].partition(".")[0].strip()
    return canonicalize_name(module) == canonicalize_name(_identify(ep)[0])


def _may_have_plugins(dist: Distribution) -> bool:
    """Return True if the entry points of a distribution, which cannot be read, may have plugins among them."""
    try:
        return GROUP in (dist.read_text("entry_points.txt") or "")
    except UnicodeDecodeError as error:
        return GROUP.encode() in error.object
