"""Prepare a command: load plugins and specs, and configure libraries."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_framework.memory import keep_freed_memory
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.model import Spec


def load_plugins() -> PluginManager:
    """Load all plugins, and print a warning for each that failed."""
    from rlaif_framework.plugins.manager import PluginManager

    manager = PluginManager.load()
    for plugin in manager.plugins:
        if plugin.error and is_first_process():
            reason = " ".join(plugin.error.split())
            print(escape_controls(f"rlaif: warning: {plugin.title} failed to load: {reason}"), file=sys.stderr)
    return manager


def load_spec_file(path: Path, overrides: list[str] | None) -> tuple[Spec, PluginManager]:
    """Load a spec and the plugins that it was validated with."""
    from rlaif_framework.spec.loading import load_spec

    manager = load_plugins()
    return load_spec(path, overrides or (), manager), manager


def is_first_process() -> bool:
    """Return True in the process that prints, of all that `accelerate launch` starts on this machine."""
    # From the environment: importing accelerate to find out would take seconds.
    return os.environ.get("LOCAL_RANK", "0") == "0"


def prepare_libraries() -> None:
    """Configure memory, and silence the progress bars and advice of libraries. Call before they are imported."""
    keep_freed_memory()
    # Variables that a user has set take precedence.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the progress bar of the conversion of GGUF files
    # transformers would load weights that a service converted, which are not those that the keys are made from.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # tokenizers warns if a process forks after it used threads
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own code
