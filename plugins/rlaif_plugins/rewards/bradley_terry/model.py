"""Train and use a Bradley-Terry reward model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlaif_framework import Context, LabelledComparison, LoraSettings, Prompt, Stage, TrainingError, Turn
from rlaif_framework.models import (
    Group,
    ModelSource,
    ScoreModel,
    checkpoint_gradients,
    choose_rows,
    encode_prompt,
    encode_response,
    find_model,
    pack_groups,
    split_by_tokens,
)
from rlaif_framework.training import (
    MetricAverager,
    PromptPairs,
    accumulate,
    average_total,
    clamp,
    count_batch_prompts,
    draw_batch,
    group_by_prompt,
    harden_labels,
    index_pairs,
    local_shard,
    make_optimizer,
    soft_label_loss,
    soften,
    train_steps,
    truncate_prompts,
)
from rlaif_plugins.rewards.bradley_terry import BradleyTerryConfig

REFERENCES = 1024
"""Maximum number of reference responses whose mean score becomes 0."""
LEVEL = "reward_level.json"
"""File with the mean score of the references. It is subtracted from scores, because the head has no bias to change."""


class BradleyTerry:
    """Trains scores r such that softmax(r1, r2) matches the labels."""

    def __init__(self, config: BradleyTerryConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train and save. A step computes each prompt and response once for all its comparisons."""
        config, context, accelerator = self.config, self.context, self.context.accelerator
        model, tokenizer = self._load_trainable(initial)
        units = group_by_prompt([self.shape(label) for label in labels], tokenizer, config.max_response_tokens)
        model.check_lengths([unit.group for unit in units])
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(parameters, config)
        trained, optimizer = accelerator.prepare(model, optimizer)
        trained.train()
        # Batches are of prompts: comparisons of a prompt in several batches of an epoch make a reward model overfit.
        prompts = count_batch_prompts(config.batch_size, len(units), len(labels), accelerator.num_processes)
        steps = max(1, round(config.epochs * len(units) / prompts))

        def step(number: int) -> Iterator[dict[str, float]]:
            batch = [units[i] for i in local_shard(accelerator, draw_batch(stage, len(units), prompts, number))]
            yield self._accumulate_gradients(trained, tokenizer.pad_token_id, batch).means(accelerator)

        train_steps(
            stage,
            {"reward": trained},
            optimizer,
            steps,
            step,
            text="reward model",
            warmup=int(config.warmup * steps),
            schedule=config.schedule,
        )
        if stage.is_main:
            accelerator.unwrap_model(trained).save(tokenizer, stage.folder, context.saved_dtype(self._lora))
            if config.centre:
                self._centre(stage)

    @property
    def _lora(self) -> LoraSettings | None:
        """Settings of the adapters; None to train all weights."""
        return self.context.policy.lora if self.config.lora == "policy" else self.config.lora

    def _load_trainable(self, initial: Path) -> tuple[ScoreModel, PreTrainedTokenizerBase]:
        """Load the initial model with its adapters, and its tokenizer."""
        config, context = self.config, self.context
        start = self._find_start(initial)
        tokenizer = context.load_policy_tokenizer(start)
        model = ScoreModel.load(
            start, tokenizer, context.dtype, context.device, self._lora, train=True, head=config.head
        )
        if context.policy.gradient_checkpointing:
            checkpoint_gradients(model)
        return model, tokenizer

    def _accumulate_gradients(self, model: nn.Module, pad_id: int, batch: Sequence[PromptPairs]) -> MetricAverager:
        """Accumulate the gradients of the loss on a batch, and return its metrics."""
        context, averager = self.context, MetricAverager()
        weight = sum(pair.weight for unit in batch for pair in unit.pairs)
        # 1 if all weights are 0, so that the loss is 0 instead of NaN.
        total = average_total(context.accelerator, weight) or 1.0
        parts = split_by_tokens([unit.group.length for unit in batch], context.policy.train_tokens)
        for part in accumulate(context.accelerator, [model], parts):
            chosen = [batch[i] for i in part]
            rows = choose_rows([unit.group for unit in chosen])
            packed = pack_groups(rows, pad_id, context.device)
            with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
                rewards = model(packed, packed.ends[:, 0], packed.ends[:, 1])  # (responses,)
            pairs = index_pairs(chosen, context.device)
            margins = rewards[pairs.first] - rewards[pairs.second]  # (pairs,)
            losses = self.loss(margins, pairs.labels) * pairs.weights
            context.accelerator.backward(losses.sum() / total)
            # The counts of all microbatches and processes add up to the divisor of the loss.
            averager.add("loss", losses, total * len(chosen) / len(batch))
            decided = pairs.labels != 0.5
            averager.add("accuracy", ((margins.detach() > 0) == (pairs.labels > 0.5))[decided].float())
            averager.add("margin", (margins * torch.sign(pairs.labels - 0.5))[decided])
        return averager

    def shape(self, label: LabelledComparison) -> LabelledComparison:
        """Apply the label settings to a label: temperature, bounds and weight."""
        config, first = self.config, label.probabilities[0]
        first = clamp(soften(first, config.label_temperature), config.label_clamp)
        weight = label.weight
        if config.weights == "certainty":
            weight *= abs(2 * first - 1)
        elif config.weights == "confidence" and label.comparison.confidence is not None:
            weight *= label.comparison.confidence
        return replace(label, probabilities=(first, 1 - first), weight=weight)

    def loss(self, margins: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of each comparison, (pairs,), from shaped labels."""
        targets = harden_labels(labels) if self.config.labels == "hard" else labels
        # The margin is that of the label before hardening, which makes all labels certain.
        return soft_label_loss(margins - self.config.margin * (2 * labels - 1), targets)

    def load(self, folder: Path) -> BradleyTerryReward:
        """Load a saved reward model."""
        return BradleyTerryReward(folder, self.config, self.context)

    def _find_start(self, initial: Path) -> ModelSource:
        if self.config.model == "sft":
            return self.context.find_trained(initial)
        if self.config.model == "base":
            return self.context.policy_source
        return find_model(self.config.model, trust_remote_code=self.config.trust_remote_code)

    def _centre(self, stage: Stage) -> None:
        """Save the mean score of the references of training prompts.

        Raises:
            TrainingError: No training prompt has a reference.
        """
        prompts = [prompt for prompt in self.context.task.prompts("train") if prompt.reference]
        if not prompts:
            raise TrainingError("centre: the task's training prompts have no reference responses; remove 'centre'")
        prompts = random.Random(stage.seed("references")).sample(prompts, min(REFERENCES, len(prompts)))
        source = self.context.find_trained(stage.folder, self.config.trust_remote_code)
        short, _ = truncate_prompts(self.context, prompts, self.context.load_policy_tokenizer(source))
        (stage.folder / LEVEL).unlink(
            missing_ok=True
        )  # an interrupted run may have left one, which `load` would subtract
        scores = self.load(stage.folder).score(short, [prompt.reference or "" for prompt in short])
        level = sum(scores) / len(scores)
        (stage.folder / LEVEL).write_text(json.dumps({"level": level, "references": len(scores)}), encoding="utf-8")
        stage.facts["reward_level"] = level


class BradleyTerryReward:
    """Scores responses at their EOS token."""

    def __init__(self, folder: Path, config: BradleyTerryConfig, context: Context) -> None:
        source = context.find_trained(folder, config.trust_remote_code)
        self.tokenizer = context.load_policy_tokenizer(source)
        self.config, self.context = config, context
        self.model = ScoreModel.load(source, self.tokenizer, context.dtype, context.device)
        self.model.requires_grad_(False)
        note = folder / LEVEL
        self.level: float = json.loads(note.read_text(encoding="utf-8"))["level"] if note.exists() else 0.0

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses; those to the same prompt share its computation."""
        by_prompt: dict[tuple[Turn, ...], list[int]] = {}  # indices of the responses to each prompt
        for index, prompt in enumerate(prompts):
            by_prompt.setdefault(prompt.conversation, []).append(index)
        longest = self.config.max_response_tokens
        groups = [
            Group(
                encode_prompt(self.tokenizer, prompts[places[0]]),
                [encode_response(self.tokenizer, responses[i], longest) for i in places],
            )
            for places in by_prompt.values()
        ]
        pad = self.tokenizer.pad_token_id
        found = self.model.score_groups(groups, pad, self.context.batch_tokens, self.context.dtype)
        scores = dict(zip(chain.from_iterable(by_prompt.values()), found, strict=True))
        return [scores[i] - self.level for i in range(len(responses))]
