"""Which distribution a namespace belongs to, and what to install for a component that is not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, distribution, version

from packaging.utils import canonicalize_name

from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.plugins.versions import DISTRIBUTION, GROUP, framework_version
from rlaif_registry import read_owners


def find_owner(namespace: str) -> str:
    """Return the distribution that a namespace belongs to: that of the catalogue, or else `rlaif-<namespace>`."""
    return canonicalize_name(read_owners().get(namespace, f"rlaif-{namespace}"))


def owns_name(title: str, name: str) -> bool:
    """Return True if the namespace of a component's name belongs to a distribution."""
    namespace, slash, _ = name.partition("/")
    return bool(slash) and canonicalize_name(title) == find_owner(namespace)


def find_source(name: str, module: str) -> str:
    """Return the distribution that a component comes from, with its version; for a file of the user's own, its path.

    Args:
        name: Name of the component.
        module: Name of the module of its config.
    """
    namespace, slash, _ = name.partition("/")
    if not slash:
        return f"{DISTRIBUTION} {framework_version()}"
    if namespace == "local":
        return sys.modules[module].__file__ or module
    owner = find_owner(namespace)
    try:
        return f"{owner} {version(owner)}"
    except PackageNotFoundError:
        return owner


def describe_absent(name: str, loaded: Collection[str]) -> str:
    """Say which distribution a component would come from, if its namespace is in the catalogue and it is not installed.

    Args:
        name: Name of a component that no plugin offers.
        loaded: The distributions whose plugins were looked at.

    Returns:
        A sentence of an error message; empty for a bare name.
    """
    namespace, slash, _ = name.partition("/")
    if not slash:
        return ""
    if namespace == "local":
        return "'local' is the namespace of files: list the file in the spec's 'plugins', or name it with --plugin"
    owner = find_owner(namespace)
    try:
        found = distribution(owner)
    except PackageNotFoundError:
        return _describe_missing(namespace, owner)
    installed = f"'{owner} {found.version}' is installed"
    try:
        declared = found.entry_points.select(group=GROUP)
    except Exception as error:  # malformed
        return f"{installed}, but its entry_points.txt cannot be read: {describe_error(error)}"
    if not declared:
        return (
            f"{installed}, but declares no entry point of the group '{GROUP}': its author should add one to "
            "pyproject.toml and install it again"
        )
    if "RLAIF_PLUGINS" in os.environ and owner not in {canonicalize_name(other) for other in loaded}:
        return f"{installed}, and the variable RLAIF_PLUGINS excludes it"
    return f"{installed}, and does not offer it"


def _describe_missing(namespace: str, owner: str) -> str:
    if namespace in read_owners():
        return f"'{namespace}' is the namespace of '{owner}', which is not installed; install it: pip install {owner}"
    # No advice to install a name that only a spec of a stranger may have come up with.
    near = get_close_matches(namespace, read_owners(), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"the namespace '{namespace}' is not in the catalogue: {hint}'rlaif catalogue' lists the known plugins"
