"""One step of each kind against TRL's trainers, on identical inputs: the same loss and the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlaif_framework import Comparison, LabelledComparison, PluginManager, Prompt, Sample, Spec
from rlaif_framework.metrics.response_metrics import measure_sample
from rlaif_framework.models import load_model, load_tokenizer
from rlaif_framework.models.chat import encode_text
from rlaif_framework.models.packing import Group
from rlaif_framework.rl import OnlineLearner, Rollout
from support.world import World

pytest.importorskip("trl", reason="pip install trl: these tests compare with it")

CPU = torch.device("cpu")
MOVED = 9
"""Seed of the second perturbation: with this one, ratios of tokens and of responses are clipped on both sides."""
NEAR: dict[str, Any] = {"rel": 1e-5, "abs": 1e-6}
PROMPTS = [Prompt(str(i), f"POST: {text}\n\nTL;DR:", text) for i, text in enumerate(["my dog ate it", "we met"])]
COMPLETIONS = [[[40, 41, 2], [42, 300, 301, 44], [45, 2], [46]], [[50, 51], [52, 53, 54, 2], [55, 310, 2], [57, 58]]]
REWARDS = [[1.0, -0.5, 0.3, 2.0], [0.0, 0.7, -1.2, 0.4]]
TEMPERATURE = 0.9


@pytest.fixture
def world(tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path, tmp_path: Path) -> World:
    return World(tiny_spec, manager, tiny_model, tmp_path, prompts=PROMPTS)


def perturb(model: nn.Module, seed: int = 5) -> None:
    """Move a model away from the reference, or on, so that ratios, KL terms and margins are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
            assert name


def fixed_rollout(tokenizer: Any) -> Rollout:
    samples = [
        Sample(ids, tokenizer.decode(ids, skip_special_tokens=True), ids[-1] == 2) for own in COMPLETIONS for ids in own
    ]
    groups = [
        Group(encode_text(tokenizer, p.text), [list(ids) for ids in own])
        for p, own in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    prompts, texts = [p for p in PROMPTS for _ in range(4)], [s.text for s in samples]
    return Rollout(prompts, samples, texts, groups, [measure_sample(s, s.text) for s in samples])


class FixedReward:
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        return [value for row in REWARDS for value in row]


Captured = tuple[dict[str, float], dict[str, torch.Tensor]]


def capture(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """Replace a training loop by one step from the perturbed policy that keeps metrics and gradients.

    Between the updates of a step the policy is perturbed again.
    """
    kept: list[Captured] = []

    def one_step(
        stage: Any, modules: Mapping[str, nn.Module], optimizer: Any, steps: int, step: Any, **rest: Any
    ) -> None:
        perturb(modules["policy"])
        updates: Iterator[Mapping[str, float]] = step(0)
        for number, metrics in enumerate(updates, MOVED):
            found = {n: p.grad.clone() for n, p in modules["policy"].named_parameters() if p.grad is not None}
            kept.append((dict(metrics), found))
            optimizer.zero_grad()
            perturb(modules["policy"], number)

    monkeypatch.setattr("rlaif_framework.rl.learner.train_steps", one_step)
    return kept


def gradients_of(trainer: Any, move: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    """Train one step; keep the loss, and the gradients just before the optimiser takes them.

    With `move` the policy is perturbed between sampling and learning, as after a first update.
    """
    from transformers import TrainerCallback

    kept: dict[str, torch.Tensor] = {}
    losses: list[float] = []
    compute_loss = trainer.compute_loss

    def keep_loss(model: Any, *args: Any, **options: Any) -> Any:
        if move:
            perturb(trainer.accelerator.unwrap_model(model), MOVED)
        loss = compute_loss(model, *args, **options)
        losses.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
        return loss

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            named = rest["model"].named_parameters()
            kept.update({n: p.grad.clone() for n, p in named if p.grad is not None})

    trainer.compute_loss = keep_loss
    trainer.add_callback(Keep())
    trainer.train()
    (loss,) = losses  # what the trainer logs is rounded
    if move:
        (row,) = [row for row in trainer.state.log_history if "loss" in row]
        region = "clip_ratio/low_mean", "clip_ratio/high_mean"
        assert all(row[key] > 0 for key in region), "the perturbation should clip ratios on both sides"
    return loss, kept


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "learning_rate": 0.0,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        **more,
    }


def perturbed(folder: Path) -> Any:
    model = load_model(folder, "causal", torch.float32, CPU)
    perturb(model)
    return model.train()


def compare(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(float(g.abs().max()) for g in theirs.values())
    assert largest > 1e-3
    # A small element may be what is left of large ones: its rounding goes with theirs.
    atol = 3e-6 * max(1.0, largest)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=atol, msg=partial("{}: {}".format, name))


def run_trl_online(
    kind: str, world: World, beta: float, correction: bool = False, move: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    import trl
    from datasets import Dataset

    grpo = {"loss_type": "grpo", "scale_rewards": "group", "use_bias_correction_kl": correction}
    more = grpo if kind == "GRPO" else {"normalize_advantages": False}
    config = getattr(trl, f"{kind}Config")(
        **settings(
            world.folder / "trl",
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=4,
            temperature=TEMPERATURE,
            beta=beta,
            num_iterations=2 if move else 1,
            shuffle_dataset=False,
            **more,
        )
    )
    tokenizer = load_tokenizer(world.model)
    trainer = getattr(trl, f"{kind}Trainer")(
        model=perturbed(world.model),
        reward_funcs=lambda prompts, completions, **rest: [value for row in REWARDS for value in row],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [p.text for p in PROMPTS]}),
        processing_class=tokenizer,
    )
    order = {p.text: i for i, p in enumerate(PROMPTS)}

    def generate(prompts: list[str], *rest: Any) -> Any:
        assert [order[p] for p in prompts] == [0] * 4 + [1] * 4, "TRL has shuffled the prompts"
        ids = [encode_text(tokenizer, p) for p in prompts]
        completions = [list(c) for own in COMPLETIONS for c in own]
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        if kind == "RLOO":
            return ids, completions, texts
        return ids, completions, None, texts, None, {}, None, None

    trainer._generate = generate
    return gradients_of(trainer, move)


def run_ours(kind: str, world: World, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Captured]:
    tokenizer = load_tokenizer(world.model)
    monkeypatch.setattr(OnlineLearner, "sample", lambda self, pool, number: fixed_rollout(tokenizer))
    kept = capture(monkeypatch)
    fixed = {
        "alarm": "off",
        "beta": 0.3,
        "temperature": TEMPERATURE,
        "prompts_per_step": 2,
        "responses_per_prompt": 4,
        "clip": 0.2,
    }
    world.train(kind, world.stage("run"), FixedReward(), **fixed, **options)
    return kept


def test_an_rloo_step_has_trls_loss_and_gradients(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, theirs = run_trl_online("RLOO", world, beta=0.3)
    ((row, ours),) = run_ours("rloo", world, monkeypatch)
    compare(ours, theirs)
    assert row["loss"] == pytest.approx(loss, abs=1e-6)  # of both, nothing: a group's advantages add up to 0


@pytest.mark.parametrize("correction", [False, True])
def test_a_grpo_step_has_trls_loss_and_gradients(
    correction: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, theirs = run_trl_online("GRPO", world, beta=0.3, correction=correction)
    ((row, ours),) = run_ours("grpo", world, monkeypatch, kl_correction=correction)
    compare(ours, theirs)
    assert row["loss"] == pytest.approx(loss, **NEAR)


@pytest.mark.parametrize(("kind", "correction"), [("RLOO", False), ("GRPO", False), ("GRPO", True)])
def test_a_second_update_has_trls_loss_and_gradients(
    kind: str, correction: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy is not the one that sampled: ratios are clipped from above and from below."""
    loss, theirs = run_trl_online(kind, world, beta=0.3, correction=correction, move=True)
    options = {"kl_correction": True} if correction else {}
    _, (row, ours) = run_ours(kind.lower(), world, monkeypatch, epochs=2, **options)
    assert abs(loss) > 0.01
    compare(ours, theirs)
    assert row["loss"] == pytest.approx(loss, **NEAR)


PAIRS = [("the dog is gone", "a cat"), ("we met at noon", "he saw them again")]


def test_a_dpo_step_has_trls_loss_and_gradients(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl
    from datasets import Dataset

    rows = {
        "prompt": [p.text for p in PROMPTS],
        "chosen": [f" {a}" for a, _ in PAIRS],
        "rejected": [f" {b}" for _, b in PAIRS],
    }
    trainer = trl.DPOTrainer(
        model=perturbed(world.model),
        ref_model=load_model(world.model, "causal", torch.float32, CPU),
        args=trl.DPOConfig(**settings(world.folder / "trl", per_device_train_batch_size=2, beta=0.4)),
        train_dataset=Dataset.from_dict(rows),
        processing_class=load_tokenizer(world.model),
    )
    loss, theirs = gradients_of(trainer)
    kept = capture(monkeypatch)
    labels = [LabelledComparison(Comparison(p.id, p, pair), (1.0, 0.0)) for p, pair in zip(PROMPTS, PAIRS, strict=True)]
    world.train("dpo", world.stage("run"), given=labels, beta=0.4, batch_size=2)
    assert kept[0][0]["loss"] == pytest.approx(loss, **NEAR)
    assert abs(loss - 0.6931) > 1e-3
    compare(kept[0][1], theirs)


def test_a_reward_model_step_has_trls_loss_and_gradients(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl
    from datasets import Dataset

    from rlaif_framework.models import ScoreModel
    from rlaif_framework.plugins.slots import narrow

    tokenizer = load_tokenizer(world.model)
    score = ScoreModel.load(world.model, tokenizer, torch.float32, CPU)
    perturb(score)
    folder = world.folder / "score"
    score.save(tokenizer, folder, torch.float32)
    rows = {
        "prompt": [p.text for p in PROMPTS],
        "chosen": [f" {a}" for a, _ in PAIRS],
        "rejected": [f" {b}" for _, b in PAIRS],
    }
    model = load_model(folder, "score", torch.float32, CPU, num_labels=1).train()
    trainer = trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**settings(world.folder / "trl", per_device_train_batch_size=2)),
        train_dataset=Dataset.from_dict(rows),
        processing_class=load_tokenizer(folder),
    )
    loss, theirs = gradients_of(trainer)
    kept: list[Captured] = []

    def one_step(
        stage: Any, modules: Mapping[str, nn.Module], optimizer: Any, steps: int, step: Any, **rest: Any
    ) -> None:
        row = dict(next(iter(step(0))))
        found = {n.removeprefix("model."): p.grad for n, p in modules["reward"].named_parameters()}
        kept.append((row, {n: g.clone() for n, g in found.items() if g is not None}))

    monkeypatch.setattr("rlaif_plugins.rewards.bradley_terry.model.train_steps", one_step)
    stage = world.stage("run")
    config = narrow("reward", {"kind": "bradley-terry", "batch_size": 2, "model": str(folder)}, world.manager)
    labels = [LabelledComparison(Comparison(p.id, p, pair), (1.0, 0.0)) for p, pair in zip(PROMPTS, PAIRS, strict=True)]
    stage.context.build_reward(config).fit(labels, folder, stage)
    assert kept[0][0]["loss"] == pytest.approx(loss, **NEAR)
    compare(
        {n.removeprefix("model."): g for n, g in kept[0][1].items()},
        {n.removeprefix("model."): g for n, g in theirs.items()},
    )
