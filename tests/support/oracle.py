"""A labeler and a reward with a known taste, and a stage to build components with."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif_framework import (
    Comparison,
    Component,
    Context,
    Evidence,
    LabelerConfig,
    Preference,
    RewardConfig,
    Stage,
    hookimpl,
)
from rlaif_framework.progress import Progress


class TasteConfig(LabelerConfig):
    """Prefers responses that hold a given letter more often."""

    kind: Literal["test/taste"] = "test/taste"
    letter: str = "e"


def taste(text: str, letter: str) -> float:
    """Share of a letter in a text: what the oracle likes."""
    return text.lower().count(letter) / max(1, len(text))


class TasteLabeler:
    def __init__(self, config: TasteConfig, context: Context) -> None:
        self.letter = config.letter

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        for c in comparisons:
            a, b = (taste(text, self.letter) for text in c.responses)
            first = 0.5 if a == b else float(a > b)
            yield Preference(c.id, (first, 1 - first), Evidence("test/taste", scores=(a, b)))


class TasteRewardConfig(RewardConfig):
    """The oracle's taste as a reward, with no training."""

    kind: Literal["test/taste"] = "test/taste"
    letter: str = "e"
    scale: float = 10.0


class TasteReward:
    def __init__(self, config: TasteRewardConfig, context: Context) -> None:
        self.config = config

    def fit(self, labels: Any, initial: Any, stage: Any) -> None:
        (stage.folder / "nothing.txt").write_text("")

    def load(self, folder: Path) -> TasteReward:
        return self

    def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [self.config.scale * taste(text, self.config.letter) for text in responses]


def oracle_module() -> types.ModuleType:
    """The oracle as a plugin module."""
    module = types.ModuleType("rlaif_oracle")

    @hookimpl
    def rlaif_labelers() -> Sequence[Component]:
        return [Component("test/taste", TasteConfig, "support.oracle:TasteLabeler")]

    @hookimpl
    def rlaif_reward_models() -> Sequence[Component]:
        return [Component("test/taste", TasteRewardConfig, "support.oracle:TasteReward")]

    module.rlaif_labelers = rlaif_labelers  # type: ignore[attr-defined]
    module.rlaif_reward_models = rlaif_reward_models  # type: ignore[attr-defined]
    return module


@dataclass
class ComponentStage(Stage):
    """A stage outside a pipeline, together with the context that its component is built with."""

    context: Context = None  # type: ignore[assignment]

    @classmethod
    def create(
        cls, name: str, folder: Path, checkpoint: Path, context: Context, seconds: float = 1e9
    ) -> ComponentStage:
        """Create both folders; the same folders again resume."""
        folder.mkdir(exist_ok=True)
        checkpoint.mkdir(exist_ok=True)
        return cls(name, folder, checkpoint, context.seed, context.accelerator, Progress(), seconds, context=context)
