"""Which distribution a namespace belongs to, and what to install for a component that is not there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from packaging.utils import canonicalize_name

from rlaif_framework.plugins.versions import GROUP
from rlaif_registry import read_owners


def find_owner(namespace: str) -> str:
    """Return the distribution that a namespace belongs to: that of the catalogue, or else `rlaif-<namespace>`."""
    return canonicalize_name(read_owners().get(namespace, f"rlaif-{namespace}"))


def owns_name(title: str, name: str) -> bool:
    """Return True if the namespace of a component's name belongs to a distribution."""
    namespace, slash, _ = name.partition("/")
    return bool(slash) and canonicalize_name(title) == find_owner(namespace)


def describe_absent(name: str) -> str:
    """Say which distribution a component would come from, if its namespace is in the catalogue and it is not installed.

    Args:
        name: Name of a component that no plugin offers.

    Returns:
        A part of an error message; empty for a bare name.
    """
    namespace, slash, _ = name.partition("/")
    if not slash:
        return ""
    owner = find_owner(namespace)
    try:
        found = distribution(owner)
        if found.entry_points.select(group=GROUP):
            return f"; '{owner} {found.version}' is installed, and does not offer it"
        return (
            f"; '{owner} {found.version}' is installed, but declares no entry point of the group '{GROUP}': its "
            "author should add one to pyproject.toml and install it again"
        )
    except PackageNotFoundError:
        pass
    if namespace in read_owners():
        return f"; '{namespace}' is the namespace of '{owner}', which is not installed; install it: pip install {owner}"
    # No advice to install a name that only a spec of a stranger may have come up with.
    return f"; the namespace '{namespace}' is not in the catalogue: 'rlaif catalogue' lists the known plugins"
