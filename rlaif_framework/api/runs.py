"""Run a spec from Python, by the engine of `rlaif run`, and use what a run made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif_framework.api.families import FamilyResult, execute_family
from rlaif_framework.api.finished import FinishedRun
from rlaif_framework.api.results import RunResult
from rlaif_framework.api.session import create_progress, load_plugins, quiet_libraries
from rlaif_framework.api.settings import check_keywords, to_overrides
from rlaif_framework.files import user_path
from rlaif_framework.pipeline.engine import run_spec
from rlaif_framework.pipeline.run_folder import default_store
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.report.verdict import write_verdict
from rlaif_framework.spec.families import Family
from rlaif_framework.spec.loading import resolve_spec
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Store
from rlaif_framework.terminal import format_seconds


def run(
    spec: str | Path | Sequence[str | Path] | Mapping[str, Any] | Spec,
    out: str | Path | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    verbose: bool = True,
    **overrides: Any,
) -> RunResult | Any:  # `FamilyResult` is Any, so that the result of one run needs no check of its type
    """Run a spec: labels, reward model, improved policy, and a report. With `seeds` or `matrix`, run all members.

    What is in the artefact store is reused, so the same call again returns at once, and resumes if it was interrupted.

    Args:
        spec: The path of a spec file, or several that are merged in order, a mapping with the contents of one, or a
            spec built in Python.
        out: Run folder [default: runs/<name>-<time>].
        set: Values to override, by their paths, such as `{"arms.rlaif.algorithm.steps": 10}`.
        store: Folder of the artefact store [default: $RLAIF_STORE or runs/.store].
        plugins: Python files to load as plugins, and to allow a spec to use, and modules to allow.
        trust_local: Allow all Python code that the spec names to run. Read it first.
        verbose: If False, print nothing.
        overrides: Settings of the spec to replace, such as `seed=1` or `seeds=[0, 1, 2]`.

    Returns:
        The result of the run; a `FamilyResult` for a spec with `seeds` or `matrix`.

    Raises:
        RlaifError: Something that the caller can fix; the message names the stage.
    """
    check_keywords(overrides)
    manager, progress = load_plugins(plugins, trust_local), create_progress(verbose)
    loaded = resolve_spec(spec, to_overrides({**overrides, **(set or {})}), manager)
    folder, place = (None if path is None else user_path(str(path)) for path in (out, store))
    with quiet_libraries():
        return execute(loaded, folder, place, manager, progress)


def execute(
    spec: Spec | Family,
    out: Path | None,
    store: Path | None,
    manager: PluginManager,
    progress: Progress,
    show: Callable[[Path], str] = str,
) -> RunResult | FamilyResult:
    """Run a spec or a family, and print its findings, its verdict and time, and the path of its report by `show`."""
    if isinstance(spec, Family):
        return execute_family(spec, out, store, manager, progress, show)
    start = progress.clock()
    finished = run_spec(spec, out, Store(store or default_store()), manager, progress)
    result = RunResult(FinishedRun(finished.folder, finished.spec, manager))
    if finished.context.accelerator.is_main_process:
        for line in result.report.describe() if result.report else ():
            progress.print(line)
        for line in write_verdict(result.report.evaluation) if result.report else ():
            progress.print(line)
        took, reused = format_seconds(progress.clock() - start), sum(finished.reused.values())
        count = f", of which {reused} were reused" if reused else ""
        progress.print(f"finished in {took}: {len(finished.steps)} stages{count}")
        made = finished.folder / "report.html" if result.report else finished.folder
        progress.print(f"{'report' if result.report else 'run folder'}: {show(made)}")
    return result


def load_run(
    folder: str | Path,
    *,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    trust_remote_code: bool = False,
) -> RunResult:
    """Load a finished run, without computing anything.

    Args:
        folder: The run folder.
        plugins: Python files to load as plugins, and to allow a spec to use, and modules to allow.
        trust_local: Allow all Python code that the spec names to run. Read it first.
        trust_remote_code: Accept a spec that lets models run their own code, which can do everything that you can.

    Raises:
        RlaifError: The folder is not that of a finished run.
    """
    return RunResult(FinishedRun.read(user_path(str(folder)), load_plugins(plugins, trust_local), trust_remote_code))
