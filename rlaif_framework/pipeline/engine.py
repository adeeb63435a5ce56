"""Run the steps of a spec one after another, and reuse artefacts that are in the store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.preflight import describe_data
from rlaif_framework.contracts.lifecycle import StepInfo
from rlaif_framework.contracts.stage import Stage, resume_step
from rlaif_framework.errors import RlaifError
from rlaif_framework.files import locked, read_json, write_atomic
from rlaif_framework.memory import peak_memory, reset_peak_memory, trim_memory
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.models.memory_plan import estimate_peak, plan_load
from rlaif_framework.pipeline.environment import describe_environment, is_disk_full
from rlaif_framework.pipeline.planning import check_loads, complete_spec, prepare
from rlaif_framework.pipeline.reporting import build_report, collect_panels
from rlaif_framework.pipeline.run_folder import check_folder, create_folder, open_folder, place_artefact
from rlaif_framework.pipeline.run_record import RunStatus
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.pipeline.store_use import used_artefacts
from rlaif_framework.pipeline.tables import read_tables
from rlaif_framework.pipeline.timings import Timings, describe_time
from rlaif_framework.pipeline.tracking import Tracking
from rlaif_framework.pipeline.verification import check_artefact
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Forecast, Progress
from rlaif_framework.report.results import list_results
from rlaif_framework.seeds import derive_seed
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Manifest, Store

POLL_SECONDS = 0.2
"""Seconds between checks of a waiting process for an artefact that the main process computes."""


@dataclass
class Run:
    """One execution of a spec; passed to the lifecycle hooks."""

    spec: Spec
    folder: Path
    store: Store
    manager: PluginManager
    context: Context
    progress: Progress
    checkpoint_seconds: float = 60.0
    steps: list[Step] = field(default_factory=list)
    reused: dict[str, bool] = field(default_factory=dict)
    """True for each finished step whose artefact was reused, by the step's name."""
    choices: list[str] = field(default_factory=list)
    """Sentences about what the spec leaves open, such as its judge."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Storage for lifecycle plugins between hooks; each plugin uses its own name as the key."""
    failed_hooks: set[tuple[str, str]] = field(default_factory=set)
    """Plugin and hook of each failure that has been reported."""
    hooks: bool = True
    """If False, no lifecycle hook is called: stages are computed before the runs that share them."""

    def __post_init__(self) -> None:
        self.start = self.progress.clock()
        self.timings = Timings(self.store, self.context.task_config)
        self.tracking = Tracking(self.folder, self.progress.print)  # without trackers until the run starts

    def call_hooks(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook; a plugin that fails is reported once and does not stop the run."""
        if not self.hooks:
            return
        for plugin, error in self.manager.call_hooks(hook, run=self, **arguments):
            if (plugin, hook) not in self.failed_hooks:
                self.failed_hooks.add((plugin, hook))
                self.progress.print(f"warning: plugin '{plugin}' failed in {hook}: {' '.join(error.split())}")

    def artefact(self, step: StepInfo) -> Path:
        """Return the folder of a step's finished artefact in the store."""
        return self.store.path(step.stage, step.key)

    def missing_steps(self) -> list[Step]:
        """Return the steps that are still to be computed, each once: arms share those with equal keys."""
        distinct = {step.key: step for step in reversed(self.steps)}
        return [s for s in self.steps if distinct[s.key] is s and not self.store.has(s.stage, s.key)]

    def forecast(self, step: Step) -> Forecast | None:
        """Return what is expected of a step that is computed now, and of those after it; None outside of a run."""
        if not self.hooks:
            return None
        later = [other for other in self.missing_steps() if other.key != step.key]
        return self.timings.forecast([step, *later], self.progress.clock() - self.start)


def run_spec(
    spec: Spec,
    folder: Path | None,
    store: Store,
    manager: PluginManager,
    progress: Progress | None = None,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Run every step of a spec that is not in the store yet, and collect all artefacts in a run folder.

    Args:
        spec: The spec.
        folder: The run folder; created if missing, updated if it exists. None for a new one in `runs`.
        store: The store of artefacts.
        manager: Provides the components.
        progress: Where to print; default: nowhere.
        checkpoint_seconds: Time between two checkpoints of training stages.

    Returns:
        The finished run.

    Raises:
        RlaifError: A problem that the user can solve; the message names the stage.
    """
    progress = progress or Progress()
    run = prepare_run(spec, folder, store, manager, progress, checkpoint_seconds)
    main = run.context.accelerator.is_main_process
    if folder is None and main:
        run.folder = create_folder(spec.name)
    progress.print(f"run {spec.name} in {run.folder}")
    expected = [run.timings.expect(step) for step in run.missing_steps()]
    if any(seconds is not None for seconds in expected):
        progress.print(describe_time(expected))
    if not main:
        _run_steps(run)
        return run
    steps = [(step.stage, step.key) for step in run.steps]
    with locked(run.folder, f"runs {spec.name} in {run.folder}"), used_artefacts(store, steps, progress.print):
        _run_steps(run)
    return run


def prepare_run(
    spec: Spec,
    folder: Path | None,
    store: Store,
    manager: PluginManager,
    progress: Progress,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Check everything that a run needs, and list its steps. No file is written and no model is loaded.

    The arguments are those of `run_spec`.

    Raises:
        RlaifError: Something that the spec names is missing or wrong, or the folder is not that of a run.
    """
    context = Context.from_spec(spec, manager)
    # Of several processes that `accelerate launch` starts, only the main one uses the folder.
    if folder is not None and context.accelerator.is_main_process:
        check_folder(folder)
    spec, choices = complete_spec(spec, context, progress)
    steps = prepare(spec, context, progress)
    # Only models of steps that will be computed: a finished run needs none of them.
    check_loads(context, [step for step in steps if not store.has(step.stage, step.key)])
    place = Path() if folder is None else folder
    return Run(spec, place, store, manager, context, progress, checkpoint_seconds, steps, choices=choices)


def compute_step(run: Run, step: Step, position: str) -> None:
    """Compute a step of a run if it is not in the store, for all runs that share it, without hooks and trackers.

    Args:
        run: A run that has the step. It needs no folder.
        step: The step; those that it depends on are in the store.
        position: Printed before its name.
    """
    run.hooks = False
    _ensure(run, step, position, run.context.accelerator.is_main_process)


def _run_steps(run: Run) -> None:
    """Finish all steps, write the report, and call the lifecycle hooks of the run."""
    main = run.context.accelerator.is_main_process
    if main:
        run.store.remove_leftovers()
        open_folder(run.folder, run.spec, run.steps)
        status = RunStatus.begin(run.choices, describe_data(run.context))
        status.write(run.folder)
        run.tracking = Tracking.start(run.spec, run.context, run.folder, run.steps, run.progress.print)
        run.call_hooks("rlaif_run_started")
    error: BaseException | None = None
    try:
        for number, step in enumerate(run.steps, 1):
            _finish_step(run, step, f"[{number}/{len(run.steps)}]", main)
        if main and run.spec.evaluate is not None:
            _write_report(run, status.with_reused(run.reused))
    except BaseException as raised:  # an interrupt from the keyboard too
        error = raised
        raise
    finally:
        if main:
            with suppress(OSError):  # if the disk is full, that error is being raised already
                status.with_reused(run.reused).end(error).write(run.folder)
            run.call_hooks("rlaif_run_finished", error=error)
            run.tracking.run_finished(error)


def _finish_step(run: Run, step: Step, position: str, main: bool) -> None:
    """Compute a step's artefact if it is not in the store, and link it into the run folder."""
    cached = _ensure(run, step, position, main)
    if not main:
        return
    run.reused[step.name] = cached
    place_artefact(run.artefact(step), run.folder, step.name)
    run.call_hooks("rlaif_stage_finished", step=step, cached=cached)
    run.tracking.stage_finished(step, run.artefact(step), lambda: read_tables(step, run.artefact))


def _ensure(run: Run, step: Step, position: str, main: bool) -> bool:
    """Compute a step's artefact if it is not in the store; return True if it was."""
    cached = run.store.has(step.stage, step.key)
    if not cached and main:
        with run.store.lock(step.stage, step.key, run.progress.print):
            cached = run.store.has(step.stage, step.key)  # another run may have committed it before the lock
            if not cached:
                title = f"{position} {step.name}"
                run.progress.print(f"{title}{_estimate_memory(run, step)}")
                with run.progress.stage(title, run.forecast(step)):
                    _compute(run, step, main=True)
    elif not cached and step.recipe.distributed:
        _compute(run, step, main=False)
    while not run.store.has(step.stage, step.key):
        time.sleep(POLL_SECONDS)  # in other processes: the main one has not committed the artefact yet
    if main:
        if cached:
            run.store.check(step.stage, step.key)
        manifest = run.store.manifest(step.stage, step.key)
        took = "reused" if cached else f"done in {manifest.seconds:.1f} s"
        run.progress.print(f"{position} {step.name}: {took}")
        _tell_details(run, step, manifest)
    return cached


def _tell_details(run: Run, step: Step, manifest: Manifest) -> None:
    facts = ", ".join(f"{name} {value}" for name, value in manifest.facts.items())
    run.progress.detail(f"  in {run.artefact(step)}")
    run.progress.detail(f"  peak memory {manifest.peak_memory_bytes / 2**30:.2f} GiB{f'; {facts}' if facts else ''}")


def _estimate_memory(run: Run, step: Step) -> str:
    """Format the estimated peak memory of a training step; empty for other steps."""
    if not any(load.trained for load in step.loads):
        return ""
    peak = estimate_peak([plan_load(load, run.spec.policy) for load in step.loads])
    return "" if peak is None else f": about {peak / 2**30:.1f} GiB in use at most"


def _compute(run: Run, step: Step, main: bool) -> None:
    """Do the work of a step, and commit its artefact in the main process."""
    from accelerate.utils import set_seed  # imports torch

    work, checkpoint = run.store.begin(step.stage, step.key)
    stage = _create_stage(run, step, work, checkpoint, main)
    spent = checkpoint / "seconds.json"
    earlier = read_json(spent)  # of interrupted runs of this step
    before = float(earlier) if isinstance(earlier, int | float) else 0.0
    if main:
        resumed_at = resume_step(checkpoint)
        run.call_hooks("rlaif_stage_started", step=step, resumed_at=resumed_at)
        run.tracking.stage_started(step, resumed_at, work)
        reset_peak_memory()
    # For random numbers that a component draws without its own seed, such as new weights. numpy limits seeds.
    set_seed(stage.seed("start") % 2**32)
    start = time.monotonic()
    try:
        step.run(stage, run.context)
    except Exception as error:
        raise _name_step(error, step) from error
    finally:
        # The accelerator keeps references to prepared models, and adapters have cyclic ones: both would stay in memory.
        run.context.accelerator.free_memory()  # collects garbage
        trim_memory()
        seconds = before + time.monotonic() - start
        if main and checkpoint.exists():
            with suppress(OSError):  # if the disk is full, that error is being raised already
                write_atomic(spent, json.dumps(seconds))
    if main:
        try:
            check_artefact(step.recipe, work, run.context)
        except RlaifError as error:
            # The checkpoints too: mended code starts over.
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise _name_step(error, step) from error
        workload = run.timings.workload(step)
        manifest = {
            "stage": step.stage,
            "key": step.key,
            **step.contents,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(),
            "workload": asdict(workload) if workload else None,
            "facts": stage.facts,
            "environment": describe_environment(),
        }
        run.store.commit(step.stage, step.key, manifest)
        run.timings.add(step, seconds)


def _create_stage(run: Run, step: Step, work: Path, checkpoint: Path, main: bool) -> Stage:
    def report_step(number: int, metrics: Mapping[str, float]) -> None:
        run.call_hooks("rlaif_step_logged", step=step, number=number, metrics=metrics)
        run.tracking.step_logged(step, number, metrics)

    seed, number = run.spec.seed, step.recipe.round
    return Stage(
        name=step.stage,
        folder=work,
        checkpoint=checkpoint,
        run_seed=seed if number == 1 else derive_seed(seed, "round", number),
        accelerator=run.context.accelerator,
        progress=run.progress if main else Progress(),
        checkpoint_seconds=run.checkpoint_seconds,
        artefact=run.artefact,
        report_step=report_step,
    )


def _name_step(error: Exception, step: Step) -> Exception:
    """Prepend the step to an error, and turn the errors that libraries raise on a full disk into one."""
    if isinstance(error, RlaifError):
        return type(error)(f"{step.name}: {error}")
    if is_disk_full(error):
        return RlaifError(
            f"{step.name}: the disk is full, or a quota or file-size limit is reached; free some space, or set --store "
            "to another disk, and rerun the same command to resume from the last checkpoint"
        )
    return error


def _write_report(run: Run, status: RunStatus) -> None:
    # The last step is the summary of the evaluation.
    evaluation = Evaluation.load(run.artefact(run.steps[-1]))
    report = build_report(
        run.spec.model_dump(mode="json"),
        evaluation,
        {step.name: run.store.manifest(step.stage, step.key) for step in run.steps},
        status,
        read_json(run.folder / "environment.json"),
        collect_panels(run, run.manager, run.progress),
    )
    for note in report.write(run.folder):
        run.progress.print(note)
    run.tracking.results_measured(list_results(evaluation), run.folder / "report.html")
