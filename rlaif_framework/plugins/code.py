"""Hash the source code of a component, so that fixed code does not get the results of older code."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_IMPORT = re.compile(rb"^from (rlaif_framework\.[A-Za-z0-9_]+)[A-Za-z0-9_.]* import", re.MULTILINE)


@lru_cache
def hash_code(module: str) -> str:
    """Hash the source of a module, of the package that it is in, and of the framework's packages that they import.

    Nothing is imported, except for the packages that the module is in.

    Returns:
        16 hexadecimal digits; an empty text if there is no source.
    """
    files = _package_files(module)
    # Sources may have any encoding.
    rooms = {name.decode() for file in files for name in _IMPORT.findall(file.read_bytes())}
    files += [file for room in sorted(rooms) for file in _package_files(room)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16] if files else ""


def _package_files(module: str) -> list[Path]:
    """Return the source files of a module's package, in order; those of a module without a package are its own."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # `__main__` has no spec
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    origin = Path(spec.origin)
    is_package = spec.submodule_search_locations is not None
    return sorted(origin.parent.rglob("*.py")) if is_package or "." in module else [origin]
