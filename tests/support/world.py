"""Run one algorithm by itself on the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import set_seed

from rlaif_framework import (
    Context,
    Guidance,
    PluginManager,
    Prompt,
    Spec,
)
from rlaif_framework.plugins.slots import narrow
from support.oracle import ComponentStage


class LetterReward:
    """+1 for a response that holds the letter, -1 for one that does not: text in, no model."""

    def __init__(self, letter: str = "e") -> None:
        self.letter = letter

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        return [1.0 if self.letter in text else -1.0 for text in responses]


@dataclass
class World:
    """Runs one algorithm by itself on the tiny model."""

    build: Callable[..., Spec]
    manager: PluginManager
    model: Path
    folder: Path
    prompts: list[Prompt] = field(default_factory=lambda: [Prompt("p", "POST: my dog ate it\n\nTL;DR:", "my dog")])

    def stage(self, name: str, lora: bool = False, seconds: float = 1e9, **policy: Any) -> ComponentStage:
        """A stage folder of that name; the same name again resumes."""
        settings = {
            "model": str(self.model),
            "dtype": "fp32",
            "lora": {"rank": 4} if lora else None,
            "max_prompt_tokens": 96,
            "max_new_tokens": 6,
            "chat": "plain",
            **policy,
        }
        context = Context.from_spec(self.build(policy=settings, arms={}, evaluate=None), self.manager)
        folder, checkpoint = self.folder / name, self.folder / f"{name}.checkpoint"
        return ComponentStage.create("improve", folder, checkpoint, context, seconds)

    def train(
        self,
        kind: str,
        stage: ComponentStage,
        reward: Any = None,
        given: Any = (),
        reward_folder: Any = None,
        **settings: Any,
    ) -> Path:
        config = narrow("algorithm", {"kind": kind, **settings}, self.manager)
        algorithm = stage.context.build_algorithm(config)
        set_seed(stage.seed("start") % 2**32)  # as the engine does: new adapters are random
        guidance = Guidance(reward if reward is not None else LetterReward(), reward_folder, given)
        algorithm.improve(self.model, guidance, self.prompts, stage)
        return stage.folder


@pytest.fixture
def world(tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path, tmp_path: Path) -> World:
    return World(tiny_spec, manager, tiny_model, tmp_path)
