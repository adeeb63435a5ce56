"""Which of several processes prints."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return True in the process that prints, of all that `accelerate launch` starts on this machine."""
    # From the environment: importing accelerate to find out would take seconds.
    return os.environ.get("LOCAL_RANK", "0") == "0"
