"""Train and use a Bradley-Terry reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

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
        """Train and save; a prompt and each of its responses is computed once for all their comparisons in a step.

        The head starts at zero: no opinion, a loss of ln 2 against undecided labels.
        """
        config, context, accelerator = self.config, self.context, self.context.accelerator
        start = config.model or initial
        tokenizer = load_tokenizer(start)
        lora = context.policy.lora
        model = ScoreModel.load(start, tokenizer, context.dtype, context.device, lora, train=True)
        units = gather_by_prompt(labels, tokenizer)
        parameters = [p for p in model.parameters() if p.requires_grad]
        trained, optimizer = accelerator.prepare(model, torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0))
        trained.train()
        steps = max(1, round(config.epochs * len(labels) / config.batch_size))
        # All comparisons of a prompt are drawn together: spread over an epoch they make a reward model overfit.
        prompts = max(1, round(config.batch_size * len(units) / len(labels)))

        def step(number: int) -> dict[str, float]:
            batch = [units[i] for i in my_share(accelerator, draw_batch(stage, len(units), prompts, number))]
            count = sum(len(unit.pairs) for unit in batch)
            total, right = 0.0, 0.0
            parts = split_by_tokens([unit.group.length for unit in batch], context.policy.train_tokens)
            for part in accumulate(accelerator, [trained], parts):
                chosen = [batch[i] for i in part]
                packed = pack_groups([unit.group for unit in chosen], tokenizer.pad_token_id, context.device)
                first, second, targets = index_pairs(chosen, context.device)
                with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
                    rewards = trained(packed, packed.ends[:, 0], packed.ends[:, 1])  # (responses,)
                margins = rewards[first] - rewards[second]  # (pairs,)
                loss = soft_label_loss(margins, targets).sum() / count
                accelerator.backward(loss)
                total += float(loss.detach())
                right += float(((margins.detach() > 0) == (targets > 0.5)).sum())
            return {"loss": total, "accuracy": right / count}

        train_steps(stage, {"reward": trained}, optimizer, steps, step, text="reward model", warmup=steps // 10)
        if stage.is_main:
            accelerator.unwrap_model(trained).save(tokenizer, stage.folder, context.dtype)

    def load(self, folder: Path) -> BradleyTerryReward:
        """Open a saved reward model."""
        return BradleyTerryReward(folder, self.context)


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """A prompt, its different responses, and the comparisons between them."""

    group: Group
    pairs: list[tuple[int, int, float]]
    """Indices of the first and second response, and the label: probability that the first is better."""


def gather_by_prompt(labels: Sequence[LabelledComparison], tokenizer: PreTrainedTokenizerBase) -> list[PromptUnit]:
    """Put comparisons of one prompt together, in the order in which prompts appear."""
    units: dict[str, PromptUnit] = {}
    places: dict[str, dict[str, int]] = {}
    for label in labels:
        text = label.comparison.prompt.text
        if text not in units:
            units[text] = PromptUnit(Group(encode_prompt(tokenizer, text), []), [])
            places[text] = {}
        unit, known = units[text], places[text]
        for response in label.comparison.responses:
            if response not in known:
                known[response] = len(known)
                unit.group.responses.append(encode_response(tokenizer, response))
        first, second = (known[response] for response in label.comparison.responses)
        unit.pairs.append((first, second, label.probabilities[0]))
    return list(units.values())


def index_pairs(units: Sequence[PromptUnit], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Comparisons of packed prompts: indices of first and second responses, and labels, (pairs,) each."""
    first: list[int] = []
    second: list[int] = []
    targets: list[float] = []
    start = 0
    for unit in units:
        for a, b, target in unit.pairs:
            first.append(start + a)
            second.append(start + b)
            targets.append(target)
        start += len(unit.group.responses)
    return torch.tensor(first, device=device), torch.tensor(second, device=device), torch.tensor(targets, device=device)


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
