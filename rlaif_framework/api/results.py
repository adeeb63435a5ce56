"""What a finished run made, to be used from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from rlaif_framework.api.finished import SFT, FinishedRun
from rlaif_framework.api.labelers import LoadedLabeler, load_run_labeler
from rlaif_framework.api.policies import LoadedPolicy, load_run_policy
from rlaif_framework.api.rewards import LoadedReward, load_run_reward
from rlaif_framework.errors import DataError, SpecError, suggest
from rlaif_framework.metrics.evaluation import Evaluation, MeasuredArm
from rlaif_framework.records.preferences import Prompt, Split
from rlaif_framework.report.run_report import RunReport
from rlaif_framework.spec.model import Arm, Spec


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
        """Return the prompts of the task, in the form in which policies and rewards take them.

        Args:
            split: `train`, `validation` or `test`.
        """
        if split not in (known := get_args(Split)):
            raise SpecError(f"no split named '{split}'; {suggest(split, known)}")
        return self._run.create_context().task.prompts(split)

    def _repr_html_(self) -> str | None:
        try:
            return None if self.report is None else self.report._repr_html_()
        except DataError:  # not finished: shown by `repr`
            return None

    def __repr__(self) -> str:
        title = f"run {self.spec.name} in {self.folder}"
        try:
            return "\n".join([title, *([] if self.report is None else self.report.describe())])
        except DataError as error:
            return f"{title}\n{error}"
