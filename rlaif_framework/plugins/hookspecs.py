"""The hooks that a plugin can implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from rlaif_framework.contracts.lifecycle import RunInfo, StepInfo
from rlaif_framework.contracts.panels import Panel
from rlaif_framework.plugins.command import Command
from rlaif_framework.plugins.component import Component

PROJECT = "rlaif"

# Each docstring states the version that added the hook. pluggy passes only the parameters that a plugin's function has.

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Decorator that marks a function as the implementation of the hook of its name."""


@hookspec
def rlaif_tasks() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer tasks: data and annotator prompts. Targets satisfy `Task`. Added in 0.1."""


@hookspec
def rlaif_backends() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer backends: language models that label and generate. Targets satisfy `Backend`. Added in 0.1."""


@hookspec
def rlaif_prompt_strategies() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer prompt strategies: ways to ask an LLM for a preference. Targets satisfy `PromptStrategy`. Added in 0.1."""


@hookspec
def rlaif_labelers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer labelers, which label comparisons with preferences. Targets satisfy `Labeler`. Added in 0.1."""


@hookspec
def rlaif_reward_models() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer reward models. Targets satisfy `RewardModel`. Added in 0.1."""


@hookspec
def rlaif_algorithms() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer algorithms that improve a policy. Targets satisfy `Algorithm`. Added in 0.1."""


@hookspec
def rlaif_metrics() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer metrics of responses. Targets satisfy `Metric`. Added in 0.1."""


@hookspec
def rlaif_trackers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer trackers, which send metrics and results of a run elsewhere. Targets satisfy `Tracker`. Added in 0.1."""


@hookspec
def rlaif_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Offer subcommands of `rlaif`. Targets are functions or `typer.Typer` objects. Added in 0.1."""


@hookspec
def rlaif_report_panels(run: RunInfo) -> Iterable[Panel]:  # type: ignore[empty-body]
    """Add sections to `report.html`. Called when all artefacts of `run` are complete. Added in 0.1."""


@hookspec
def rlaif_run_started(run: RunInfo) -> None:
    """Called once, before the first stage. Added in 0.1."""


@hookspec
def rlaif_stage_started(run: RunInfo, step: StepInfo, resumed_at: int) -> None:
    """Called before a stage runs; `resumed_at` is the training step it resumes from, 0 for a fresh start. Not called
    for a stage whose artefact is reused. Added in 0.1."""


@hookspec
def rlaif_step_logged(run: RunInfo, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
    """Called for each step of metrics that a stage logs; `number` starts at 1. Added in 0.1."""


@hookspec
def rlaif_stage_finished(run: RunInfo, step: StepInfo, cached: bool) -> None:
    """Called when a stage's artefact, new or reused, is complete in `run.folder / step.name`. Added in 0.1."""


@hookspec
def rlaif_run_finished(run: RunInfo, error: BaseException | None) -> None:
    """Called once at the end; `error` is the exception that stopped the run, or None. Added in 0.1."""


SLOT_HOOKS = {
    "task": "rlaif_tasks",
    "backend": "rlaif_backends",
    "strategy": "rlaif_prompt_strategies",
    "labeler": "rlaif_labelers",
    "reward": "rlaif_reward_models",
    "algorithm": "rlaif_algorithms",
    "metric": "rlaif_metrics",
    "tracker": "rlaif_trackers",
}
"""The hook that offers the components of each slot."""
