"""Versions: of this framework, that a plugin requires, and that a spec requires."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, entry_points, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlaif_framework.errors import PluginError

DISTRIBUTION = "rlaif-framework"
"""Name of the distribution that the framework and the built-in plugins belong to."""

GROUP = "rlaif_framework.plugins"
"""Group of the entry points that name plugins."""


def check_requirement(dist: Distribution) -> None:
    """Refuse a plugin that requires another version of this framework, before its code is imported."""
    for text in dist.requires or ():
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != DISTRIBUTION:
            continue
        # A requirement of an extra, or of another Python version, does not apply.
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = framework_version()
        if not requirement.specifier.contains(installed, prereleases=True):
            raise PluginError(f"needs {requirement}, installed is {installed}; upgrade one of the two with pip")


def framework_version() -> str:
    """Return the version of the installed framework."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout that is not installed
        return "0.0.0"


def has_plugins() -> bool:
    """Return True if any plugin may be installed. This is much faster than loading the built-in ones as well."""
    if os.environ.get("RLAIF_PLUGINS") == "":  # none is allowed
        return False
    try:
        return bool(entry_points(group=GROUP))
    except Exception:  # one malformed file of any installed distribution
        return True


def require_plugins(requirements: Iterable[str]) -> list[str]:
    """List the requirements of a spec that are not met, each with the pip command that installs it."""
    unmet = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            unmet.append(f"{text} is not installed; install it: pip install {_quote(text)}")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            unmet.append(f"{text} is required, installed is {have}; upgrade it: pip install -U {_quote(text)}")
    return unmet


def _quote(text: str) -> str:
    """Quote a requirement for a shell; it may come from a stranger's spec."""
    return shlex.quote(text) if "'" in text else f"'{text}'"
