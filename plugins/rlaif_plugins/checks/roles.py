"""Offer a check as a reward, as a labeler and as a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import create_model

from rlaif_framework import (
    MODEL_FREE,
    Comparison,
    Component,
    ComponentConfig,
    Config,
    Context,
    DataError,
    Evidence,
    LabelerConfig,
    LabelledComparison,
    MetricConfig,
    Preference,
    Prompt,
    Reward,
    RewardConfig,
    Stage,
)


class Check(Config):
    """Base of the settings of a check, which decides whether a response passes."""

    negate: bool = False
    """Pass the responses that would fail, such as those that do not contain a text."""

    def lacks(self, prompt: Prompt) -> str | None:
        """Describe what a prompt lacks for the check, such as `has a prompt without a reference`; None for nothing."""
        return None

    def passes(self, prompt: Prompt, response: str) -> bool:
        """Return True if a response passes, whatever `negate` is. The prompt lacks nothing."""
        raise NotImplementedError

    def grade(self, prompt: Prompt, response: str) -> float | None:
        """Return 1 if a response passes, 0 if it fails, None if the prompt lacks what the check needs."""
        return None if self.lacks(prompt) else float(self.passes(prompt, response) != self.negate)

    def require_grades(self, role: str, kind: str, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Grade the responses to prompts, pairwise.

        Raises:
            DataError: A prompt lacks what the check needs.
        """
        grades = []
        for prompt, text in zip(prompts, responses, strict=True):
            grade = self.grade(prompt, text)
            if grade is None:
                raise DataError(f"{role} '{kind}': '{prompt.id}' {self.lacks(prompt)}")
            grades.append(grade)
        return grades


NO_REFERENCE = "has a prompt without a reference"


class CheckReward(Check, RewardConfig):
    """Base of the config of a check as a reward."""

    @property
    def needs_baseline(self) -> bool:
        """Always False: nothing is trained."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy."""
        return MODEL_FREE

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require what the check needs."""
        return self.lacks(comparison.prompt)


class CheckLabeler(Check, LabelerConfig):
    """Base of the config of a check as a labeler."""

    scores_responses: ClassVar[bool] = True

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require what the check needs."""
        return self.lacks(comparison.prompt)


class CheckMetric(Check, MetricConfig):
    """Base of the config of a check as a metric."""

    name: str | None = None
    """Name of the number in reports; by default that of the check. Two checks of one kind need different names."""

    @property
    def names(self) -> Sequence[str]:
        """The name."""
        return super().names if self.name is None else [self.name]


class PassReward:
    """Scores responses that pass with 1 and others with 0, without training."""

    def __init__(self, config: CheckReward, context: Context) -> None:
        self.config = config

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Write the settings of the check."""
        (stage.folder / "reward.txt").write_text(f"1 for a response that passes: {self.config.title}\n", "utf-8")

    def load(self, folder: Path) -> Reward:
        """Return the reward itself."""
        return self

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Grade responses.

        Raises:
            DataError: A prompt lacks what the check needs.
        """
        return self.config.require_grades("reward", self.config.kind, prompts, responses)


class PassLabeler:
    """Prefers a response that passes to one that fails, with certainty."""

    def __init__(self, config: CheckLabeler, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons; if both responses pass or both fail, it is a tie.

        Raises:
            DataError: A prompt lacks what the check needs.
        """
        for comparison in comparisons:
            a, b = self.score([comparison.prompt] * 2, comparison.responses)
            first = 0.5 + (a - b) / 2
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.kind, scores=(a, b)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Grade responses.

        Raises:
            DataError: A prompt lacks what the check needs.
        """
        return self.config.require_grades("labeler", self.config.kind, prompts, responses)


class PassMetric:
    """Measures whether responses pass."""

    def __init__(self, config: CheckMetric, context: Context) -> None:
        self.config = config

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Grade responses; None if the prompt lacks what the check needs."""
        (name,) = self.config.names
        return {name: [self.config.grade(prompt, text) for prompt, text in zip(prompts, responses, strict=True)]}


Role = Literal["reward", "labeler", "metric"]
ROLES: Mapping[Role, tuple[type[ComponentConfig], str, str]] = {
    "reward": (CheckReward, "PassReward", "Reward a response"),
    "labeler": (CheckLabeler, "PassLabeler", "Prefer the response"),
    "metric": (CheckMetric, "PassMetric", "Count each response"),
}


def offer(kind: str, check: type[Check], role: Role) -> Component:
    """Return the component that a check is in one role.

    Args:
        kind: Name of the component.
        check: The check. Its docstring begins with what a response does that passes, and completes a sentence that
            begins with "Prefer the response", such as "that is valid JSON."
        role: The slot.
    """
    base, target, begin = ROLES[role]
    # One model for each role, because settings of several slots differ; the check itself is written once.
    name: Any = Literal[kind]
    make: Any = create_model  # the pydantic plugin of mypy would not take its result for a config
    config: type[ComponentConfig] = make(
        f"{check.__name__}{role.capitalize()}",
        __base__=(check, base),
        __module__=check.__module__,
        __doc__=f"{begin} {check.__doc__}",
        kind=(name, kind),
    )
    return Component(kind, config, f"{__name__}:{target}")
