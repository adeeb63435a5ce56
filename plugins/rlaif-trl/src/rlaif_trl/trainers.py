"""Run TRL's trainers on the prompts, the rewards and the labels of an arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset

from rlaif_framework import Context, Guidance, LabelledComparison, Prompt, Reward, Stage, TrainingError
from rlaif_framework.contracts import score_responses
from rlaif_framework.models import ScoreModel, add_lora, encode_prompt, encode_response, find_stop_ids, load_model
from rlaif_framework.rl import replace_missing_eos
from rlaif_framework.training import run_trainer, save_policy, trainer_arguments

OTHERS = {"kind", "missing_eos_penalty", "missing_eos_reward", "margin"}
"""Settings that are not arguments of a trainer."""


class Training:
    """A component that runs a trainer of TRL."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context

    def arguments(self, stage: Stage, **limits: Any) -> dict[str, Any]:
        """Return the arguments of the run, of the settings, and further ones."""
        return {**trainer_arguments(self.context, stage), **self.config.model_dump(exclude=OTHERS), **limits}


class Grpo(Training):
    """Group-relative policy optimisation, by TRL."""

    classes: tuple[Any, Any] = trl.GRPOTrainer, trl.GRPOConfig

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy, and save it as all policies are saved."""
        context, lora = self.context, self.context.policy.lora
        tokenizer = context.load_policy_tokenizer(initial)
        base = load_model(context.find_trained(initial), "causal", context.weights_dtype, context.device)
        model = base if lora is None else add_lora(base, lora, "CAUSAL_LM")
        trainer = self.build(guidance, prompts, stage, model=model, processing_class=tokenizer)
        trained = run_trainer(trainer, stage)
        if stage.is_main:
            save_policy(context, trained, tokenizer, stage.folder)

    def build(self, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, **parts: Any) -> Any:
        """Create the trainer of a model. In its data, a prompt is its index."""
        config, context, reward = self.config, self.context, guidance.reward
        if reward is None:
            raise TrainingError(f"algorithm '{config.kind}' needs a reward; set the arm's `reward`")
        tokenizer, stops = parts["processing_class"], find_stop_ids(parts["processing_class"], parts["model"])
        # The sampler drops an incomplete batch of prompts, so there must be a complete one.
        pool = list(prompts) * -(-config.responses_per_step * context.accelerator.num_processes // len(prompts))

        def score(prompts: Any, completions: Any, completion_ids: Any, log_metric: Any, **rest: Any) -> list[float]:
            finished = torch.tensor([ids[-1] in stops for ids in completion_ids])
            log_metric("eos_rate", finished.double().mean().item())
            texts = [context.task.clean(text) for text in completions]
            scores = torch.tensor(score_responses(reward, [pool[int(i)] for i in prompts], texts))
            return replace_missing_eos(scores, finished, config.missing_eos_penalty, config.missing_eos_reward).tolist()

        parts["train_dataset"] = Dataset.from_list([{"prompt": str(index)} for index in range(len(pool))])
        trust, length = context.policy.trust_remote_code, context.policy.max_new_tokens
        args = self.arguments(stage, max_completion_length=length, trust_remote_code=trust)
        trainer = self.classes[0](reward_funcs=score, args=self.classes[1](**args), **parts)
        # As all policies read prompts. TRL would take control tokens in the data for those of the chat template.
        trainer._tokenize_prompts = lambda found: ([encode_prompt(tokenizer, pool[int(i)]) for i in found], None, {})
        return trainer


class Rloo(Grpo):
    """REINFORCE leave-one-out, by TRL."""

    classes = trl.RLOOTrainer, trl.RLOOConfig


class EncodedDPOTrainer(trl.DPOTrainer):
    """A trainer on pairs that are encoded already."""

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        return dataset


class Dpo(Grpo):
    """Direct preference optimisation, by TRL."""

    def build(self, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, **parts: Any) -> Any:
        """Create the trainer of a model."""
        pairs = encode_pairs(guidance.labels, parts["processing_class"], stage)
        args = self.arguments(stage, max_length=None, trust_remote_code=self.context.policy.trust_remote_code)
        return EncodedDPOTrainer(args=trl.DPOConfig(**args), train_dataset=Dataset.from_list(pairs), **parts)


class PairReward(Training):
    """A reward model that is trained by TRL, and saved in the format of `bradley-terry`."""

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train the model and save it."""
        context, lora = self.context, self.context.policy.lora
        source, tokenizer = context.find_trained(initial), context.load_policy_tokenizer(initial)
        model = ScoreModel.load(source, tokenizer, context.dtype, context.device, lora, train=True)
        rows = encode_pairs(labels, tokenizer, stage)
        for row in rows:
            # The trainer reads whole sequences.
            row |= {name: row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")}
            row["margin"] = self.config.margin * row["certainty"]
        args, data = trl.RewardConfig(**self.arguments(stage, max_length=None)), Dataset.from_list(rows)
        parts: Any = {"model": model.model, "processing_class": tokenizer}
        run_trainer(trl.RewardTrainer(args=args, train_dataset=data, **parts), stage)
        if stage.is_main:
            model.save(tokenizer, stage.folder, context.saved_dtype(lora))

    def load(self, folder: Path) -> Reward:
        """Load the model as one of `bradley-terry`."""
        config: Any = self.context.manager.find("reward", "bradley-terry").config
        return self.context.build_reward(config()).load(folder)


def encode_pairs(labels: Sequence[LabelledComparison], tokenizer: Any, stage: Stage) -> list[dict[str, Any]]:
    """Encode comparisons as TRL takes them, a preferred response and another. Ties are left out.

    Raises:
        TrainingError: All labels are ties.
    """
    rows = []
    for label in labels:
        first, texts = label.probabilities[0], label.comparison.responses
        chosen, rejected = (encode_response(tokenizer, text) for text in (texts if first > 0.5 else texts[::-1]))
        prompt, certainty = encode_prompt(tokenizer, label.comparison.prompt), abs(2 * first - 1)
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "certainty": certainty}
        rows += [row] if certainty else []
    stage.facts.update(pairs=len(rows), ties=len(labels) - len(rows))
    if not rows:
        raise TrainingError("all labels are ties, but TRL trains on preferred responses; use another labeler")
    return rows
