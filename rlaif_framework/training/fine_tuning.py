"""Train a causal language model on given responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients, save_model
from rlaif_framework.models.loading import load_model, load_tokenizer
from rlaif_framework.models.logprobs import response_logprobs
from rlaif_framework.models.packing import Group, pack_groups, split_by_tokens
from rlaif_framework.models.sampling import encode_prompt, encode_response
from rlaif_framework.models.source import ModelSource
from rlaif_framework.spec.model import SftConfig
from rlaif_framework.training.loop import accumulate, draw_batch, local_shard, make_optimizer, train_steps


def fine_tune(
    context: Context,
    stage: Stage,
    source: Path | ModelSource,
    demonstrations: Sequence[tuple[str, str]],
    config: SftConfig,
    finished: Sequence[bool] | None = None,
) -> None:
    """Fine-tune a model on responses and save it into the stage's folder.

    The loss is the mean negative log-likelihood of the tokens that are learned, the end token included.

    Args:
        context: Settings of the policy, precision and device.
        stage: Where to write, log, checkpoint and draw seeds.
        source: The model to start from.
        demonstrations: Prompts, short enough, and their responses.
        config: Passes, learning rate and batch size.
        finished: Whether each response ends where its text does, so that the end token is learned; default: all do.
    """
    policy = context.policy
    tokenizer = load_tokenizer(source)
    groups = []
    for (prompt, response), ended in zip(demonstrations, finished or [True] * len(demonstrations), strict=True):
        before = encode_prompt(tokenizer, prompt)
        after = encode_response(tokenizer, response, config.max_response_tokens)
        if not ended and after[-1] == tokenizer.eos_token_id:
            del after[-1]
        seen = len(before) if config.loss == "response" else 1  # no token predicts the first
        groups.append(Group(before[:seen], [before[seen:] + after]))
    weights = torch.float32 if policy.lora is None else context.dtype
    model = load_model(source, "causal", weights, context.device)
    trained = model if policy.lora is None else add_lora(model, policy.lora, "CAUSAL_LM")
    if policy.gradient_checkpointing:
        checkpoint_gradients(trained)
    accelerator = context.accelerator
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, config.lr, config.adam_eps, config.optimizer)
    trained, optimizer = accelerator.prepare(trained, optimizer)
    trained.train()
    steps = max(1, round(config.epochs * len(groups) / config.batch_size))

    def step(number: int) -> Iterator[dict[str, float]]:
        batch = local_shard(accelerator, draw_batch(stage, len(groups), config.batch_size, number))
        tokens = sum(len(groups[i].responses[0]) for i in batch)
        total = 0.0
        parts = split_by_tokens([groups[i].length for i in batch], policy.train_tokens)
        for part in accumulate(accelerator, [trained], parts):
            packed = pack_groups([groups[batch[i]] for i in part], tokenizer.pad_token_id, context.device)
            with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
                loss = -response_logprobs(trained, packed).sum() / tokens
            accelerator.backward(loss)
            total += float(loss.detach())
        yield {"loss": total}

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
        save_model(accelerator.unwrap_model(trained), tokenizer, stage.folder, context.dtype)
