"""Run a spec's steps one after another, reusing every artefact that is already there."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.preflight import check_components
from rlaif_framework.contracts.stage import Stage, resume_step
from rlaif_framework.errors import RlaifError, SpecError
from rlaif_framework.memory import peak_memory, release_memory, reset_peak_memory
from rlaif_framework.models.gguf import converted_folder
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.models.memory_plan import estimate_peak, plan_load
from rlaif_framework.models.source import find_model
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.environment import describe_environment, is_disk_full
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Store, link_tree, read_json, write_atomic

RECORD = "run.json"


@dataclass
class Run:
    """One execution of a spec; lifecycle hooks are given it."""

    spec: Spec
    folder: Path
    store: Store
    manager: PluginManager
    context: Context
    progress: Progress
    checkpoint_seconds: float = 60.0
    steps: list[Step] = field(default_factory=list)
    reused: dict[str, bool] = field(default_factory=dict)
    """For each finished step's name, whether its artefact was reused."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where a lifecycle plugin keeps what it needs from one hook to the next, under its own name."""

    failed_hooks: set[tuple[str, str]] = field(default_factory=set)
    """Plugin and hook of each failure that was told."""

    def call_hooks(self, hook: str, **facts: Any) -> None:
        """Call a lifecycle hook; a plugin that fails in it is a warning, once, and never ends the run."""
        for plugin, error in self.manager.call_hooks(hook, run=self, **facts):
            if (plugin, hook) not in self.failed_hooks:
                self.failed_hooks.add((plugin, hook))
                self.progress.print(f"warning: plugin '{plugin}' failed in {hook}: {' '.join(error.split())}")

    def artefact(self, step: Step) -> Path:
        """Folder of a step's finished artefact in the store."""
        return self.store.path(step.stage, step.key)


def run_spec(
    spec: Spec,
    folder: Path,
    store: Store,
    manager: PluginManager,
    progress: Progress | None = None,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Run every step of a spec that is not in the store yet, and put the whole run into a folder.

    Args:
        spec: What to do.
        folder: The run folder; made if missing, reused if it is one.
        store: Where artefacts are kept and found.
        manager: The components.
        progress: Where to print; default: nowhere.
        checkpoint_seconds: How often training stages save their state.

    Raises:
        RlaifError: Anything a user can mend, with the stage named.
    """
    check_folder(folder)
    progress = progress or Progress()
    progress.print(f"run {spec.name} in {folder}")
    context = Context.from_spec(spec, manager)
    run = Run(spec, folder, store, manager, context, progress, checkpoint_seconds)
    check_components(spec, context)
    run.steps = compose(spec, context)
    _check_models(run)
    main = context.accelerator.is_main_process
    if main:
        _open_folder(run)
        run.call_hooks("rlaif_run_started")
    error: BaseException | None = None
    try:
        for number, step in enumerate(run.steps, 1):
            _finish_step(run, step, f"[{number}/{len(run.steps)}]", main)
        if main and spec.evaluate is not None:
            from rlaif_framework.report.run_report import write_report

            write_report(run)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if main:
            run.call_hooks("rlaif_run_finished", error=error)
    return run


def check_folder(folder: Path) -> None:
    """Refuse a folder that exists and is not a run's."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECORD).exists())):
        raise SpecError(f"{folder} exists and is not a run folder; choose another --out")


def _check_models(run: Run) -> None:
    """Meet a model that cannot be had, or has no tokenizer, before anything is written."""
    policy = run.spec.policy
    todo = [step for step in run.steps if not run.store.has(step.stage, step.key)]
    for name in dict.fromkeys(load.model for step in todo for load in step.loads):
        source = find_model(name, policy.revision if name == policy.model else None)
        if not source.is_gguf or converted_folder(source).exists():  # converting it is the first stage's work
            load_tokenizer(source, needs_end=name == policy.model)


def _open_folder(run: Run) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    record = run.folder / RECORD
    # An earlier run of a changed spec may have left steps that this one does not have, and a report of other numbers.
    steps = {step.name: step.key for step in run.steps}
    before = (read_json(record) or {"steps": {}})["steps"]
    for name in set(before) - set(steps):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    if before != steps:
        for name in ("report.html", "report.json"):
            (run.folder / name).unlink(missing_ok=True)
    write_atomic(record, json.dumps({"steps": steps}, indent=1))
    resolved = yaml.safe_dump(run.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(run.folder / "spec.yaml", resolved)
    write_atomic(run.folder / "environment.json", json.dumps(describe_environment(), indent=1))


def _finish_step(run: Run, step: Step, position: str, main: bool) -> None:
    cached = run.store.has(step.stage, step.key)
    if not cached and main:
        with run.store.lock(step.stage, step.key):
            cached = run.store.has(step.stage, step.key)  # another run may have made it meanwhile
            if not cached:
                run.progress.print(f"{position} {step.name}{_plan_memory(run, step)}")
                _do_step(run, step, main=True)
    elif not cached and step.distributed:
        _do_step(run, step, main=False)
    while not run.store.has(step.stage, step.key):
        time.sleep(0.2)  # not the main process: wait for it to finish the artefact
    if not main:
        return
    run.reused[step.name] = cached
    seconds = run.store.manifest(step.stage, step.key)["seconds"]
    run.progress.print(f"{position} {step.name}: {'reused' if cached else f'done in {seconds:.1f} s'}")
    link_tree(run.artefact(step), run.folder / step.name)
    run.call_hooks("rlaif_stage_finished", step=step, cached=cached)


def _plan_memory(run: Run, step: Step) -> str:
    """What a training step is about to hold, said before it holds it."""
    if not any(load.trained for load in step.loads):
        return ""
    peak = estimate_peak([plan_load(load, run.spec.policy) for load in step.loads])
    return "" if peak is None else f": about {peak / 2**30:.1f} GiB in use at most"


def _do_step(run: Run, step: Step, main: bool) -> None:
    from accelerate.utils import set_seed

    work, checkpoint = run.store.begin(step.stage, step.key)
    stage = Stage(
        name=step.stage,
        folder=work,
        checkpoint=checkpoint,
        inputs={name: run.artefact(needed) for name, needed in step.inputs.items()},
        run_seed=run.spec.seed,
        accelerator=run.context.accelerator,
        checkpoint_seconds=run.checkpoint_seconds,
        progress=run.progress if main else Progress(),
        report_step=lambda number, metrics: run.call_hooks(
            "rlaif_step_logged", step=step, number=number, metrics=metrics
        ),
    )
    spent = checkpoint / "seconds.json"
    before = float(read_json(spent) or 0.0)
    if main:
        run.call_hooks("rlaif_stage_started", step=step, resumed_at=resume_step(checkpoint))
        reset_peak_memory()
    # Whatever a component draws without a seed of its own (new weights, say) is still the same every time.
    set_seed(stage.seed("start") % 2**32)
    start = time.monotonic()
    try:
        step.work(stage)
    except Exception as error:
        raise _explain(error, step) from error
    finally:
        # The accelerator keeps what it prepared, and adapters refer to themselves: both would outlive the stage.
        run.context.accelerator.free_memory()
        release_memory()
        if main and checkpoint.exists():
            _note_seconds(spent, before + time.monotonic() - start)
    if main:
        manifest = {
            "stage": step.stage,
            "key": step.key,
            "config": step.config,
            "inputs": {name: needed.key for name, needed in step.inputs.items()},
            "seconds": before + time.monotonic() - start,
            "peak_memory_bytes": peak_memory(),
            "facts": stage.facts,
            "environment": describe_environment(),
        }
        run.store.commit(step.stage, step.key, manifest)


def _note_seconds(path: Path, seconds: float) -> None:
    with suppress(OSError):  # a full disk: the error that is already on its way says so
        write_atomic(path, json.dumps(seconds))


def _explain(error: Exception, step: Step) -> Exception:
    """Name the stage in what went wrong; a full disk is told as such, whichever library met it."""
    if isinstance(error, RlaifError):
        return type(error)(f"{step.name}: {error}")
    if is_disk_full(error):
        return RlaifError(
            f"{step.name}: the disk is full; free some space (or set --store to another disk) and run the same command "
            f"again: it goes on from the last checkpoint"
        )
    return error


def default_store() -> Path:
    """Where artefacts are kept: RLAIF_STORE, else `runs/.store` under the current folder."""
    return Path(os.environ.get("RLAIF_STORE") or "runs/.store")


def default_folder(spec: Spec) -> Path:
    """Where a run goes by default: `runs/<name>-<time>`."""
    return Path("runs") / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
