"""Every algorithm, in a world whose optimum is known; what holds at the first step; and resuming."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlaif_framework import (
    Comparison,
    LabelledComparison,
    ModelError,
    PluginManager,
    Prompt,
    SftConfig,
    Stage,
    TrainingError,
)
from rlaif_framework.contracts import read_metrics
from rlaif_framework.models import (
    ScoreModel,
    encode_continuation,
    encode_text,
    load_model,
    load_tokenizer,
    pack_groups,
    response_logprobs,
    sample_responses,
)
from rlaif_framework.models.packing import Group
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.rl import OnlineLearner, ValueLearner
from rlaif_framework.training import fine_tune
from support.oracle import ComponentStage, TasteReward, TasteRewardConfig, taste
from support.world import LetterReward, World

ONLINE = ["reinforce", "a2c", "ppo", "rloo", "grpo", "online-dpo"]
CPU = torch.device("cpu")


def next_tokens(folder: Path, prompt: Prompt, temperature: float) -> torch.Tensor:
    """Log pi of every single-token response, (vocabulary,) float64."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, "causal", torch.float32, CPU)
    with torch.no_grad():
        logits = model(torch.tensor([encode_text(tokenizer, prompt.text)])).logits[0, -1]
    return (logits.double() / temperature).log_softmax(0)


class Bandit:
    """Responses of one token, so that every expectation is a sum over the vocabulary."""

    def __init__(self, world: World, beta: float, weight: float = 1.0) -> None:
        self.world, self.beta, self.prompt = world, beta, world.prompts[0]
        tokenizer = load_tokenizer(world.model)
        texts = [str(tokenizer.decode([i], skip_special_tokens=True)).strip() for i in range(len(tokenizer))]
        self.liked = torch.tensor(LetterReward().score([], texts)) > 0
        self.rewards = weight * (2.0 * self.liked.double() - 1)
        self.before = next_tokens(world.model, self.prompt, 1.0)

    def objective(self, folder: Path) -> float:
        """E[weight r] - beta KL(pi || pi_ref)."""
        after = next_tokens(folder, self.prompt, 1.0)
        return float((after.exp() * (self.rewards - self.beta * (after - self.before))).sum())

    def optimum(self) -> float:
        """The objective of pi*(y) = pi_ref(y) exp(r(y) / beta) / Z, which is beta log Z."""
        return float(self.beta * (self.before + self.rewards / self.beta).logsumexp(0))

    def share(self, folder: Path) -> float:
        """Probability of a response that the reward likes."""
        return float(next_tokens(folder, self.prompt, 1.0).exp()[self.liked].sum())


COMMON = {"temperature": 1.0, "schedule": "linear", "lr": 0.01, "steps": 60, "prompts_per_step": 8}
BANDITS: dict[str, dict[str, Any]] = {
    "reinforce": {"responses_per_prompt": 8, "objective": "penalised", "value_lr": 0.01},
    "a2c": {"responses_per_prompt": 8, "value_lr": 0.01},
    "ppo": {"responses_per_prompt": 8, "value_lr": 0.01, "epochs": 2, "minibatches": 2, "whiten_advantages": False},
    "rloo": {"responses_per_prompt": 8},
    "grpo": {"responses_per_prompt": 32, "scale_groups": False, "lr": 0.02},
    "online-dpo": {"responses_per_prompt": 32, "labels": "soft", "lr": 0.004},
}


@pytest.mark.parametrize("kind", ONLINE)
def test_every_online_algorithm_approaches_the_closed_form_optimum(kind: str, world: World) -> None:
    """The policy that maximises E[r] - beta KL is known; a KL-regularised algorithm must come near its value."""
    beta = 1.0
    bandit = Bandit(world, beta)
    world.prompts = [bandit.prompt] * 8
    folder = world.train(kind, world.stage("run", max_new_tokens=1), **(COMMON | BANDITS[kind] | {"beta": beta}))
    start, best = bandit.objective(world.model), bandit.optimum()
    reached = (bandit.objective(folder) - start) / (best - start)
    assert best - start > 0.3, "the world is too easy"
    assert 0.85 < reached <= 1.0, f"{kind} reached {reached:.0%} of what can be gained"


SMALL = {"temperature": 1.0, "schedule": "linear", "lr": 0.01, "prompts_per_step": 8, "responses_per_prompt": 8}


def test_reinforce_as_it_is_approaches_the_optimum_of_its_weighted_objective(world: World) -> None:
    """(1 - beta) E[r] - beta KL: at beta 0.4 its optimum is far from that of E[r] - beta KL."""
    beta = 0.4
    bandit, other = Bandit(world, beta, 1 - beta), Bandit(world, beta)
    world.prompts = [bandit.prompt] * 8
    folder = world.train("reinforce", world.stage("run", max_new_tokens=1), **SMALL, steps=60, beta=beta)
    start, best = bandit.objective(world.model), bandit.optimum()
    assert 0.85 < (bandit.objective(folder) - start) / (best - start) <= 1.0
    optimum, wrong = (float((b.before + b.rewards / beta).softmax(0)[b.liked].sum()) for b in (bandit, other))
    assert abs(bandit.share(folder) - optimum) < abs(bandit.share(folder) - wrong) / 2


def test_reinforce_against_the_other_responses_has_the_same_optimum(world: World) -> None:
    """A baseline moves nothing on average, whichever it is."""
    bandit = Bandit(world, 1.0)
    world.prompts = [bandit.prompt] * 8
    options = {"baseline": "leave-one-out", "objective": "penalised", "steps": 60, "beta": 1.0}
    folder = world.train("reinforce", world.stage("run", max_new_tokens=1), **SMALL, **options)
    start, best = bandit.objective(world.model), bandit.optimum()
    assert 0.85 < (bandit.objective(folder) - start) / (best - start) <= 1.0


def test_in_the_loss_k2_and_corrected_k3_are_one_gradient(world: World) -> None:
    """At ratio 1 both are k1 times the gradient of the log-probability; k3 as it is pulls another way."""
    settings = {"steps": 4, "prompts_per_step": 1, "responses_per_prompt": 4, "lr": 1e-3, "beta": 1.0, "kl": "loss"}
    estimators: dict[str, dict[str, Any]] = {
        "k2": {"kl_estimator": "k2"},
        "corrected": {"kl_estimator": "k3", "kl_correction": True},
        "k3": {"kl_estimator": "k3"},
    }
    runs = {name: world.train("rloo", world.stage(name), **settings, **options) for name, options in estimators.items()}
    norms, same, other = ([row["policy_grad_norm"] for row in read_metrics(runs[name])] for name in runs)
    assert norms == pytest.approx(same, rel=1e-4)
    assert norms[1:] != pytest.approx(other[1:], rel=1e-4)
    assert read_metrics(runs["k2"])[-1]["kl_k1"] == pytest.approx(
        read_metrics(runs["corrected"])[-1]["kl_k1"], rel=1e-3
    )


def test_ppo_as_it_is_approaches_the_closed_form_optimum(world: World) -> None:
    """Four epochs, clipped ratios and values, whitened advantages: another way to the same place.

    Whitening makes as much of the last small advantages as of the first large ones, so that it stays a little off.
    """
    bandit = Bandit(world, 1.0)
    world.prompts = [bandit.prompt] * 8
    settings = {**SMALL, "lr": 0.003, "steps": 60, "prompts_per_step": 4, "beta": 1.0}
    folder = world.train("ppo", world.stage("run", max_new_tokens=1), **settings)
    start, best = bandit.objective(world.model), bandit.optimum()
    assert 0.75 < (bandit.objective(folder) - start) / (best - start) <= 1.0


def balance(q: float, beta: float, size: int) -> float:
    """Where GRPO with scaled groups rests: the share p of liked responses.

    Scaled advantages have no expected reward that they climb, but a fixed point. k3 in the loss pulls with the gradient
    of KL(pi_ref || pi), so that pi = beta pi_ref / (beta - A + E[A]), with A the expected advantage of a liked or an
    unliked response among `size` - 1 others; q is the share under pi_ref.
    """

    def advantage(liked: int, reward: float) -> float:
        rewards = [1.0] * liked + [-1.0] * (size - liked)
        mean = sum(rewards) / size
        deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (size - 1))
        return (reward - mean) / (deviation + 1e-4)

    def excess(p: float) -> float:
        others = [math.comb(size - 1, k) * p**k * (1 - p) ** (size - 1 - k) for k in range(size)]
        up = sum(share * advantage(k + 1, 1.0) for k, share in enumerate(others))
        down = sum(share * advantage(k, -1.0) for k, share in enumerate(others))
        return beta * q / p - beta + (1 - p) * (up - down)  # what pushes p up

    low, high = q, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low


def test_grpo_as_it_is_rests_where_scaled_advantages_and_kl_balance(world: World) -> None:
    bandit = Bandit(world, 1.5)
    world.prompts = [bandit.prompt] * 8
    folder = world.train("grpo", world.stage("run", max_new_tokens=1), **SMALL, steps=80, beta=1.5)
    before, expected = bandit.share(world.model), balance(bandit.share(world.model), 1.5, 8)
    assert 0.1 < expected - before < 0.9 - before, "the world is too easy or too hard"
    assert bandit.share(folder) == pytest.approx(expected, abs=0.05)


def test_online_dpo_on_hard_labels_comes_to_prefer_what_is_better(world: World) -> None:
    """Its optimum is the best response alone: a hard label asks for an infinite margin."""
    bandit = Bandit(world, 1.0)
    world.prompts = [bandit.prompt] * 8
    settings = {**SMALL, "lr": 0.005, "steps": 60, "beta": 0.1}
    folder = world.train("online-dpo", world.stage("run", max_new_tokens=1), **settings)
    assert bandit.share(world.model) < 0.5
    assert bandit.share(folder) > 0.9


def test_online_dpo_checks_the_mass_on_the_label_tokens(world: World) -> None:
    labeler = {"kind": "llm", "backend": {"kind": "transformers", "model": str(world.model), "dtype": "fp32"}}
    settings = {**SMALL, "steps": 1, "prompts_per_step": 2, "labeler": labeler}
    # A model with random weights puts next to nothing on two tokens of its vocabulary.
    with pytest.raises(TrainingError, match=r"online-dpo: .*almost never writes a label: .*allow_weak_labels: true"):
        world.train("online-dpo", world.stage("refused"), **settings)
    folder = world.train("online-dpo", world.stage("allowed"), **settings, allow_weak_labels=True)
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert 0 < row["labeler/label_token_mass"] < 0.01


def test_dpo_refuses_a_label_that_is_longer_than_the_positions_before_its_first_step(world: World) -> None:
    comparisons = [
        Comparison("c", world.prompts[0], ("a dog", "a cat")),
        Comparison("d", world.prompts[0], ("mud", "a" * 2000)),
    ]
    labels = [LabelledComparison(comparison, (1.0, 0.0)) for comparison in comparisons]
    with pytest.raises(ModelError, match=r"a prompt with a labelled response has .* tokens, and the model .*; lower"):
        world.train("dpo", world.stage("run"), given=labels, batch_size=1, epochs=1)
    assert not list((world.folder / "run").glob("metrics.jsonl"))


def test_rejection_sampling_approaches_the_distribution_of_the_best_of_n(world: World) -> None:
    """Of n responses one is liked with probability 1 - (1 - q)^n, and that is how often the policy then gives one."""
    bandit, n = Bandit(world, 1.0), 4
    q = bandit.share(world.model)
    world.prompts = [Prompt(str(i), bandit.prompt.text, "my dog") for i in range(128)]
    sft = {"lr": 0.01, "batch_size": 32, "epochs": 12}
    folder = world.train("rejection-sampling", world.stage("run", max_new_tokens=1), n=n, temperature=1.0, sft=sft)
    rows = [json.loads(line) for line in (folder / "chosen.jsonl").read_text().splitlines()]
    chosen = sum(row["reward"] > 0 for row in rows) / len(rows)
    expected = 1 - (1 - q) ** n
    assert expected > 2 * q + 0.13
    assert chosen == pytest.approx(expected, abs=0.13)  # three standard errors of 128 prompts
    tokenizer, model = load_tokenizer(folder), load_model(folder, "causal", torch.float32, CPU)
    prompts = [bandit.prompt.text] * 512
    # A response of one token is imitated as a space and its text, which may be two tokens, and no end: it was cut off.
    samples = sample_responses(model, tokenizer, prompts, max_new_tokens=4, temperature=1.0, seed=1)
    liked = tuple({row["response"] for row in rows if row["reward"] > 0})
    assert sum(s.text.strip().startswith(liked) for s in samples) / 512 == pytest.approx(chosen, abs=0.1)


def test_a_student_comes_to_say_what_its_teacher_says(world: World) -> None:
    """The optimum of imitation: no loss, and the teacher's own words."""
    settings = settings_of("teacher", world)
    teacher, tokenizer = load_model(world.model, "causal", torch.float32, CPU), load_tokenizer(world.model)
    tokenizer.chat_template = None
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    other = world.folder / "teacher"
    teacher.save_pretrained(other)
    tokenizer.save_pretrained(other)
    settings["backend"]["model"] = str(other)
    settings["sft"] = {"lr": 0.01, "batch_size": 4, "epochs": 60}
    folder = world.train("teacher", world.stage("run"), **settings)

    def say(where: Path, length: int) -> list[str]:
        texts = [p.text for p in world.prompts]
        model = load_model(where, "causal", torch.float32, CPU)
        samples = sample_responses(model, tokenizer, texts, max_new_tokens=length, temperature=0.0, seed=0)
        return [world.stage("x").context.task.clean(s.text) for s in samples]

    taught = say(other, 6)
    assert len(set(taught)) > 1, "the teacher says the same to everything"
    assert not set(taught) & set(say(world.model, 6))
    # They were cut off, so that no end is learned; as text they may be more tokens than the teacher's.
    for said, lesson in zip(say(folder, 24), taught, strict=True):
        assert said.startswith(lesson)
    assert read_metrics(folder)[-1]["loss"] < 0.1


def test_dpo_on_soft_labels_approaches_the_closed_form_optimum(world: World) -> None:
    """Labels of a Bradley-Terry reward are fitted exactly by pi_ref exp(r / beta): log-ratios differ as rewards do."""
    texts, rewards, beta = ["my dog", "no", "a cat sat", "it ate"], [1.0, -1.0, 0.5, 0.0], 0.5
    labels = []
    for i, j in itertools.combinations(range(4), 2):
        p = 1 / (1 + math.exp(rewards[j] - rewards[i]))
        comparison = Comparison(f"{i}{j}", world.prompts[0], (texts[i], texts[j]))
        labels.append(LabelledComparison(comparison, (p, 1 - p)))
    settings = {"labels": "soft", "beta": beta, "lr": 1e-3, "batch_size": 6, "epochs": 150}
    folder = world.train("dpo", world.stage("run"), given=labels, **settings)

    tokenizer = load_tokenizer(folder)
    ids = [encode_continuation(tokenizer, text) for text in texts]
    packed = pack_groups([Group(encode_text(tokenizer, world.prompts[0].text), ids)], tokenizer.pad_token_id, CPU)
    with torch.no_grad():
        new, old = (
            packed.per_response(response_logprobs(load_model(where, "causal", torch.float32, CPU), packed))
            for where in (folder, world.model)
        )
    implicit = beta * (new - old)
    assert (implicit - implicit[3]).tolist() == pytest.approx(rewards, abs=0.02)


def test_conservative_and_hard_labels_are_what_they_say() -> None:
    from rlaif_plugins.algorithms.dpo import DpoConfig
    from rlaif_plugins.algorithms.dpo.algorithm import Dpo

    given = torch.tensor([0.9, 0.5, 0.2])
    for settings, expected in [
        ({"labels": "soft"}, [0.9, 0.5, 0.2]),
        ({"labels": "hard"}, [1.0, 0.5, 0.0]),
        ({"labels": "hard", "label_smoothing": 0.1}, [0.9, 0.5, 0.1]),
        ({"labels": "soft", "label_smoothing": 0.1}, [0.82, 0.5, 0.26]),
    ]:
        shaped = Dpo(DpoConfig.model_validate(settings), None).shape_labels(given)  # type: ignore[arg-type]
        torch.testing.assert_close(shaped, torch.tensor(expected))


def test_dpo_starts_at_ln_2(world: World) -> None:
    labels = [
        LabelledComparison(Comparison("a", world.prompts[0], ("my dog", "a cat sat")), (0.9, 0.1)),
        LabelledComparison(Comparison("b", world.prompts[0], ("no", "my dog")), (0.3, 0.7)),
    ]
    rows = read_metrics(world.train("dpo", world.stage("run", lora=True), given=labels, batch_size=2, epochs=1))
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["reinforce", "a2c", "ppo", "rloo", "grpo"])
def test_at_the_first_step_policy_and_reference_are_one(kind: str, lora: bool, world: World) -> None:
    settings = {"steps": 1, "epochs": 1, "prompts_per_step": 1, "responses_per_prompt": 3, "lr": 1e-3}
    (row,) = read_metrics(world.train(kind, world.stage("run", lora=lora), **settings))
    assert row["ratio"] == pytest.approx(1, abs=1e-6)
    assert row["kl_k1"] == pytest.approx(0, abs=1e-5)
    assert row["kl_k3"] == pytest.approx(0, abs=1e-6)
    assert row["clip_fraction"] == 0


def test_log_probabilities_of_sampling_and_of_training_are_equal(world: World) -> None:
    """What was sampled from is what is differentiated: temperature included."""
    tokenizer, model = load_tokenizer(world.model), load_model(world.model, "causal", torch.float32, CPU)
    ids = encode_text(tokenizer, world.prompts[0].text)
    (sample,) = sample_responses(model, tokenizer, [ids], max_new_tokens=6, temperature=0.7, seed=3)
    packed = pack_groups([Group(ids, [sample.ids])], tokenizer.pad_token_id, CPU)
    with torch.no_grad():
        ours = response_logprobs(model, packed, 0.7)
        rows = model(torch.tensor([ids + sample.ids])).logits[0, len(ids) - 1 : -1] / 0.7
    torch.testing.assert_close(ours, rows.log_softmax(1).gather(1, torch.tensor(sample.ids)[:, None])[:, 0])


ALGORITHMS = PluginManager.load().names("algorithm")
UNTRAINED = {"best-of-n"}
"""Algorithms that take no steps."""
STEPS = {"steps": 4, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": 1e-3}
SFT = {"sft": {"lr": 1e-3, "batch_size": 2, "epochs": 2}}
TRAINED: dict[str, dict[str, Any]] = {
    "reinforce": {**STEPS, "scale_rewards": True},
    "a2c": {**STEPS, "entropy": 0.01},
    "ppo": {**STEPS, "epochs": 2, "minibatches": 2, "kl_target": 0.5, "kl_horizon": 50, "whiten_rewards": True},
    "rloo": {**STEPS, "schedule": "linear", "warmup": 1},
    "grpo": {**STEPS, "epochs": 2},
    "online-dpo": {**STEPS, "schedule": "cosine"},
    "dpo": {"batch_size": 2, "epochs": 2, "lr": 1e-3},
    "rejection-sampling": {"n": 2, **SFT},
    "teacher": {"backend": {"kind": "transformers", "chat": "no", "dtype": "fp32"}, **SFT},
    "best-of-n": {"n": 2},
}
"""Settings with which each algorithm takes four steps over four prompts."""


def settings_of(kind: str, world: World) -> dict[str, Any]:
    """Settings of an installed algorithm, for the four prompts and four labels that the world then has."""
    if kind not in TRAINED:
        pytest.fail(f"algorithm '{kind}' is installed and has no settings in TRAINED: add some, so that it is tested")
    world.prompts = [Prompt(str(i), f"POST: {word} ate it\n\nTL;DR:", word) for i, word in enumerate("abcd")]
    settings = copy.deepcopy(TRAINED[kind])
    if "backend" in settings:
        settings["backend"]["model"] = str(world.model)
    return settings


def labels_of(world: World) -> list[LabelledComparison]:
    """A label for each prompt, none of them certain."""
    return [
        LabelledComparison(Comparison(p.id, p, ("my dog", f"a cat {p.id}")), (0.8 - 0.2 * i, 0.2 + 0.2 * i))
        for i, p in enumerate(world.prompts)
    ]


def save_reward_model(world: World) -> Path:
    """A reward model's folder, with a head that has opinions."""
    tokenizer, folder = load_tokenizer(world.model), world.folder / "reward model"
    torch.manual_seed(0)
    ScoreModel.load(world.model, tokenizer, torch.float32, CPU, head="normal").save(tokenizer, folder, torch.float32)
    return folder


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in ALGORITHMS},
    "rloo, watched": (
        "rloo",
        {"checkpoint_selection": {"every": 1, "prompts": 3, "judge": "test/taste", "candidates": 2}},
    ),
    "online-dpo, watched": ("online-dpo", {"checkpoint_selection": {"every": 2, "prompts": 3}}),
    "reinforce, all weights": ("reinforce", {}),
    "dpo, all weights": ("dpo", {}),
    "teacher, all weights": ("teacher", {}),
    "ppo, value from the reward model": ("ppo", {"value_from": "reward"}),
    "a2c, all weights, value from the reward model": ("a2c", {"value_from": "reward", "value_lr": 1e-2}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_resumed_equals_uninterrupted(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: optimiser, schedule, random streams, sampler, reward spread, KL controller, and looks of the watch.

    The last checkpoint is two steps old when the run is killed, so that what was logged since must be undone.
    """
    kind, changes = VARIANTS[name]
    settings, lora = {**settings_of(kind, world), **changes}, "all weights" not in name
    taste_reward = TasteReward(TasteRewardConfig(), world.stage("x").context)
    inputs: dict[str, Any] = {"reward": taste_reward, "given": labels_of(world)}
    if "value_from" in settings:
        inputs["reward_folder"] = save_reward_model(world)
    finished = world.stage("whole", lora=lora)
    whole = world.train(kind, finished, **inputs, **settings)
    if kind in UNTRAINED:
        assert read_metrics(whole) == [], f"'{kind}' takes steps: it is not one of UNTRAINED"
        return
    assert [row["step"] for row in read_metrics(whole)] == [1, 2, 3, 4]

    stage = world.stage("cut", lora=lora, seconds=0)
    log = stage.log

    def log_and_die(number: int, metrics: Any) -> None:
        log(number, metrics)
        stage.checkpoint_seconds = 0 if number == 1 else 1e9
        if number == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "log", log_and_die)
    with pytest.raises(KeyboardInterrupt):
        world.train(kind, stage, **inputs, **settings)
    assert [path.name for path in stage.checkpoint.glob("step-*")] == ["step-1"]
    resumed = world.stage("cut", lora=lora)
    cut = world.train(kind, resumed, **inputs, **settings)
    assert read_metrics(cut) == read_metrics(whole)
    assert resumed.facts == finished.facts
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    before = load_file(world.model / "model.safetensors")
    assert any(not torch.equal(one[key], before[key]) for key in before), "nothing was learned"
    assert all(torch.equal(one[key], other[key]) for key in one)
    if "checkpoint_selection" in settings:
        assert (cut / "checkpoint_selection.jsonl").read_text() == (whole / "checkpoint_selection.jsonl").read_text()
    if (whole / "samples").exists():
        for path in (whole / "samples").iterdir():
            assert (cut / "samples" / path.name).read_text() == path.read_text()


def test_adapters_share_one_copy_of_the_base_weights(world: World) -> None:
    config: Any = narrow("algorithm", {"kind": "ppo"}, world.manager)
    stage = world.stage("run", lora=True)
    learner = ValueLearner(config, stage.context, stage, world.model)
    names = ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"]
    reference = dict(learner.reference.named_parameters())
    for trained in (learner.policy, learner.value):
        pointers = {p.data_ptr() for p in trained.parameters()}
        assert all(reference[name].data_ptr() in pointers for name in names)
    base = sum(p.numel() for p in reference.values())
    together = {p.data_ptr(): p.numel() for m in (*learner.modules.values(), learner.reference) for p in m.parameters()}
    assert base < sum(together.values()) < 1.5 * base


def test_training_the_value_model_does_not_move_policy_or_reference(world: World) -> None:
    """Three trees of modules over one set of weights, and yet apart."""
    settings = {"steps": 3, "prompts_per_step": 1, "responses_per_prompt": 4, "lr": 1e-9, "value_lr": 0.1}
    rows = read_metrics(world.train("a2c", world.stage("run", lora=True), **settings))
    assert rows[-1]["value_loss"] != rows[0]["value_loss"]
    assert rows[-1]["kl_k3"] == pytest.approx(0, abs=1e-6)


class TurningReward(LetterReward):
    """Graded rewards that are something else from the third call on: a step calls once."""

    def __init__(self, turned: Callable[[int], float]) -> None:
        super().__init__()
        self.calls, self.turned = 0, turned

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        self.calls += 1
        return [self.turned(i) if self.calls == 3 else 0.1 * i for i in range(len(responses))]


def check_the_checkpoint(stage: Stage, go_on: Callable[[ComponentStage], object], world: World) -> None:
    """Step 2 is kept, without the third step's harm, and the run goes on from it to its end."""
    assert [path.name for path in stage.checkpoint.glob("step-*")] == ["step-2"]
    kept = load_file(stage.checkpoint / "step-2/state.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())
    assert [row["step"] for row in read_metrics(stage.folder)] == [1, 2]
    again = world.stage(stage.folder.name, lora=True)
    go_on(again)
    assert [row["step"] for row in read_metrics(again.folder)] == [1, 2, 3, 4]
    assert (again.folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("kind", "value"),
    [*((kind, math.nan) for kind in ONLINE), ("rloo", math.inf), ("a2c", -math.inf), ("grpo", 3e38)],
)
def test_a_reward_that_is_no_number_stops_the_run_and_names_its_prompt(kind: str, value: float, world: World) -> None:
    settings, stage = settings_of(kind, world), world.stage("run", lora=True, seconds=0)
    reward = TurningReward(lambda i: value if i == 1 else 0.0)
    with pytest.raises(TrainingError, match=rf"reward of a response to prompt '[a-d0-3]' is {re.escape(str(value))}"):
        world.train(kind, stage, reward, **settings)
    check_the_checkpoint(stage, lambda again: world.train(kind, again, LetterReward(), **settings), world)


def trainers() -> dict[str, Callable[[World, ComponentStage], object]]:
    """Whatever trains: each installed algorithm, the supervised baseline and the reward model."""

    def improve(kind: str) -> Callable[[World, ComponentStage], object]:
        return lambda world, stage: world.train(
            kind, stage, TurningReward(float), labels_of(world), **settings_of(kind, world)
        )

    def supervise(world: World, stage: ComponentStage) -> None:
        demonstrations = [(p, "my dog") for p in world.prompts]
        fine_tune(stage.context, stage, world.model, demonstrations, SftConfig(lr=1e-3, batch_size=2, epochs=2))

    def fit(world: World, stage: ComponentStage) -> None:
        settings = {"kind": "bradley-terry", "batch_size": 2, "epochs": 2, "lr": 1e-3}
        config = narrow("reward", settings, world.manager)
        stage.context.build_reward(config).fit(labels_of(world), world.model, stage)

    return {
        **{kind: improve(kind) for kind in ALGORITHMS if kind not in UNTRAINED},
        "sft": supervise,
        "bradley-terry": fit,
    }


@pytest.mark.parametrize("name", trainers())
def test_a_gradient_that_is_not_finite_stops_the_run(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third step's overflow is told with stage, step and update, before the optimiser has taken it."""
    world.prompts = [Prompt(str(i), f"POST: {word} ate it\n\nTL;DR:", word) for i, word in enumerate("abcd")]
    stage, train = world.stage("run", lora=True, seconds=0), trainers()[name]
    backward = stage.context.accelerator.backward

    def overflow(loss: torch.Tensor) -> None:
        backward(loss * (math.inf if len(read_metrics(stage.folder)) == 2 else 1.0))

    monkeypatch.setattr(stage.context.accelerator, "backward", overflow)
    with pytest.raises(TrainingError, match=r"stage 'improve', step 3 of 4, update 1 \(.*\): .*_grad_norm not finite"):
        train(world, stage)
    check_the_checkpoint(stage, lambda again: train(world, again), world)


def test_the_kl_controller_raises_beta_when_the_policy_runs_away(world: World) -> None:
    settings = {"steps": 12, "prompts_per_step": 1, "responses_per_prompt": 8, "lr": 0.01, "beta": 0.01}
    rows = read_metrics(world.train("rloo", world.stage("run"), **settings, kl_target=1e-3, kl_horizon=16))
    betas = [row["beta"] for row in rows]
    assert betas[0] == 0.01
    assert betas[-1] > betas[1]


class Terms(LetterReward):
    def score_terms(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, list[float]]:
        return {"letter": self.score(prompts, responses), "length": [-0.1 * len(r) for r in responses]}


def test_every_step_logs_what_is_needed_to_trust_it(world: World) -> None:
    settings = {"steps": 2, "prompts_per_step": 1, "responses_per_prompt": 4, "epochs": 2}
    folder = world.train("ppo", world.stage("run"), Terms(), **settings)
    row = read_metrics(folder)[-1]
    assert {
        "reward", "reward/letter", "reward/length", "objective", "kl_k1", "kl_k3", "entropy", "ratio", "clip_fraction",
        "explained_variance", "value_loss", "tokens", "eos_rate", "beta", "policy_grad_norm", "value_grad_norm",
    } <= set(row)  # fmt: skip
    assert row["reward"] == pytest.approx(row["reward/letter"] + row["reward/length"], abs=1e-5)
    samples = [json.loads(line) for line in (folder / "samples/step-00001.jsonl").read_text().splitlines()]
    assert len(samples) == 4


def test_the_watch_keeps_the_best_checkpoint_by_judge_among_the_highest_by_reward(world: World) -> None:
    reward = TasteReward(TasteRewardConfig(), world.stage("x").context)
    watch = {"every": 2, "prompts": 6, "judge": "test/taste", "candidates": 2}
    settings = {"steps": 8, "prompts_per_step": 2, "responses_per_prompt": 4, "lr": 3e-3, "checkpoint_selection": watch}
    stage = world.stage("run")
    reported: list[float] = []
    stage.report_step = lambda _, metrics: reported.extend(v for k, v in metrics.items() if k == "validation/kl")
    folder = world.train("rloo", stage, reward, **settings)
    looks = [json.loads(line) for line in (folder / "checkpoint_selection.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [2, 4, 6, 8]
    assert looks[-1]["kl"]["value"] > looks[0]["kl"]["value"] > 0
    assert reported == [look["kl"]["value"] for look in looks]
    highest = sorted(looks, key=lambda look: -look["reward"]["value"])[:2]
    best = max(highest, key=lambda look: (look["wins"]["rate"]["value"], look["reward"]["value"]))
    assert stage.facts["selected_step"] == best["step"]
    # What was saved answers the watched prompts with the reward that was noted for it.
    tokenizer, model = load_tokenizer(folder), load_model(folder, "causal", torch.float32, CPU)
    from rlaif_framework.rl.checkpoint_selection import CheckpointSelector

    config: Any = narrow("algorithm", {"kind": "rloo", **settings}, world.manager)
    again = world.stage("again")
    learner = OnlineLearner(config, again.context, again, world.model)
    watched = CheckpointSelector(config.checkpoint_selection, learner, reward)
    texts = [
        stage.context.task.clean(s.text)
        for s in sample_responses(
            model, tokenizer, [p.text for p in watched.prompts], max_new_tokens=6, temperature=0.0, seed=0
        )
    ]
    mean = sum(10 * taste(text, "e") for text in texts) / len(texts)
    assert mean == pytest.approx(best["reward"]["value"], abs=1e-4)


def test_the_watch_stops_a_run_that_gets_no_better(world: World) -> None:
    class Fixed(LetterReward):
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
            return [1.0] * len(responses)

    settings = {
        "steps": 20,
        "prompts_per_step": 1,
        "responses_per_prompt": 2,
        "checkpoint_selection": {"every": 1, "patience": 2},
    }
    folder = world.train("rloo", world.stage("run"), Fixed(), **settings)
    assert len(read_metrics(folder)) == 3


@pytest.mark.parametrize("kind", ["best-of-n", "rejection-sampling"])
def test_best_of_n_answers_with_what_the_reward_likes_best(kind: str, world: World) -> None:
    from rlaif_plugins.algorithms.best_of_n.algorithm import select_best

    config = narrow("algorithm", {"kind": kind, "n": 8}, world.manager)
    stage = world.stage("run", lora=True)
    reward = TasteReward(TasteRewardConfig(), stage.context)
    best = select_best(stage.context, world.model, reward, world.prompts, config, stage)  # type: ignore[arg-type]
    tokenizer, model = load_tokenizer(world.model), load_model(world.model, "causal", torch.float32, CPU)
    tokenizer.chat_template = None
    samples = sample_responses(
        model,
        tokenizer,
        [world.prompts[0].text] * 8,
        max_new_tokens=6,
        temperature=0.9,
        seed=stage.seed("best of n"),
    )
    assert best[0][1] == max(10 * taste(stage.context.task.clean(s.text), "e") for s in samples)
    world.train(kind, stage, reward, n=8)
    assert load_model(stage.folder, "causal", torch.float32, CPU) is not None


def test_gradient_checkpointing_changes_memory_and_nothing_else(world: World) -> None:
    settings = {"steps": 2, "prompts_per_step": 1, "responses_per_prompt": 3, "lr": 1e-3}
    plain = world.train("a2c", world.stage("plain", lora=True), **settings)
    checkpointed = world.train("a2c", world.stage("checkpointed", lora=True, gradient_checkpointing=True), **settings)
    for one, other in zip(read_metrics(plain), read_metrics(checkpointed), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_the_reference_may_be_kept_in_bf16(world: World) -> None:
    settings = {"steps": 1, "prompts_per_step": 1, "responses_per_prompt": 4, "reference_dtype": "bf16"}
    (row,) = read_metrics(world.train("rloo", world.stage("run"), **settings))
    assert 0 < row["kl_k3"] < 0.1  # what the rounding costs, and no more
