"""Record the versions and hardware that a result depends on."""

from __future__ import annotations

import errno
import platform
from functools import cache
from importlib.metadata import distributions
from typing import Any

from rlaif_framework.plugins.versions import framework_version


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error was caused by a full disk or quota, whichever library raised it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and other Rust libraries raise their own classes, with the message of the system.
    return "No space left on device" in str(error) or "os error 28" in str(error)


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
