"""The models of an online algorithm: the policy it trains, the frozen initial one, and perhaps a value model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients, save_model, share_weights
from rlaif_framework.models.loading import load_model, load_tokenizer
from rlaif_framework.models.logprobs import response_logits, response_logprobs, selective_logprobs, token_entropies
from rlaif_framework.models.packing import Group, Packed, lay_out, pack_groups
from rlaif_framework.models.sampling import encode_prompt, group_samples, sample_responses
from rlaif_framework.models.score_model import ScoreModel
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.rl.config import GaeConfig, LearnerConfig, OnlineConfig, ValueConfig
from rlaif_framework.rl.rollouts import Rollout
from rlaif_framework.rl.value_model import ValueModel
from rlaif_framework.training.loop import draw_batch, local_shard, make_optimizer


class Learner:
    """Holds the models of an online algorithm, samples from the policy, and reads log-probabilities and values.

    With adapters, policy, reference and value model are three trees of modules over one copy of the base weights.
    """

    def __init__(
        self,
        config: LearnerConfig,
        context: Context,
        stage: Stage,
        initial: Path,
        reward_folder: Path | None = None,
        value: bool = False,
    ) -> None:
        """Load the models.

        Args:
            config: The algorithm's settings.
            context: The policy's settings, the task and the device.
            stage: Gives seeds and the folder for samples.
            initial: Folder of the initial policy.
            reward_folder: A reward model's folder, for a value model that starts from it.
            value: Whether there is a value model; `config` is then a `ValueConfig`.
        """
        self.config, self.context, self.stage = config, context, stage
        self.temperature = config.temperature if isinstance(config, OnlineConfig) else 1.0
        """Sampling temperature, at which log-probabilities are taken too."""
        self.accelerator: Accelerator = self.context.accelerator
        self.tokenizer = load_tokenizer(initial)
        lora, device = self.context.policy.lora, self.context.device
        weights = torch.float32 if lora is None else self.context.dtype
        base = load_model(initial, "causal", weights, device)
        modules: dict[str, nn.Module] = {}
        rates = {"policy": config.lr}
        if value:
            assert isinstance(config, ValueConfig)
            modules["value"] = ValueModel(self._load_scores(config, initial, reward_folder, base))
            rates["value"] = config.value_lr or config.lr
        if lora is None:
            dtype = {"policy": weights, "fp32": torch.float32, "bf16": torch.bfloat16}[config.reference_dtype]
            where = device if config.reference_device == "policy" else torch.device("cpu")
            self.reference = load_model(initial, "causal", dtype, where)
            modules["policy"] = base
        else:
            self.reference = share_weights(base)
            modules["policy"] = add_lora(base, lora, "CAUSAL_LM")
        self.reference.requires_grad_(False)
        if self.context.policy.gradient_checkpointing:
            for module in modules.values():
                checkpoint_gradients(module)
        groups = [
            {"params": [p for p in modules[name].parameters() if p.requires_grad], "lr": rate}
            for name, rate in rates.items()
        ]
        optimizer = make_optimizer(groups, config.lr, config.adam_eps, config.optimizer)
        *prepared, self.optimizer = self.accelerator.prepare(*(modules[name] for name in rates), optimizer)
        self.modules: dict[str, nn.Module] = dict(zip(rates, prepared, strict=True))
        """What is trained: `policy`, and `value` if there is a value model."""
        self.policy = self.modules["policy"]
        self.value = self.modules.get("value")
        for module in self.modules.values():
            module.train()  # a model in evaluation mode recomputes nothing, whatever is asked for

    def _load_scores(
        self, config: ValueConfig, initial: Path, reward_folder: Path | None, base: PreTrainedModel
    ) -> ScoreModel:
        context, lora = self.context, self.context.policy.lora
        if config.value_from == "sft" and lora is not None:
            return ScoreModel.over(base, lora)
        source = initial if config.value_from == "sft" else reward_folder
        if source is None or not (source / "config.json").exists():
            raise TrainingError("value_from: reward needs a reward that is a trained model; use value_from: sft")
        tokenizer = load_tokenizer(source)
        if not self.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items():
            raise TrainingError("value_from: the reward model's tokenizer is not the policy's; use value_from: sft")
        return ScoreModel.load(source, tokenizer, context.dtype, context.device, lora, train=True)

    def sample(self, pool: Sequence[Prompt], number: int) -> Rollout:
        """Sample this process's share of a step's responses to prompts from a pool."""
        config, context, stage = self.config, self.context, self.stage
        assert isinstance(config, OnlineConfig)
        batch = local_shard(self.accelerator, draw_batch(stage, len(pool), config.prompts_per_step, number))
        prompts = [pool[i] for i in batch]
        repeated = [p for p in prompts for _ in range(config.responses_per_prompt)]
        samples = self.respond(
            [p.text for p in repeated],
            self.temperature,
            stage.seed("rollout", number, self.accelerator.process_index),
        )
        texts = [context.task.clean(s.text) for s in samples]
        ids = [encode_prompt(self.tokenizer, p.text) for p in prompts]
        return Rollout(repeated, samples, texts, group_samples(ids, samples, config.responses_per_prompt))

    def respond(self, prompts: Sequence[str], temperature: float, seed: int) -> list[Sample]:
        """Let the policy as it is respond to prompts."""
        policy = self.accelerator.unwrap_model(self.policy)
        policy.eval()
        # Adapters over a bf16 base are merged for sampling; only a policy kept in fp32 needs to be cast.
        with self.autocast(enabled=self.context.policy.lora is None):
            samples = sample_responses(
                policy,
                self.tokenizer,
                prompts,
                max_new_tokens=self.context.policy.max_new_tokens,
                temperature=temperature,
                seed=seed,
                budget=self.context.batch_tokens,
            )
        policy.train()
        return samples

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Compute in the policy's precision."""
        dtype = self.context.dtype
        return torch.autocast(self.context.device.type, dtype, enabled=enabled and dtype != torch.float32)

    def pack(self, groups: Sequence[Group]) -> Packed:
        """Put groups into one batch on this process's device."""
        return pack_groups(lay_out(groups), self.tokenizer.pad_token_id, self.context.device)

    def policy_logprobs(self, packed: Packed, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the response tokens at the sampling temperature, and their entropies if wanted."""
        with self.autocast():
            logits = response_logits(self.policy, packed)
        logprobs = selective_logprobs(logits, packed.targets, self.temperature)
        return logprobs, token_entropies(logits, self.temperature) if entropy else None

    @torch.no_grad()
    def reference_logprobs(self, packed: Packed) -> Tensor:
        """Log-probabilities of the response tokens under the initial policy, (response tokens,)."""
        device = self.reference.device
        with self.autocast(enabled=device.type == self.context.device.type):
            logprobs = response_logprobs(self.reference, packed.to(device), self.temperature)
        return logprobs.to(self.context.device)

    def predict_values(self, packed: Packed) -> tuple[Tensor | None, Tensor | None]:
        """Values of the states before the response tokens, (response tokens,), and after the responses, (responses,).

        None without a value model; the latter None if `end_value` is off.
        """
        if self.value is None:
            return None, None
        ends = isinstance(self.config, GaeConfig) and self.config.end_value
        with self.autocast():
            values: Tensor = self.value(packed, ends)
        tokens = len(packed.targets)
        return values[:tokens], values[tokens:] if ends else None

    def save_samples(self, number: int, rollout: Rollout, columns: dict[str, Sequence[float]]) -> None:
        """Write a step's responses with what was said of them, for reading."""
        assert isinstance(self.config, OnlineConfig)
        if not self.stage.is_main or number % self.config.samples_every:
            return
        folder = self.stage.folder / "samples"
        folder.mkdir(exist_ok=True)
        write_rows(
            folder / f"step-{number + 1:05d}.jsonl",
            (
                {"prompt": p.id, "response": t, **{key: column[i] for key, column in columns.items()}}
                for i, (p, t) in enumerate(zip(rollout.prompts, rollout.texts, strict=True))
            ),
        )

    def save(self) -> None:
        """Save the policy as the stage's result."""
        if self.stage.is_main:
            save_model(
                self.accelerator.unwrap_model(self.policy), self.tokenizer, self.stage.folder, self.context.dtype
            )
