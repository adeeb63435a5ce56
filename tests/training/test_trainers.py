"""A trainer of transformers within a stage: its log, its checkpoints, and a resumed run that equals a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from rlaif_framework.contracts import read_metrics
from rlaif_framework.contracts.stage import resume_step
from rlaif_framework.models import load_model
from rlaif_framework.training import run_trainer, save_policy, trainer_arguments
from support.oracle import ComponentStage
from support.world import World

ROWS = [{"input_ids": [3 + n, 40, 41 + n, 2], "labels": [3 + n, 40, 41 + n, 2]} for n in range(6)]


class Killed(BaseException):
    """Stands for a kill."""


def train(world: World, stage: ComponentStage) -> None:
    context = stage.context
    model = load_model(world.model, "causal", torch.float32, context.device)
    tokenizer = context.load_policy_tokenizer(world.model)
    arguments = TrainingArguments(
        **trainer_arguments(context, stage), max_steps=4, per_device_train_batch_size=2, learning_rate=1e-2
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=ROWS, processing_class=tokenizer)
    save_policy(context, run_trainer(trainer, stage), tokenizer, stage.folder)


def test_each_step_is_logged_once_and_without_its_time(world: World) -> None:
    stage = world.stage("run")
    train(world, stage)
    rows = read_metrics(stage.folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert not [name for row in rows for name in row if name.endswith(("time", "runtime"))]


def test_a_resumed_run_equals_a_whole_one(world: World) -> None:
    whole, killed = world.stage("whole"), world.stage("killed", seconds=0)
    train(world, whole)

    def report(number: int, metrics: Mapping[str, float]) -> None:
        if number == 3:
            raise Killed

    with pytest.raises(Killed):
        train(world, replace(killed, report_step=report))
    assert resume_step(killed.checkpoint) == 2, "the last complete checkpoint is the one of the second step"
    # Checkpoints that were not completed are never read.
    (killed.checkpoint / "checkpoint-3").mkdir(exist_ok=True)
    train(world, killed)
    assert read_metrics(killed.folder) == read_metrics(whole.folder)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole.folder, killed.folder)]
    assert weights[0] == weights[1]


def test_only_the_last_checkpoint_is_kept(world: World) -> None:
    stage = world.stage("run", seconds=0)
    train(world, stage)
    assert [path.name for path in stage.checkpoint.glob("*-*")] == ["step-3"]


def test_arguments_are_those_of_the_run(world: World) -> None:
    stage = world.stage("run", gradient_checkpointing=True)
    arguments: dict[str, Any] = trainer_arguments(stage.context, stage)
    assert Path(arguments["output_dir"]) == stage.checkpoint
    assert arguments["gradient_checkpointing"]
    assert (arguments["bf16"], arguments["use_cpu"]) == (False, stage.context.device.type == "cpu")
    assert arguments["seed"] == trainer_arguments(stage.context, stage)["seed"] < 2**32
    other = replace(stage, name="other")
    assert arguments["seed"] != trainer_arguments(stage.context, other)["seed"]
