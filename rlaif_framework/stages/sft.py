"""Supervised fine-tuning: the baseline every arm starts from (RLAIF A.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlaif_framework.errors import DataError
from rlaif_framework.models import add_lora, load_model, load_tokenizer, save_model
from rlaif_framework.packing import Group, pack_groups, split_by_tokens
from rlaif_framework.policy import encode_prompt, encode_response, response_logprobs, shorten_prompts
from rlaif_framework.spec import SftConfig
from rlaif_framework.stage import Stage
from rlaif_framework.training import accumulate, draw_batch, my_share, train_steps
from rlaif_framework.types import Prompt


def train_baseline(stage: Stage, config: SftConfig | None, prompts: Sequence[Prompt]) -> None:
    """Fine-tune the policy's model on reference responses; without a config, save it as it is.

    The loss is the mean negative log-likelihood of response tokens, the end token included; prompts are not trained on.
    """
    context = stage.context
    policy, source = context.policy, context.policy_source
    tokenizer = load_tokenizer(source)
    if config is None:
        save_model(load_model(source, "causal", context.dtype, context.device), tokenizer, stage.folder, context.dtype)
        return
    demonstrations = [p for p in prompts if p.reference][: config.limit]
    if not demonstrations:
        raise DataError(
            "sft: the task's training prompts have no reference responses; set 'sft: null' to start without"
        )
    demonstrations, cut = shorten_prompts(demonstrations, stage.task, tokenizer, policy.max_prompt_tokens)
    stage.facts.update(demonstrations=len(demonstrations), prompts_cut=cut)
    groups = [
        Group(encode_prompt(tokenizer, p.text), [encode_response(tokenizer, p.reference or "")]) for p in demonstrations
    ]

    weights = torch.float32 if policy.lora is None else context.dtype
    model = load_model(source, "causal", weights, context.device)
    trained = model if policy.lora is None else add_lora(model, policy.lora, "CAUSAL_LM")
    accelerator = context.accelerator
    parameters = [p for p in trained.parameters() if p.requires_grad]
    trained, optimizer = accelerator.prepare(trained, torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0))
    trained.train()
    steps = max(1, round(config.epochs * len(groups) / config.batch_size))

    def step(number: int) -> dict[str, float]:
        batch = my_share(accelerator, draw_batch(stage, len(groups), config.batch_size, number))
        tokens = sum(len(groups[i].responses[0]) for i in batch)
        total = 0.0
        parts = split_by_tokens([groups[i].length for i in batch], policy.train_tokens)
        for part in accumulate(accelerator, [trained], parts):
            packed = pack_groups([groups[batch[i]] for i in part], tokenizer.pad_token_id, context.device)
            with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
                loss = -response_logprobs(trained, packed).sum() / tokens
            accelerator.backward(loss)
            total += float(loss.detach())
        return {"loss": total}

    train_steps(stage, {"policy": trained}, optimizer, steps, step, text="sft", warmup=steps // 20)
    if stage.is_main:
        save_model(accelerator.unwrap_model(trained), tokenizer, stage.folder, context.dtype)
