"""The evaluation of a run: one typed model, from the measurements to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from rlaif_framework.files import write_atomic
from rlaif_framework.metrics.agreement import LabelerQuality
from rlaif_framework.metrics.calibration import Calibration, LengthBin
from rlaif_framework.metrics.equal_kl import Checkpoint, EqualKl
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.label_examples import LabelExample
from rlaif_framework.metrics.wins import WinRate
from rlaif_framework.spec.model import BASELINES

EVALUATION = "evaluation.json"
"""Name of the file in the artefact."""
KL = ("kl_k1", "kl_k3", "kl")
"""Logged metrics that estimate the KL divergence from the baseline, the preferred one first."""
SAMPLES = "samples.jsonl"
"""Name of the file beside it with all test prompts, their responses and verdicts, for the page of the report."""
Curve = list[dict[str, float]]
"""Logged metrics, one row for each step."""


class Measured(BaseModel):
    """Base of the parts of an evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredLabeler(Measured):
    """A labeler and its measured quality."""

    kind: str
    title: str
    """The kind, with the settings that are not their defaults."""
    quality: LabelerQuality
    calibration: Calibration | None = None
    """Calibration of its labels against gold preferences."""
    uncertain: list[LabelExample] = []
    """Its labels of validation comparisons that are closest to one half."""


class MeasuredReward(Measured):
    """An arm's reward, measured on held-out comparisons and test responses."""

    accuracy_gold: Estimate | None
    """Pairwise accuracy against gold preferences."""
    accuracy_labeler: Estimate | None
    """Pairwise accuracy against the labels of the arm's labeler."""
    calibration: Calibration | None
    """Calibration of sigmoid(r1 - r2) against gold preferences."""
    lengths: list[LengthBin]
    """Accuracy against gold preferences by length difference."""
    sft: Estimate | None
    """Mean reward of the baseline's test responses."""
    policy: Estimate | None
    """Mean reward of the policy's test responses."""
    gain: Estimate | None
    """Mean difference of the two, paired by prompt."""
    loss: Curve
    """The reward model's training metrics."""


class MeasuredArm(Measured):
    """The measurements of an arm."""

    labeler: str | None
    """Name of the arm's labeler among the evaluation's labelers; None for an arm without feedback."""
    reward: MeasuredReward | None
    """None for an arm without a reward."""
    curve: Curve
    """The policy's training metrics."""
    checkpoints: list[Checkpoint] = []
    """The evaluations of `checkpoint_selection`, in the order of steps."""
    rounds: int = 1
    """The number of rounds. With several, the curve and the checkpoints are those of the last one, which starts at the
    policy of the round before: their KL divergences are not from the baseline."""
    selected_step: int | None = None
    """The step whose policy was kept, by `checkpoint_selection` or the hacking alarm; None for the last one."""
    kl_bound: float | None = None
    """The most that the KL divergence from the baseline can be, in nats per response, of an algorithm that knows it and
    logs none, such as `best-of-n`."""

    @property
    def starts_at_baseline(self) -> bool:
        """True if the KL divergences and the win rates of the checkpoints are from and against the baseline."""
        return self.rounds == 1

    def find_kl(self) -> float | None:
        """Return the measured KL divergence of the policy from the baseline, in nats per response; None if unknown.

        That of the checkpoint that was kept, or else the last logged one.
        """
        if not self.starts_at_baseline:
            return None
        rows = self.curve
        if self.selected_step is not None:
            kept = (checkpoint.kl for checkpoint in self.checkpoints if checkpoint.step == self.selected_step)
            if (measured := next(kept, None)) is not None:
                return measured.value
            # The responses of a step were sampled before its update.
            rows = [row for row in rows if row["step"] <= self.selected_step + 1]
        return next((row[name] for name in KL for row in reversed(rows) if name in row), None)


class PairedDifference(Measured):
    """The differences between two policies on the same prompts."""

    first: str
    second: str
    metrics: dict[str, Estimate]
    """Mean difference of each metric, first minus second."""


class SampleResponses(Measured):
    """A test prompt and the responses to it."""

    prompt: str
    reference: str | None
    responses: dict[str, str]
    """The response of each policy, the first one if there are several."""


class Evaluation(Measured):
    """All measurements of a run."""

    judges: dict[str, dict[str, Any]]
    """The settings of `judge` and of the additional judges, by name."""
    labelers: dict[str, MeasuredLabeler]
    """The judges, the arms' labelers and those that were only measured, by name."""
    arms: dict[str, MeasuredArm]
    policies: dict[str, dict[str, Estimate | None]]
    """Means over the test responses: for `sft`, each arm and `reference`, each metric of the task and of
    `evaluate.metrics`. Those of policies include `tokens`, `eos_rate`, `empty_rate` and `repetition_rate`."""
    metrics: list[str] = []
    """Names of the metrics of `evaluate.metrics`."""
    wins: list[WinRate]
    """For each matchup, a win rate by each judge: that of `judge` first."""
    human_labels: int = 0
    """Number of human labels that were given."""
    equal_kl: EqualKl | None = None
    """Win rates of the arms at equal KL, if two or more have checkpoints that the same judge compared."""
    unused_labels: int = 0
    """Number of those that are of no pair of responses that a matchup compared."""
    differences: list[PairedDifference]
    """For each matchup, the differences of the metrics."""
    samples: list[SampleResponses]
    prompts: int
    """Number of test prompts."""
    responses: int
    """Number of responses of each policy to each test prompt."""
    comparisons: int
    """Number of validation comparisons."""
    gold_comparisons: int
    """Number of those with a gold preference that is not a tie."""
    longer_is_better: Estimate | None
    """Share of validation comparisons whose longer response is preferred: the accuracy of always picking it."""
    sft_loss: Curve
    """The baseline's training metrics."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Check that whatever a part of the evaluation names is in another one."""
        trained = [name for name in self.policies if name not in BASELINES]
        labelers = [*self.judges, *(arm.labeler for arm in self.arms.values() if arm.labeler is not None)]
        matchups = [(win.first, win.second) for win in self.wins] + [(x.first, x.second) for x in self.differences]
        policies = [*(name for pair in matchups for name in pair), *(["sft"] if trained else [])]
        for part, known, names in (
            ("labelers", self.labelers.keys(), [*labelers, *(win.judge for win in self.wins)]),
            ("arms", self.arms.keys(), trained),
            ("policies", self.policies.keys(), policies),
        ):
            if missing := [name for name in names if name not in known]:
                raise ValueError(f"{part}: '{missing[0]}' is missing")
        return self

    @property
    def main_judge(self) -> str | None:
        """The judge of the verdict and the charts: `judge`, or else the first of the others; None without judges."""
        return next(iter(self.judges), None)

    def find_win(self, judge: str, first: str, second: str) -> WinRate | None:
        """Return the win rate of the first policy against the second, whichever of the two a matchup names first."""
        for win in self.wins:
            if win.judge == judge and (win.first, win.second) == (first, second):
                return win
            if win.judge == judge and (win.first, win.second) == (second, first):
                return win.flip()
        return None

    def find_difference(self, first: str, second: str) -> dict[str, Estimate]:
        """Return the differences of the metrics, first minus second; empty if no matchup compares the policies."""
        for found in self.differences:
            if (found.first, found.second) == (first, second):
                return found.metrics
            if (found.first, found.second) == (second, first):
                return {name: difference.negate() for name, difference in found.metrics.items()}
        return {}

    def save(self, folder: Path) -> None:
        """Write `evaluation.json`."""
        write_atomic(folder / EVALUATION, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read `evaluation.json`."""
        return cls.model_validate_json((folder / EVALUATION).read_text(encoding="utf-8"))
