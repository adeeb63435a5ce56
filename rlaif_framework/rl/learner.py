"""The models of an algorithm: the trained policy, the frozen initial policy and, for some, a value model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.models.adapters import add_lora, checkpoint_gradients, share_weights
from rlaif_framework.models.chat import encode_prompt
from rlaif_framework.models.loading import load_model
from rlaif_framework.models.logprobs import response_logits, response_logprobs, selective_logprobs, token_entropies
from rlaif_framework.models.packing import Group, Packed, choose_rows, pack_groups
from rlaif_framework.models.sampling import group_samples
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.rl.config import LearnerConfig, OnlineConfig, ValueConfig
from rlaif_framework.rl.estimators import ends_response, value_loss
from rlaif_framework.rl.rollout_log import log_rollout
from rlaif_framework.rl.rollouts import Rollout, measure_response
from rlaif_framework.rl.value_model import ValueModel, load_value_model
from rlaif_framework.training.loop import StepFunction, draw_batch, local_shard, make_optimizer, train_steps
from rlaif_framework.training.policies import save_policy
from rlaif_framework.training.responses import sample_texts


class Learner:
    """A policy that is trained, and the frozen initial policy as its reference.

    With adapters, the policy, the reference and the value model of a `ValueLearner` are separate module trees over one
    copy of the base weights.
    """

    def __init__(self, config: LearnerConfig, context: Context, stage: Stage, initial: Path) -> None:
        """Load the models and create the optimiser.

        Args:
            config: Settings of the algorithm.
            context: Settings of the policy, the task and the device.
            stage: Stage that trains.
            initial: Folder of the initial policy.
        """
        self.config, self.context, self.stage = config, context, stage
        self.temperature = 1.0
        """Temperature at which log-probabilities are computed."""
        self.accelerator: Accelerator = context.accelerator
        self.tokenizer = context.load_policy_tokenizer(initial)
        base = load_model(context.find_trained(initial), "causal", context.weights_dtype, context.device)
        # Before the policy: initial adapters are drawn from one random stream, in this order.
        others = self._load_others(initial, base)
        # Before adapters are added to `base`, whose weights the reference may share.
        self.reference = self._load_reference(initial, base)
        self.reference.requires_grad_(False)
        policy = base if context.policy.lora is None else add_lora(base, context.policy.lora, "CAUSAL_LM")
        self._prepare({"policy": (policy, config.lr), **others})

    def _load_others(self, initial: Path, base: PreTrainedModel) -> dict[str, tuple[nn.Module, float]]:
        """Load the modules that are trained besides the policy, by name, each with its learning rate."""
        return {}

    def _load_reference(self, initial: Path, base: PreTrainedModel) -> PreTrainedModel:
        """Load the frozen initial policy; with adapters, it shares the base weights."""
        config, context = self.config, self.context
        if context.policy.lora is not None:
            return share_weights(base)
        # All weights are trained, in fp32: the reference needs a copy of its own.
        dtypes = {"policy": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}
        device = context.device if config.reference_device == "policy" else torch.device("cpu")
        return load_model(context.find_trained(initial), "causal", dtypes[config.reference_dtype], device)

    def _prepare(self, trained: Mapping[str, tuple[nn.Module, float]]) -> None:
        """Create the optimiser and let Accelerate wrap the trained modules."""
        if self.context.policy.gradient_checkpointing:
            for module, _ in trained.values():
                checkpoint_gradients(module)
        # One optimiser, with a parameter group and a learning rate for each module.
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": lr} for module, lr in trained.values()
        ]
        optimizer = make_optimizer(groups, self.config)
        *prepared, self.optimizer = self.accelerator.prepare(*(module for module, _ in trained.values()), optimizer)
        self.modules: dict[str, nn.Module] = dict(zip(trained, prepared, strict=True))
        """Trained modules by name: `policy`, and `value` if there is a value model."""
        self.policy = self.modules["policy"]
        for module in self.modules.values():
            module.train()  # gradient checkpointing does nothing in evaluation mode

    @property
    def policy_model(self) -> nn.Module:
        """The policy without Accelerate's wrappers."""
        model: nn.Module = self.accelerator.unwrap_model(self.policy)
        return model

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Return a context manager that computes in the policy's precision."""
        dtype = self.context.dtype
        return torch.autocast(self.context.device.type, dtype, enabled=enabled and dtype != torch.float32)

    def pack(self, groups: Sequence[Group]) -> Packed:
        """Pack groups into one batch on this process's device."""
        return pack_groups(choose_rows(groups), self.tokenizer.pad_token_id, self.context.device)

    def policy_logprobs(self, packed: Packed, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """Compute log-probabilities of the response tokens under the policy and, with `entropy`, entropies.

        Returns:
            (response tokens,) each; None without `entropy`.
        """
        with self.autocast():
            logits = response_logits(self.policy, packed)  # (response tokens, vocabulary)
        logprobs = selective_logprobs(logits, packed.targets, self.temperature)
        return logprobs, token_entropies(logits, self.temperature) if entropy else None

    @torch.no_grad()
    def reference_logprobs(self, packed: Packed) -> Tensor:
        """Compute log-probabilities of the response tokens under the initial policy, (response tokens,)."""
        device = self.reference.device
        # A reference kept on the CPU is computed there, in its own precision.
        with self.autocast(enabled=device.type == self.context.device.type):
            logprobs = response_logprobs(self.reference, packed.to(device), self.temperature)
        return logprobs.to(self.context.device)

    def train(
        self,
        steps: int,
        step: StepFunction,
        *,
        state: MutableMapping[str, float] | None = None,
        after: Callable[[int], bool] = lambda number: False,
    ) -> None:
        """Run training steps with the config's schedule and gradient clipping; see `train_steps`."""
        config = self.config
        train_steps(
            self.stage,
            self.modules,
            self.optimizer,
            steps,
            step,
            text=config.kind,
            warmup=config.warmup,
            schedule=config.schedule,
            max_grad_norm=config.max_grad_norm,
            state=state,
            after=after,
        )

    def save(self) -> None:
        """Save the policy as the stage's result."""
        if self.stage.is_main:
            save_policy(self.context, self.accelerator.unwrap_model(self.policy), self.tokenizer, self.stage.folder)


class OnlineLearner(Learner):
    """A learner that samples responses from the policy it trains."""

    config: OnlineConfig

    def __init__(self, config: OnlineConfig, context: Context, stage: Stage, initial: Path) -> None:
        """Load the models; see `Learner`."""
        super().__init__(config, context, stage, initial)
        self.temperature = config.temperature

    def sample(self, pool: Sequence[Prompt], number: int) -> Rollout:
        """Draw a step's prompts and sample responses to this process's share of them.

        Args:
            pool: Prompts to draw from.
            number: Number of the step.

        Raises:
            TrainingError: The prompts cannot be divided evenly among the processes.
        """
        config, stage, processes = self.config, self.stage, self.accelerator.num_processes
        if config.prompts_per_step % processes:
            raise TrainingError(
                f"prompts_per_step: {config.prompts_per_step} prompts cannot be divided evenly among {processes} "
                f"processes; use a multiple of {processes}"
            )
        batch = local_shard(self.accelerator, draw_batch(stage, len(pool), config.prompts_per_step, number))
        # A stream per process, because seeds of responses are derived by their index within a process.
        seed = stage.seed("rollout", number, self.accelerator.process_index)
        return self.roll_out([pool[i] for i in batch], config.responses_per_prompt, seed)

    def roll_out(self, prompts: Sequence[Prompt], per_prompt: int, seed: int) -> Rollout:
        """Sample responses to each prompt at the temperature of training, and measure them."""
        repeated = [p for p in prompts for _ in range(per_prompt)]
        samples = self.respond(repeated, self.temperature, seed)
        texts = [self.context.task.clean(s.text) for s in samples]
        ids = [encode_prompt(self.tokenizer, p) for p in prompts]
        # Training uses the sampled ids: decoding and encoding them again may yield other tokens.
        groups = group_samples(ids, samples, per_prompt)
        metrics = [
            measure_response(self.context.task, prompt, sample, text)
            for prompt, sample, text in zip(repeated, samples, texts, strict=True)
        ]
        return Rollout(repeated, samples, texts, groups, metrics)

    def respond(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> list[Sample]:
        """Sample one response of the current policy to each prompt."""
        policy = self.policy_model
        policy.eval()  # in training mode, gradient checkpointing would turn off the cache of keys and values
        # Adapters over a bf16 base are merged for sampling; only a policy kept in fp32 needs to be cast.
        with self.autocast(enabled=self.context.policy.lora is None):
            samples = sample_texts(self.context, policy, self.tokenizer, prompts, temperature=temperature, seed=seed)
        policy.train()
        return samples

    def any_process(self, flag: bool) -> bool:
        """Return True if the flag is set in any process: all stop at the same step. All of them must call this."""
        value = torch.tensor(float(flag), device=self.context.device)
        return bool(self.accelerator.reduce(value, reduction="sum") > 0)

    def save_samples(
        self,
        number: int,
        rollout: Rollout,
        rewards: Sequence[float] | None,
        columns: Mapping[str, Sequence[float | None]] = {},
    ) -> None:
        """Write the responses of every `samples_every`-th step to `samples/`, and those that the alarm reads.

        All processes must call this in each step.

        Args:
            number: Number of the step.
            rollout: The responses.
            rewards: Their rewards without penalties, as the alarm compares them; None without a reward.
            columns: Further values of each response, by name; None where there is none.
        """
        if self.config.alarm_reads(number):
            log_rollout(self.stage, number, rollout, rewards)
        if not self.stage.is_main or number % self.config.samples_every:
            return
        folder = self.stage.folder / "samples"
        folder.mkdir(exist_ok=True)
        values = {**({} if rewards is None else {"reward": rewards}), **columns}
        write_rows(
            folder / f"step-{number + 1:05d}.jsonl",
            (
                {"prompt": p.id, "response": t, **{key: column[i] for key, column in values.items()}}
                for i, (p, t) in enumerate(zip(rollout.prompts, rollout.texts, strict=True))
            ),
        )


class ValueLearner(OnlineLearner):
    """An online learner that also trains a value model (actor and critic)."""

    config: ValueConfig

    def __init__(
        self, config: ValueConfig, context: Context, stage: Stage, initial: Path, reward_folder: Path | None = None
    ) -> None:
        """Load the models; see `Learner`.

        Args:
            config: Settings of the algorithm.
            context: Settings of the policy, the task and the device.
            stage: Stage that trains.
            initial: Folder of the initial policy.
            reward_folder: Folder of a trained reward model, for `value_from: reward`.
        """
        self._reward_folder = reward_folder  # before the models are loaded, which needs it
        super().__init__(config, context, stage, initial)
        self.value = self.modules["value"]

    def _load_others(self, initial: Path, base: PreTrainedModel) -> dict[str, tuple[nn.Module, float]]:
        config = self.config
        value = load_value_model(config, self.context, initial, base, self.tokenizer, self._reward_folder)
        return {"value": (value, config.value_lr or config.lr)}

    @property
    def value_model(self) -> ValueModel:
        """The value model without Accelerate's wrappers."""
        model: ValueModel = self.accelerator.unwrap_model(self.value)
        return model

    def predict_values(self, packed: Packed) -> Tensor:
        """Predict values of states: (response tokens,), or with `end_value` (response tokens + responses,).

        The first are of the states before each response token, the others of the states after each response.
        """
        with self.autocast():
            values: Tensor = self.value(packed, self.config.values_final_states)
        return values

    def value_errors(self, values: Tensor, old: Tensor, returns: Tensor, response_index: Tensor) -> Tensor:
        """Compute the squared error of values, clipped as configured, for each response token.

        Args:
            values: Values as `predict_values` returns them.
            old: Values before the update, likewise.
            returns: Target values, likewise.
            response_index: (response tokens,) response of each token.

        Returns:
            (response tokens,); the error of a final state is added to that of the last token.
        """
        errors = value_loss(values, old, returns, self.config.value_clip)
        if not self.config.values_final_states:
            return errors
        # Final states come after all tokens, in the order of the responses.
        tokens, last = len(response_index), ends_response(response_index).nonzero().flatten()
        return errors[:tokens].index_add(0, last, errors[tokens:])
