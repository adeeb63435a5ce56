"""Train and use a Bradley-Terry reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rlaif_framework import (
    Context,
    Group,
    LabelledComparison,
    Prompt,
    ScoreModel,
    Stage,
    accumulate,
    draw_batch,
    encode_prompt,
    encode_response,
    load_tokenizer,
    my_share,
    pack_groups,
    soft_label_loss,
    split_by_tokens,
    train_steps,
)
from rlaif_plugins.bradley_terry import BradleyTerryConfig


class BradleyTerry:
    """Fits r so that softmax(r1, r2) matches the labels; text in, scores out."""

    def __init__(self, config: BradleyTerryConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train and save; both responses of a comparison share one computation of their prompt.

        The head starts at zero: no opinion, a loss of ln 2 against undecided labels.
        """
        config, context, accelerator = self.config, self.context, self.context.accelerator
        start = config.model or initial
        tokenizer = load_tokenizer(start)
        lora = context.policy.lora
        model = ScoreModel.load(start, tokenizer, context.dtype, context.device, lora, train=True)
        groups = [
            Group(
                encode_prompt(tokenizer, label.comparison.prompt.text),
                [encode_response(tokenizer, text) for text in label.comparison.responses],
            )
            for label in labels
        ]
        targets = torch.tensor([label.probabilities[0] for label in labels], device=context.device)
        parameters = [p for p in model.parameters() if p.requires_grad]
        trained, optimizer = accelerator.prepare(model, torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0))
        trained.train()
        steps = max(1, round(config.epochs * len(groups) / config.batch_size))

        def step(number: int) -> dict[str, float]:
            batch = my_share(accelerator, draw_batch(stage, len(groups), config.batch_size, number))
            total, right = 0.0, 0.0
            parts = split_by_tokens([groups[i].length for i in batch], context.policy.train_tokens)
            for part in accumulate(accelerator, [trained], parts):
                pairs = [batch[i] for i in part]
                packed = pack_groups([groups[i] for i in pairs], tokenizer.pad_token_id, context.device)
                with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
                    rewards = trained(packed, packed.ends[:, 0], packed.ends[:, 1]).view(-1, 2)  # (pairs, 2)
                margins = rewards[:, 0] - rewards[:, 1]
                loss = soft_label_loss(margins, targets[pairs]).sum() / len(batch)
                accelerator.backward(loss)
                total += float(loss.detach())
                right += float(((margins.detach() > 0) == (targets[pairs] > 0.5)).sum())
            return {"loss": total, "accuracy": right / len(batch)}

        train_steps(stage, {"reward": trained}, optimizer, steps, step, text="reward model", warmup=steps // 10)
        if stage.is_main:
            accelerator.unwrap_model(trained).save(tokenizer, stage.folder, context.dtype)

    def load(self, folder: Path) -> BradleyTerryReward:
        """Open a saved reward model."""
        return BradleyTerryReward(folder, self.context)


class BradleyTerryReward:
    """Scores responses at their end token."""

    def __init__(self, folder: Path, context: Context) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.context = context
        self.model = ScoreModel.load(folder, self.tokenizer, context.dtype, context.device)
        self.model.requires_grad_(False)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses; consecutive responses to one prompt share its computation."""
        groups: list[Group] = []
        last: Prompt | None = None
        for prompt, response in zip(prompts, responses, strict=True):
            ids = encode_response(self.tokenizer, response)
            if prompt is last:
                groups[-1].responses.append(ids)
            else:
                groups.append(Group(encode_prompt(self.tokenizer, prompt.text), [ids]))
            last = prompt
        pad = self.tokenizer.pad_token_id
        return self.model.score_groups(groups, pad, self.context.policy.batch_tokens, self.context.dtype)
