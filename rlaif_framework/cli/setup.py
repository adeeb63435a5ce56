"""Prepare a command: load plugins and specs, and configure libraries."""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_framework.errors import SpecError
from rlaif_framework.memory import keep_freed_memory
from rlaif_framework.processes import is_first_process
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.model import Spec


def load_plugins(files: list[str] | None = None, trust_local: bool = False, builtins: bool = True) -> PluginManager:
    """Load all plugins, and print a warning for each that failed or is slow.

    With RLAIF_DEBUG=1, the traceback of each failure is printed too.

    Args:
        files: Files of the user's own to load, and modules to allow.
        trust_local: If True, all code that a spec names may run.
        builtins: If False, load only the installed plugins.
    """
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.plugins.own_code import OwnCode

    manager = PluginManager.load(code=OwnCode(files or (), trust_local), builtins=builtins)
    for plugin in manager.plugins if is_first_process() else ():
        if plugin.warning is not None:
            print(escape_controls(f"rlaif: warning: {plugin.warning}"), file=sys.stderr)
        if plugin.cause is not None and os.environ.get("RLAIF_DEBUG"):
            traceback.print_exception(plugin.cause)
    return manager


def load_spec_files(
    spec: str | None,
    more: list[str] | None,
    overrides: list[str] | None,
    unset: list[str] | None,
    plugins: list[str] | None,
    trust_local: bool,
) -> tuple[Spec, PluginManager]:
    """Load a spec from its files, and the plugins that it was validated with."""
    from rlaif_framework.spec.loading import load_spec

    given = [*([spec] if spec is not None else []), *(more or [])]
    if not given:
        raise SpecError("no spec: give a file, such as specs/quickstart.yaml")
    manager = load_plugins(plugins, trust_local)
    return load_spec(given, overrides or (), manager, unset or ()), manager


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse arguments that are not UTF-8, such as names of files in another encoding: records could not name them.

    Raises:
        SpecError: An argument, or the current folder, is not UTF-8.
    """
    for text in (*arguments, str(Path.cwd())):
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(text).decode(errors="backslashreplace")
            encoding = sys.getfilesystemencoding()
            remedy = "rename the file or folder" if encoding == "utf-8" else "set PYTHONUTF8=1"
            raise SpecError(f"{shown} is not {encoding}; {remedy}") from None


def limit_spinning() -> None:
    """Let OpenMP threads that wait for others sleep after a short time, unless the user has chosen a wait policy.

    By default they keep their cores busy for milliseconds. If another process uses one of the cores, the threads wait
    for each other most of the time: see benchmarks/contention.py. Must be called before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        # Of GNU's OpenMP, which torch uses on Linux: sleeping at once costs more on a quiet machine.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def report_thread_error(error: threading.ExceptHookArgs) -> None:
    """Report an error in the thread of a library. One of the system, such as a full disk, needs no traceback.

    TensorBoard, for one, also raises it where its writer is called, and the run ends with a message.
    """
    if isinstance(error.exc_value, OSError) and not os.environ.get("RLAIF_DEBUG"):
        print(escape_controls(f"rlaif: warning: a thread has failed: {error.exc_value}"), file=sys.stderr)
    else:
        threading.__excepthook__(error)


def prepare_process() -> None:
    """Configure output, memory and threads, and silence the progress bars and advice of libraries.

    Must be called before the libraries are imported, which plugins may do.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller; without it, the next file to be opened would get its number
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for locales without UTF-8
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = report_thread_error
    keep_freed_memory()
    # Variables that a user has set take precedence.
    limit_spinning()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the progress bar of the conversion of GGUF files
    # transformers would load weights that a service converted, which are not those that the keys are made from.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # tokenizers warns if a process forks after it used threads
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own code
