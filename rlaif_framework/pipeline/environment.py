"""Record the versions and hardware that a result depends on."""

from __future__ import annotations

import errno
import platform
import re
from functools import cache
from importlib.metadata import distributions
from typing import Any

from rlaif_framework.plugins.versions import framework_version

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error was caused by a full disk, a quota or a file-size limit, whichever library raised it."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    # safetensors and other Rust libraries raise their own classes, with the number and message of the system.
    found = re.search(r"os error (\d+)|code: (\d+)", str(error))
    return "No space left on device" in str(error) or (found is not None and int(found[1] or found[2]) in NO_ROOM)


def describe_environment() -> dict[str, Any]:
    """Describe the versions and hardware that a result depends on, as plain JSON."""
    import torch

    return {
        "rlaif_framework": framework_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": _package_versions(),
    }


@cache  # recorded by every stage; reading the metadata of all packages takes a fifth of a second
def _package_versions() -> dict[str, str]:
    """Return the versions of installed packages that a result depends on."""
    wanted = {"torch", "transformers", "tokenizers", "peft", "accelerate", "datasets", "safetensors", "numpy"}
    found = {d.name: d.version for d in distributions() if d.name in wanted or d.name.startswith("rlaif-")}
    return dict(sorted(found.items()))
