"""Every hook a plugin can implement, on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from rlaif_framework.contracts.lifecycle import RunInfo, StepInfo
from rlaif_framework.plugins.component import Component

PROJECT = "rlaif"


hookspec = pluggy.HookspecMarker(PROJECT)


hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the hook it is named after."""


@hookspec
def rlaif_tasks() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer tasks: data and words. Targets satisfy `Task`. Added in 0.1."""


@hookspec
def rlaif_backends() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer backends: language models that generate and score. Targets satisfy `Backend`. Added in 0.1."""


@hookspec
def rlaif_prompt_strategies() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer prompt strategies: how a labeler asks. Targets satisfy `PromptStrategy`. Added in 0.1."""


@hookspec
def rlaif_labelers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer labelers: comparisons in, preferences out. Targets satisfy `Labeler`. Added in 0.1."""


@hookspec
def rlaif_reward_models() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer reward models. Targets satisfy `RewardModel`. Added in 0.1."""


@hookspec
def rlaif_algorithms() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer algorithms: improve a policy against a reward. Targets satisfy `Algorithm`. Added in 0.1."""


@hookspec
def rlaif_run_started(run: RunInfo) -> None:
    """Called once, before the first stage. Added in 0.1."""


@hookspec
def rlaif_stage_started(run: RunInfo, step: StepInfo, resumed_at: int) -> None:
    """Called before a stage does its work; `resumed_at` is the training step it continues from (0: from scratch).
    Not called for a stage whose artefact is reused. Added in 0.1."""


@hookspec
def rlaif_step_logged(run: RunInfo, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
    """Called for each line of metrics a stage logs, `number` counting from 1. Added in 0.1."""


@hookspec
def rlaif_stage_finished(run: RunInfo, step: StepInfo, cached: bool) -> None:
    """Called when a stage's artefact is complete, new or reused; it is in `run.folder / step.name`. Added in 0.1."""


@hookspec
def rlaif_run_finished(run: RunInfo, error: BaseException | None) -> None:
    """Called once at the end; `error` is what stopped the run, None if it is complete. Added in 0.1."""


SLOT_HOOKS = {
    "task": "rlaif_tasks",
    "backend": "rlaif_backends",
    "strategy": "rlaif_prompt_strategies",
    "labeler": "rlaif_labelers",
    "reward": "rlaif_reward_models",
    "algorithm": "rlaif_algorithms",
}
"""Which hook fills which slot of a spec."""
