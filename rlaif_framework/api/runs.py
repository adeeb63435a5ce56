"""Run a spec from Python, by the engine of `rlaif run`, and use what a run made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif_framework.api.finished import SFT, FinishedRun
from rlaif_framework.api.labelers import LoadedLabeler, load_run_labeler
from rlaif_framework.api.policies import LoadedPolicy, load_run_policy
from rlaif_framework.api.rewards import LoadedReward, load_run_reward
from rlaif_framework.api.session import create_progress, load_plugins, quiet_libraries
from rlaif_framework.api.settings import check_keywords, to_overrides
from rlaif_framework.files import user_path
from rlaif_framework.metrics.evaluation import Evaluation, MeasuredArm
from rlaif_framework.pipeline.engine import run_spec
from rlaif_framework.pipeline.run_folder import default_store
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.records.preferences import Prompt, Split
from rlaif_framework.report.run_report import RunReport
from rlaif_framework.spec.loading import resolve_spec
from rlaif_framework.spec.model import Arm, Spec
from rlaif_framework.store import Store


@dataclass(frozen=True)
class ArmResult:
    """What a run made for an arm."""

    name: str
    settings: Arm
    measured: MeasuredArm | None
    """Its reward and its training curve in the evaluation; None without an evaluation."""
    policy_path: Path | None
    """The policy, a folder that transformers loads; None for an arm without an algorithm."""
    reward_path: Path | None
    """The folder of the reward; None for an arm without one."""
    labels_path: Path | None
    """The folder of the labels; None for an arm without feedback."""


class RunResult:
    """A finished run. A notebook shows its findings."""

    def __init__(self, run: FinishedRun) -> None:
        self._run = run

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.folder

    @property
    def spec(self) -> Spec:
        """The spec, with all defaults."""
        return self._run.spec

    @cached_property
    def report(self) -> RunReport | None:
        """The findings and measurements; None for a spec without `evaluate`."""
        return None if self.spec.evaluate is None else RunReport.read(self.folder)

    @property
    def report_path(self) -> Path | None:
        """The report as an HTML page; None for a spec without `evaluate`."""
        return None if self.spec.evaluate is None else self.folder / "report.html"

    @property
    def evaluation(self) -> Evaluation | None:
        """The measurements of labelers, rewards and policies; None for a spec without `evaluate`."""
        return None if self.report is None else self.report.evaluation

    @property
    def arms(self) -> Mapping[str, ArmResult]:
        """The arms by name."""
        measured = {} if self.evaluation is None else self.evaluation.arms
        return {
            name: ArmResult(
                name=name,
                settings=arm,
                measured=measured.get(name),
                policy_path=None if arm.algorithm is None else self.folder / name / "policy",
                reward_path=None if arm.reward is None else self.folder / name / "reward",
                labels_path=None if arm.feedback is None else self.folder / name / "labels",
            )
            for name, arm in self.spec.arms.items()
        }

    def policy_path(self, arm: str | None = None) -> Path:
        """Return the folder of an arm's policy, which transformers loads.

        Args:
            arm: Name of the arm, or `sft` for the baseline [default: the only arm].
        """
        name = self._run.choose_arm(arm, baseline=True)
        return self._run.find(name if name == SFT else f"{name}/policy")

    def reward_path(self, arm: str | None = None) -> Path:
        """Return the folder of an arm's reward.

        Args:
            arm: Name of the arm [default: the only one].
        """
        return self._run.find(f"{self._run.choose_arm(arm)}/reward")

    def policy(self, arm: str | None = None) -> LoadedPolicy:
        """Load the policy of an arm, to generate responses.

        Args:
            arm: Name of the arm, or `sft` for the baseline [default: the only arm].
        """
        return load_run_policy(self._run, arm)

    def reward(self, arm: str | None = None) -> LoadedReward:
        """Load the reward of an arm, to score responses.

        Args:
            arm: Name of the arm [default: the only one].
        """
        return load_run_reward(self._run, arm)

    def labeler(self, name: str | None = None) -> LoadedLabeler:
        """Load a labeler, to compare responses.

        Args:
            name: Name of the arm, `judge`, or a name in `evaluate.judges` or `evaluate.labelers` [default: the only
                arm].
        """
        return load_run_labeler(self._run, name)

    def prompts(self, split: Split = "test") -> Sequence[Prompt]:
        """Return the prompts of the task, in the form in which policies and rewards take them."""
        return self._run.create_context().task.prompts(split)

    def _repr_html_(self) -> str | None:
        return None if self.report is None else self.report._repr_html_()

    def __repr__(self) -> str:
        lines = [] if self.report is None else self.report.describe()
        return "\n".join([f"run {self.spec.name} in {self.folder}", *lines])


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
) -> RunResult:
    """Run a spec: labels, reward model, improved policy, and a report.

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
        overrides: Settings of the spec to replace, such as `seed=1`.

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
    spec: Spec,
    out: Path | None,
    store: Path | None,
    manager: PluginManager,
    progress: Progress,
    show: Callable[[Path], str] = str,
) -> RunResult:
    """Run a spec, and print its findings and the path of its report, as `show` writes it."""
    finished = run_spec(spec, out, Store(store or default_store()), manager, progress)
    result = RunResult(FinishedRun(finished.folder, finished.spec, manager))
    if finished.context.accelerator.is_main_process and result.report is not None:
        for line in result.report.describe():
            progress.print(line)
        progress.print(f"report: {show(finished.folder / 'report.html')}")
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
