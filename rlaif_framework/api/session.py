"""Prepare a call from Python: load the plugins, and keep libraries quiet while it runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.own_code import OwnCode
from rlaif_framework.processes import is_first_process
from rlaif_framework.progress import Progress

CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"


def load_plugins(files: Iterable[str | Path] = (), trust_local: bool = False) -> PluginManager:
    """Load all plugins, and warn of each that failed or is slow.

    Args:
        files: Python files of the caller's own to load, and modules to allow.
        trust_local: If True, all code that a spec names may run.
    """
    manager = PluginManager.load(code=OwnCode(map(str, files), trust_local))
    for plugin in manager.plugins if is_first_process() else ():
        if plugin.warning is not None:
            warnings.warn(plugin.warning, stacklevel=3)
    return manager


def create_progress(verbose: bool, details: bool = False) -> Progress:
    """Create the progress of a call, which only one of the processes of `accelerate launch` prints.

    Args:
        verbose: If False, print nothing.
        details: If True, print more than usual.
    """
    return Progress.create(quiet=not verbose or not is_first_process(), verbose=details)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the advice and the progress bars of transformers in this block, and restore them after it.

    The command does so for its whole process, which here belongs to the caller.
    """
    from transformers.utils import logging

    verbosity, bars, kept = logging.get_verbosity(), logging.is_progress_bar_enabled(), os.environ.get(CONVERSION)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # transformers would load weights that a service converted, which are not those that the keys are made from.
    os.environ.setdefault(CONVERSION, "1")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own code
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if kept is None:
            os.environ.pop(CONVERSION, None)
