"""Fine-tune a causal language model on responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients
from rlaif_framework.models.chat import encode_prompt, encode_response
from rlaif_framework.models.loading import load_model
from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.packing import Group, pack_groups, split_by_tokens
from rlaif_framework.models.positions import check_length
from rlaif_framework.models.source import ModelSource
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.spec.model import SftConfig
from rlaif_framework.training.averages import MetricAverager, average_total
from rlaif_framework.training.loop import accumulate, draw_batch, local_shard, make_optimizer, train_steps
from rlaif_framework.training.policies import save_policy


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A model's response to imitate."""

    prompt: Prompt
    response: str
    """The response after `Task.clean`."""
    finished: bool
    """True if the response has its end token, False if it was cut off at the length limit."""
    facts: dict[str, float] = field(default_factory=dict)
    """Further columns of its row on disk, such as its reward."""


def imitate(
    context: Context,
    stage: Stage,
    source: Path | ModelSource,
    demonstrations: Sequence[Demonstration],
    config: SftConfig,
    file: str,
) -> None:
    """Fine-tune a model on another model's responses, or on its own best ones.

    Empty responses are dropped. The others are written to a file, and counted in the stage's facts.

    Args:
        context: Settings of the policy, precision and device.
        stage: Stage that trains.
        source: Model to start from.
        demonstrations: Responses, at least one of them not empty.
        config: Settings of the fine-tuning.
        file: File name of the responses in the stage's folder.
    """
    # The policy would learn from empty responses to end at once.
    filled = [d for d in demonstrations if d.response]
    used = filled[: config.limit]
    stage.facts.update(
        demonstrations=len(used),
        empty=len(demonstrations) - len(filled),
        unfinished=sum(not d.finished for d in used),
    )
    if stage.is_main:
        rows = ({"prompt": d.prompt.id, "response": d.response, "finished": d.finished, **d.facts} for d in used)
        write_rows(stage.folder / file, rows)
    fine_tune(context, stage, source, [(d.prompt, d.response) for d in used], config, [d.finished for d in used])


def fine_tune(
    context: Context,
    stage: Stage,
    source: Path | ModelSource,
    demonstrations: Sequence[tuple[Prompt, str]],
    config: SftConfig,
    finished: Sequence[bool] | None = None,
) -> None:
    """Fine-tune a model on responses and save it into the stage's folder.

    The loss is the mean negative log-likelihood of the target tokens, the end token included.

    Args:
        context: Settings of the policy, precision and device.
        stage: Stage that trains: folders, log, checkpoints and seeds.
        source: Model to start from.
        demonstrations: Prompts, within the length limit, and their responses.
        config: Settings of the fine-tuning.
        finished: False for a response that was cut off, whose end token is then not learned; default: all True.
    """
    accelerator = context.accelerator
    tokenizer = context.load_policy_tokenizer(source)
    complete = finished or [True] * len(demonstrations)
    groups = [
        _encode(tokenizer, prompt, response, ends, config)
        for (prompt, response), ends in zip(demonstrations, complete, strict=True)
    ]
    trained = _load_trainable(context, source)
    longest = max(group.length for group in groups)
    advice = "lower policy.max_prompt_tokens, or set max_response_tokens"
    check_length(cast(Any, trained).config, longest, "a prompt with its demonstration", advice)
    optimizer = make_optimizer([p for p in trained.parameters() if p.requires_grad], config)
    trained, optimizer = accelerator.prepare(trained, optimizer)
    trained.train()
    steps = max(1, round(config.epochs * len(groups) / config.batch_size))

    def step(number: int) -> Iterator[dict[str, float]]:
        batch = local_shard(accelerator, draw_batch(stage, len(groups), config.batch_size, number))
        yield _accumulate_gradients(context, trained, tokenizer.pad_token_id, [groups[i] for i in batch])

    train_steps(
        stage,
        {"policy": trained},
        optimizer,
        steps,
        step,
        text=stage.name,
        warmup=int(config.warmup * steps),
        schedule=config.schedule,
    )
    if stage.is_main:
        save_policy(context, accelerator.unwrap_model(trained), tokenizer, stage.folder)


def _accumulate_gradients(context: Context, model: nn.Module, pad_id: int, batch: Sequence[Group]) -> dict[str, float]:
    """Accumulate the gradients of the loss on this process's part of a batch, and return the loss on the batch."""
    # Target tokens of the whole batch: the loss does not depend on the division into microbatches and processes.
    tokens = average_total(context.accelerator, sum(len(group.responses[0]) for group in batch))
    averager = MetricAverager()
    parts = split_by_tokens([group.length for group in batch], context.policy.train_tokens)
    for part in accumulate(context.accelerator, [model], parts):
        packed = pack_groups([batch[i] for i in part], pad_id, context.device)
        with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
            losses = -response_logprobs(model, packed)  # (tokens,)
        context.accelerator.backward(losses.sum() / tokens)
        averager.add("loss", losses)
    return averager.means(context.accelerator)


def _load_trainable(context: Context, source: Path | ModelSource) -> nn.Module:
    """Load a causal LM with the policy's adapters, or with all weights to be trained."""
    policy = context.policy
    model = load_model(context.find_trained(source), "causal", context.weights_dtype, context.device)
    trained = model if policy.lora is None else add_lora(model, policy.lora, "CAUSAL_LM")
    if policy.gradient_checkpointing:
        checkpoint_gradients(trained)
    return trained


def _encode(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, finished: bool, config: SftConfig
) -> Group:
    """Encode a demonstration as a group; the loss is computed on its response only, which may begin with the prompt."""
    before = encode_prompt(tokenizer, prompt)
    # The policy must not learn to end at the length limit.
    after = encode_response(tokenizer, response, config.max_response_tokens, finished)
    context = len(before) if config.loss == "response" else 1  # no token predicts the first one
    return Group(before[:context], [before[context:] + after])
