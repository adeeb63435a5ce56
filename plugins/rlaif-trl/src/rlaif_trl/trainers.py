"""Run TRL's trainers on the prompts, the rewards and the labels of an arm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
import trl
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, PrinterCallback

from rlaif_framework import Context, Guidance, LabelledComparison, Prompt, Reward, Stage, TrainingError
from rlaif_framework.contracts import resume_step, score_responses
from rlaif_framework.models import Group, ScoreModel, add_lora, encode_prompt, encode_response, find_stop_ids, load_model
from rlaif_framework.rl import replace_missing_eos
from rlaif_framework.training import save_policy
from rlaif_trl import DpoConfig, GrpoConfig, OnlineTrainerConfig, PairRewardConfig, RlooConfig, TrainerConfig
from rlaif_trl.callback import StageCallback

AnyConfig = TypeVar("AnyConfig", bound=TrainerConfig)
AnyOnline = TypeVar("AnyOnline", bound=OnlineTrainerConfig)
Tokenizer = PreTrainedTokenizerBase


class PolicyTraining(ABC, Generic[AnyConfig]):
    """An algorithm that trains the policy with a trainer of TRL."""

    trainer: ClassVar[Any]
    arguments: ClassVar[Any]
    own: ClassVar[set[str]]
    """Names of the settings that the trainer has under the same names, besides those that all trainers have."""

    def __init__(self, config: AnyConfig, context: Context) -> None:
        self.config, self.context = config, context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy, and save it as the framework does."""
        context = self.context
        tokenizer = context.load_policy_tokenizer(initial)
        model: nn.Module = load_model(context.find_trained(initial), "causal", context.weights_dtype, context.device)
        if context.policy.lora is not None:
            model = add_lora(model, context.policy.lora, "CAUSAL_LM")
        trained = run_trainer(self.build(model, tokenizer, guidance, prompts, stage), stage)
        if stage.is_main:
            save_policy(context, trained, tokenizer, stage.folder)

    @abstractmethod
    def build(
        self, model: nn.Module, tokenizer: Tokenizer, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage
    ) -> Any:
        """Create the trainer."""


class OnlineTraining(PolicyTraining[AnyOnline]):
    """An algorithm whose trainer samples responses, and gets their rewards from a function."""

    def build(
        self, model: nn.Module, tokenizer: Tokenizer, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage
    ) -> Any:
        """Create the trainer. Its data has the indices of the prompts, which are encoded and scored here."""
        config, context, reward, stops = self.config, self.context, guidance.reward, find_stop_ids(tokenizer, model)
        if reward is None:
            raise TrainingError(f"algorithm '{config.kind}' needs a reward; set the arm's `reward`")
        # The sampler drops an incomplete batch of prompts, so there must be a complete one.
        pool = list(prompts) * -(-config.prompts_per_step // len(prompts))

        def score(
            prompts: list[str], completions: list[str], completion_ids: list[list[int]], log_metric: Any, **rest: Any
        ) -> list[float]:
            finished = torch.tensor([ids[-1] in stops for ids in completion_ids])
            log_metric("eos_rate", finished.double().mean().item())
            texts = [context.task.clean(text) for text in completions]
            scores = torch.tensor(score_responses(reward, [pool[int(i)] for i in prompts], texts), dtype=torch.float64)
            rewards = replace_missing_eos(scores, finished, config.missing_eos_penalty, config.missing_eos_reward)
            return [float(value) for value in rewards]

        arguments = self.arguments(
            max_steps=config.steps,
            num_generations=config.responses_per_prompt,
            max_completion_length=context.policy.max_new_tokens,
            **config.model_dump(include={"beta", "temperature", *self.own}),
            **make_arguments(config, context, stage, config.prompts_per_step * config.responses_per_prompt, 1),
        )
        built = self.trainer(
            model=model,
            reward_funcs=score,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": [str(index) for index in range(len(pool))]}),
            processing_class=tokenizer,
            callbacks=[StageCallback(stage)],
        )
        # As the framework's policies read prompts: TRL would take control tokens in the data for those of the template.
        built._tokenize_prompts = lambda found: ([encode_prompt(tokenizer, pool[int(i)]) for i in found], None, {})
        return built


class Grpo(OnlineTraining[GrpoConfig]):
    """Group-relative policy optimisation, by TRL."""

    trainer, arguments, own = trl.GRPOTrainer, trl.GRPOConfig, {"loss_type", "scale_rewards"}  # noqa: RUF012


class Rloo(OnlineTraining[RlooConfig]):
    """REINFORCE leave-one-out, by TRL."""

    trainer, arguments, own = trl.RLOOTrainer, trl.RLOOConfig, {"normalize_advantages"}  # noqa: RUF012


class EncodedDPOTrainer(trl.DPOTrainer):
    """A DPO trainer on pairs that are encoded already."""

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        return dataset


class Dpo(PolicyTraining[DpoConfig]):
    """Direct preference optimisation, by TRL."""

    trainer, arguments, own = EncodedDPOTrainer, trl.DPOConfig, {"beta", "label_smoothing"}  # noqa: RUF012

    def build(
        self, model: nn.Module, tokenizer: Tokenizer, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage
    ) -> Any:
        """Create the trainer."""
        config = self.config
        arguments = self.arguments(
            num_train_epochs=config.epochs,
            loss_type=[config.loss_type],
            max_length=None,  # prompts and responses have limits of their own
            **config.model_dump(include=self.own),
            **make_arguments(config, self.context, stage, config.batch_size, 2),
        )
        return self.trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(encode_pairs(guidance.labels, tokenizer, stage)),
            processing_class=tokenizer,
            callbacks=[StageCallback(stage)],
        )


class PairReward:
    """A reward model that is trained by TRL."""

    def __init__(self, config: PairRewardConfig, context: Context) -> None:
        self.config, self.context = config, context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train the reward model and save it."""
        config, context = self.config, self.context
        tokenizer = context.load_policy_tokenizer(initial)
        model = self._load(initial, tokenizer, train=True)
        rows = [
            {
                "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
                "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
                "margin": config.margin * pair["certainty"],
            }
            for pair in encode_pairs(labels, tokenizer, stage)
        ]
        arguments = trl.RewardConfig(
            num_train_epochs=config.epochs,
            max_length=None,
            **make_arguments(config, context, stage, config.batch_size, 2),
        )
        trainer = trl.RewardTrainer(
            model=model.model,  # type: ignore[arg-type]
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[StageCallback(stage)],
        )
        run_trainer(trainer, stage)
        if stage.is_main:
            model.save(tokenizer, stage.folder, context.saved_dtype(context.policy.lora))

    def load(self, folder: Path) -> PairReward:
        """Load the reward model that `fit` saved."""
        self.tokenizer = self.context.load_policy_tokenizer(folder)
        self.model = self._load(folder, self.tokenizer)
        return self

    def _load(self, folder: Path, tokenizer: Tokenizer, train: bool = False) -> ScoreModel:
        context = self.context
        lora = context.policy.lora if train else None
        return ScoreModel.load(context.find_trained(folder), tokenizer, context.dtype, context.device, lora, train)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses at their end tokens."""
        groups = [
            Group(encode_prompt(self.tokenizer, prompt), [encode_response(self.tokenizer, text)])
            for prompt, text in zip(prompts, responses, strict=True)
        ]
        pad = int(self.tokenizer.pad_token_id)
        return self.model.score_groups(groups, pad, self.context.batch_tokens, self.context.dtype)


def encode_pairs(labels: Sequence[LabelledComparison], tokenizer: Tokenizer, stage: Stage) -> list[dict[str, Any]]:
    """Encode comparisons as TRL takes them: the preferred response, and the other. Ties are left out.

    Raises:
        TrainingError: All labels are ties.
    """
    rows = []
    for label in labels:
        first, _ = label.probabilities
        texts = label.comparison.responses if first > 0.5 else label.comparison.responses[::-1]
        chosen, rejected = (encode_response(tokenizer, text) for text in texts)
        prompt = encode_prompt(tokenizer, label.comparison.prompt)
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "certainty": abs(2 * first - 1)}
        rows += [row] if first != 0.5 else []
    stage.facts.update(pairs=len(rows), ties=len(labels) - len(rows))
    if not rows:
        raise TrainingError("all labels are ties, and TRL trains on preferred responses; use another labeler")
    return rows


def make_arguments(
    config: TrainerConfig, context: Context, stage: Stage, examples: int, sequences: int
) -> dict[str, Any]:
    """Return the arguments that all trainers have.

    Args:
        config: Settings of the component.
        context: Settings of the policy.
        stage: Stage that trains.
        examples: Examples in a step, over all processes.
        sequences: Sequences in an example.

    Raises:
        TrainingError: The examples cannot be divided among the processes.
    """
    policy, processes = context.policy, context.accelerator.num_processes
    local, rest = divmod(examples, processes)
    if rest:
        raise TrainingError(f"a step of {examples} examples cannot be divided among {processes} processes")
    # The largest part of a step that keeps the limit on the tokens of a forward and backward pass.
    fitting = policy.train_tokens // (sequences * (policy.max_prompt_tokens + policy.max_new_tokens))
    part = max(n for n in range(1, local + 1) if local % n == 0 and n <= max(1, fitting))
    return {
        "output_dir": str(stage.checkpoint),
        "seed": stage.seed("trl") % 2**32,
        "learning_rate": config.lr,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "warmup_steps": config.warmup,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch" if config.optimizer == "adamw" else config.optimizer,
        "adam_epsilon": config.adam_eps,
        "per_device_train_batch_size": part,
        "gradient_accumulation_steps": local // part,
        "gradient_checkpointing": policy.gradient_checkpointing,
        "bf16": context.dtype == torch.bfloat16,
        "use_cpu": context.device.type == "cpu",
        "dataloader_pin_memory": context.device.type == "cuda",
        "trust_remote_code": policy.trust_remote_code,
        "disable_dropout": True,
        "logging_steps": 1,
        "save_strategy": "no",  # the callback asks for checkpoints
        "report_to": "none",
        "disable_tqdm": True,
    }


def run_trainer(trainer: Any, stage: Stage) -> nn.Module:
    """Train, from the last checkpoint if the stage was interrupted, and return the model."""
    trainer.remove_callback(PrinterCallback)
    start = resume_step(stage.checkpoint)
    stage.rewind_log(start)
    trainer.train(resume_from_checkpoint=str(stage.checkpoint / f"step-{start}") if start else None)
    model: nn.Module = trainer.accelerator.unwrap_model(trainer.model)
    return model
