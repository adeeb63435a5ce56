"""Respond to the test prompts with a policy."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Responder
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.metrics.response_metrics import measure_sample
from rlaif_framework.pipeline.artefact_files import RESPONSES
from rlaif_framework.pipeline.recipes import RespondRecipe
from rlaif_framework.pipeline.stages.improve import load_reward
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.training.responses import sample_from, truncate_prompts


def respond_to_prompts(stage: Stage, context: Context, recipe: RespondRecipe) -> None:
    """Write `responses.jsonl`: a response to each test prompt, with its metrics."""
    folder = stage.artefact(recipe.policy)
    short, _ = truncate_prompts(context, recipe.prompts, context.load_policy_tokenizer(folder))
    if recipe.responder is not None:
        responder = cast(Responder, context.build_algorithm(recipe.responder))
        guidance = load_reward(stage, context, recipe.reward)
        samples = responder.respond(folder, guidance, short, stage, recipe.temperature)
    else:
        samples = sample_from(
            context, stage, folder, short, temperature=recipe.temperature, seed=stage.seed("responses")
        )
    rows = []
    for prompt, sample in zip(short, samples, strict=True):
        text = context.task.clean(sample.text)
        metrics = {**context.task.measure(prompt, text), **measure_sample(sample, text)}
        rows.append({"prompt": prompt.id, "response": text, "metrics": metrics})
    write_rows(stage.folder / RESPONSES, rows)


def read_responses(folder: Path) -> list[str]:
    """Read a policy's responses to the test prompts, in the order of the prompts."""
    return [row["response"] for _, row in read_rows(folder / RESPONSES)]


def read_response_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of each response, in the order of the prompts."""
    return [row["metrics"] for _, row in read_rows(folder / RESPONSES)]
