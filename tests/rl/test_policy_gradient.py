"""A whole step of every policy-gradient algorithm against plain loops over a float64 copy of its models."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlaif_framework import PluginManager, Prompt, Sample, Spec
from rlaif_framework.metrics.response_metrics import measure_sample
from rlaif_framework.models import load_model, load_tokenizer
from rlaif_framework.models.chat import encode_text
from rlaif_framework.models.packing import Group
from rlaif_framework.rl import Experience, OnlineLearner, Rollout
from rlaif_framework.rl.experience import Targets
from rlaif_framework.rl.policy_gradient import _Trainer
from support.world import World

CPU = torch.device("cpu")
TEMPERATURE = 0.8
BETA = 0.3
POSTS = ["my dog ate it", "we met at noon and he saw them again", "no"]
PROMPTS = [Prompt(str(i), f"POST: {text}\n\nTL;DR:", text) for i, text in enumerate(POSTS)]
END = 2
RESPONSES = [
    [[40, 41, END], [42, 300, 301, 44, 45, 46]],  # the second has no end token
    [[45, END], [50, 51, 310, END]],
    [[55, 52, 53, 54, END], [END]],  # an empty response is one token, and its first is its last
]
FINISHED = [[ids[-1] == END for ids in own] for own in RESPONSES]
REWARDS = [[1.0, -0.5], [2.0, 0.7], [-1.2, 0.4]]
Rows = list[list[list[float]]]
"""A number a token: prompts, responses, tokens."""
PLACES = [(i, j) for i in range(3) for j in range(2)]


@pytest.fixture
def world(tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path, tmp_path: Path) -> World:
    return World(tiny_spec, manager, tiny_model, tmp_path, prompts=PROMPTS)


class FixedReward:
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        return [reward for own in REWARDS for reward in own]


def fixed_rollout(tokenizer: Any) -> Rollout:
    samples = [Sample(list(RESPONSES[i][j]), f"{i}{j}", FINISHED[i][j]) for i, j in PLACES]
    groups = [Group(encode_text(tokenizer, p.text), own) for p, own in zip(PROMPTS, RESPONSES, strict=True)]
    prompts, metrics = [PROMPTS[i] for i, _ in PLACES], [measure_sample(s, s.text) for s in samples]
    return Rollout(prompts, samples, [s.text for s in samples], groups, metrics)


def perturb(modules: Mapping[str, nn.Module], seed: int) -> None:
    """Move what is trained, so that neither ratios nor KL terms nor values are trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in modules.values():
            for parameter in (p for p in module.parameters() if p.requires_grad):
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.device), alpha=0.05)


@dataclass
class Update:
    """What one update of the trainer had and did."""

    modules: dict[str, nn.Module]
    """Copies in float64 of what was trained, as it was."""
    gradients: dict[str, Tensor]
    metrics: dict[str, float]


@dataclass
class Recorded:
    """A step of the trainer: its updates, and what it weighed, by prompt and response."""

    reference: nn.Module
    updates: list[Update] = field(default_factory=list)
    rewards: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    experience: dict[tuple[int, int], dict[str, list[float]]] = field(default_factory=dict)
    aims: dict[tuple[int, int], dict[str, list[float]]] = field(default_factory=dict)


def find_prompt(scores: Sequence[float], shaped: list[list[float]]) -> int:
    """The prompt whose responses have these scores: the trainer may have batched prompts in any order."""
    (found,) = [i for i, own in enumerate(shaped) if list(scores) == pytest.approx(own, abs=1e-5)]
    return found


def record(
    kind: str, world: World, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], lora: bool, **policy: Any
) -> Recorded:
    """Run one step from a perturbed policy, perturbed again after each update, and keep all there is to see."""
    tokenizer = load_tokenizer(world.model)
    recorded = Recorded(load_model(world.model, "causal", torch.float64, CPU))
    shaped = shape_scores(options)
    monkeypatch.setattr(OnlineLearner, "sample", lambda self, pool, number: fixed_rollout(tokenizer))
    aim = _Trainer._build_targets

    def by_response(experience: Experience, columns: dict[str, Tensor | None]) -> Iterator[Any]:
        for row, scores in enumerate(experience.scores.tolist()):
            i = find_prompt(scores, shaped)
            for j in range(2):
                tokens = experience.response_index == 2 * row + j
                yield (i, j), {name: x[tokens].tolist() for name, x in columns.items() if x is not None}

    def recording_aim(self: Any, experience: Experience) -> Targets:
        compute_advantages = self.algorithm.compute_advantages

        def recording_weigh(rewards: Tensor, experience: Experience) -> Any:
            recorded.rewards |= {p: x["r"] for p, x in by_response(experience, {"r": rewards})}
            return compute_advantages(rewards, experience)

        self.algorithm.compute_advantages = recording_weigh
        targets = aim(self, experience)
        self.algorithm.compute_advantages = compute_advantages
        x = experience
        columns = {"logprobs": x.logprobs, "reference": x.reference, "values": x.values}
        recorded.experience |= dict(by_response(experience, columns))
        returns = None if targets.values is None else targets.values.returns
        recorded.aims |= dict(by_response(experience, {"advantages": targets.advantages, "returns": returns}))
        return targets

    monkeypatch.setattr(_Trainer, "_build_targets", recording_aim)

    def one_step(
        stage: Any, modules: Mapping[str, nn.Module], optimizer: Any, steps: int, step: Any, **rest: Any
    ) -> None:
        perturb(modules, 1)
        for number, metrics in enumerate(step(0), 2):
            copies = {name: copy.deepcopy(module).cpu().double().eval() for name, module in modules.items()}
            gradients = {
                f"{name}/{key}": p.grad.to(CPU, copy=True)
                for name, module in modules.items()
                for key, p in module.named_parameters()
                if p.grad is not None
            }
            recorded.updates.append(Update(copies, gradients, dict(metrics)))
            optimizer.zero_grad()
            if options.get("minibatches", 1) == 1:
                perturb(modules, number)

    monkeypatch.setattr("rlaif_framework.rl.learner.train_steps", one_step)
    settings = {"alarm": "off", "temperature": TEMPERATURE, "prompts_per_step": 3, "responses_per_prompt": 2, **options}
    world.train(kind, world.stage("run", lora=lora, **policy), FixedReward(), **settings)
    return recorded


# What follows knows no packing, no flat tensors and none of the framework's functions.


def shape_scores(options: dict[str, Any]) -> list[list[float]]:
    """Rewards scaled, penalised and weighted, in that order."""
    flat = [reward for own in REWARDS for reward in own]
    mean = sum(flat) / 6
    spread = math.sqrt(sum((x - mean) ** 2 for x in flat) / 6) if options.get("scale_rewards") else 1.0
    shaped = [[reward / spread for reward in own] for own in REWARDS]
    for i, j in PLACES:
        if not FINISHED[i][j]:
            shaped[i][j] -= options.get("missing_eos_penalty", 0.0)
            if options.get("missing_eos_reward") is not None:
                shaped[i][j] = options["missing_eos_reward"]
        if options["objective"] == "weighted":
            shaped[i][j] *= 1 - options["beta"]
    return shaped


def read_tokens(policy: nn.Module, value: Any, tokenizer: Any) -> Any:
    """Log-probabilities, entropies and values of each response's tokens, one sequence after another."""
    logprobs: Any = [[None] * 2 for _ in range(3)]
    entropies, values = copy.deepcopy(logprobs), copy.deepcopy(logprobs)
    for i, j in PLACES:
        prompt = encode_text(tokenizer, PROMPTS[i].text)
        ids = torch.tensor([prompt + RESPONSES[i][j]])
        rows = (policy(ids).logits[0, len(prompt) - 1 : -1] / TEMPERATURE).log_softmax(1)
        logprobs[i][j] = torch.stack([row[token] for row, token in zip(rows, RESPONSES[i][j], strict=True)])
        entropies[i][j] = -(rows.exp() * rows).sum(1)
        if value is not None:
            inner = value.scores._inner[0]
            hidden = inner.base_model(ids).last_hidden_state[0, len(prompt) - 1 : -1]
            values[i][j] = inner.score(hidden).squeeze(1) + value.offset
    return logprobs, entropies, values


def numbers(rows: Any) -> Rows:
    return [[own.tolist() for own in pair] for pair in rows]


def whitened(rows: Rows, shift: bool) -> Rows:
    """Over all tokens of all responses of the rollout."""
    flat = [x for i, j in PLACES for x in rows[i][j]]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in flat) / (len(flat) - 1))
    return [[[(x - mean) / deviation + (0 if shift else mean) for x in own] for own in pair] for pair in rows]


def token_rewards(options: dict[str, Any], logprobs: Rows, reference: Rows) -> Rows:
    rewards: Rows = [[[], []] for _ in range(3)]
    shaped = shape_scores(options)
    for i, j in PLACES:
        for t in range(len(RESPONSES[i][j])):
            reward = shaped[i][j] if t == len(RESPONSES[i][j]) - 1 else 0.0
            difference = logprobs[i][j][t] - reference[i][j][t]
            kl = {"k1": difference, "k2": difference**2 / 2, "k3": math.exp(-difference) - 1 + difference}
            if options["kl"] == "reward":
                reward -= options["beta"] * kl[options["kl_estimator"]]
            rewards[i][j].append(reward)
    return whitened(rewards, shift=False) if options.get("whiten_rewards") else rewards


def aim(kind: str, options: dict[str, Any], rewards: Rows, values: Rows | None) -> tuple[Rows, Rows | None]:
    """Advantages and returns, each from its definition."""
    advantages: Rows = [[[], []] for _ in range(3)]
    returns: Rows = [[[], []] for _ in range(3)]
    gamma, lam = options.get("gamma", 1.0), options.get("lam", 1.0)
    for i, j in PLACES:
        own, other = rewards[i][j], rewards[i][1 - j]
        if values is None:
            one = sum(own) - sum(other)
            if kind == "grpo":
                mean = (sum(own) + sum(other)) / 2
                deviation = math.sqrt((sum(own) - mean) ** 2 + (sum(other) - mean) ** 2)  # of two: n - 1 is 1
                one = (sum(own) - mean) / (deviation + 1e-4 if options["scale_groups"] else 1.0)
            advantages[i][j] = [one] * len(own)
            continue
        v = [*values[i][j], 0.0]
        for t in range(len(own)):
            if kind == "reinforce":
                returns[i][j].append(sum(gamma ** (k - t) * own[k] for k in range(t, len(own))))
                advantages[i][j].append(returns[i][j][t] - v[t])
            else:
                errors = [own[k] + gamma * v[k + 1] - v[k] for k in range(len(own))]
                advantages[i][j].append(sum((gamma * lam) ** (k - t) * errors[k] for k in range(t, len(own))))
                returns[i][j].append(advantages[i][j][t] + v[t])
    if options.get("whiten_advantages"):
        advantages = whitened(advantages, shift=True)
    return advantages, None if values is None else returns


def clipped_loss(ratio: Tensor, advantage: float, clip: float | None) -> Tensor:
    if clip is None:
        return -ratio * advantage
    bounded = min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip))  # plain comparisons
    return -min(ratio * advantage, bounded * advantage)


def value_error(value: Tensor, old: float, target: float, clip: float | None) -> Tensor:
    error = (value - target) ** 2
    if clip is None or abs(float(value.detach()) - old) < clip:
        return error
    edge = old + clip if value > old else old - clip
    return max(error, torch.tensor((edge - target) ** 2))  # at the edge nothing flows


def loss(
    kind: str, options: dict[str, Any], now: Any, old: Rows, reference: Rows, old_values: Rows, aims: Any, chosen: Any
) -> Tensor:
    """The loss of some prompts' responses, which PyTorch differentiates for us."""
    logprobs, entropies, values = now
    advantages, returns = aims
    picked = [(i, j) for i, j in PLACES if i in chosen]
    tokens = sum(len(RESPONSES[i][j]) for i, j in picked)
    clip, total = options.get("clip"), torch.zeros((), dtype=torch.float64)
    for i, j in picked:
        size = len(RESPONSES[i][j])
        weight = {"responses": 1 / len(picked), "response-tokens": 1 / len(picked) / size, "tokens": 1 / tokens}
        terms = torch.zeros((), dtype=torch.float64)
        if kind == "rloo":  # the whole response is one action
            ratio = (logprobs[i][j].sum() - sum(old[i][j])).exp()
            terms = terms + clipped_loss(ratio, advantages[i][j][0], clip)
        for t in range(size):
            ratio = (logprobs[i][j][t] - old[i][j][t]).exp()
            if kind != "rloo":
                terms = terms + clipped_loss(ratio, advantages[i][j][t], clip)
            if options["kl"] == "loss":
                difference = logprobs[i][j][t] - reference[i][j][t]
                kl = {"k2": difference**2 / 2, "k3": (-difference).exp() - 1 + difference}[options["kl_estimator"]]
                terms = terms + options["beta"] * (kl * ratio if options.get("kl_correction") else kl)
            terms = terms - options.get("entropy", 0.0) * entropies[i][j][t]
            if returns is not None:
                error = value_error(values[i][j][t], old_values[i][j][t], returns[i][j][t], options.get("value_clip"))
                terms = terms + options["value_weight"] * error
        total = total + weight[options["average"]] * terms
    return total


COMMON = {"beta": BETA, "kl": "reward", "kl_estimator": "k1", "average": "responses"}
WEIGHTED, PENALISED = {**COMMON, "objective": "weighted"}, {**COMMON, "objective": "penalised"}
VALUED = {"value_weight": 1.0, "gamma": 1.0}
PPO = {
    **PENALISED, "average": "tokens", "epochs": 2, "clip": 0.2, "value_clip": 0.2, "value_weight": 0.05, "gamma": 1.0,
    "lam": 0.95, "whiten_advantages": True,
}  # fmt: skip
GRPO = {
    **PENALISED, "kl": "loss", "kl_estimator": "k3", "average": "response-tokens", "clip": 0.2, "scale_groups": True,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("reinforce", {**WEIGHTED, **VALUED}),
    "reinforce, discounted and penalised": (
        "reinforce",
        {**WEIGHTED, **VALUED, "gamma": 0.9, "missing_eos_penalty": 1.0, "average": "tokens"},
    ),
    "reinforce, whitened": (
        "reinforce",
        {**WEIGHTED, **VALUED, "whiten_rewards": True, "whiten_advantages": True, "missing_eos_reward": -3.0},
    ),
    "reinforce, leave-one-out": ("reinforce", {**WEIGHTED, "baseline": "leave-one-out"}),
    "reinforce, k2 in the loss": (
        "reinforce",
        {**WEIGHTED, "baseline": "leave-one-out", "kl": "loss", "kl_estimator": "k2"},
    ),
    "a2c": ("a2c", {**PENALISED, **VALUED}),
    "a2c, lambda and entropy": (
        "a2c",
        {**PENALISED, **VALUED, "gamma": 0.95, "lam": 0.8, "entropy": 0.1, "kl_estimator": "k3"},
    ),
    "ppo": ("ppo", {**PPO, "missing_eos_reward": -1.0}),
    "ppo, rewards whitened": ("ppo", {**PPO, "whiten_rewards": True, "missing_eos_penalty": 1.0, "gamma": 0.9}),
    "rloo": ("rloo", {**PENALISED, "clip": 0.2}),
    "rloo, scaled": (
        "rloo",
        {**WEIGHTED, "clip": 0.2, "epochs": 2, "scale_rewards": True, "missing_eos_penalty": 1.0, "kl_estimator": "k2"},
    ),
    "grpo": ("grpo", GRPO),
    "grpo, several updates": ("grpo", {**GRPO, "epochs": 2, "kl_correction": True}),
    "grpo, KL in the reward": (
        "grpo",
        {**GRPO, **WEIGHTED, "scale_groups": False, "average": "tokens", "missing_eos_reward": -1.0},
    ),
}


def differentiate(
    kind: str,
    options: dict[str, Any],
    update: Update,
    tokenizer: Any,
    old: Rows,
    reference: Rows,
    values: Rows | None,
    advantages: Rows,
    returns: Rows | None,
    chosen: Sequence[int],
) -> tuple[float, dict[str, Tensor]]:
    """The loss of some prompts with the models of an update, and its gradients."""
    now = read_tokens(update.modules["policy"], update.modules.get("value"), tokenizer)
    total = loss(kind, options, now, old, reference, values or [], (advantages, returns), chosen)
    named = {
        f"{name}/{key}": p
        for name, module in update.modules.items()
        for key, p in module.named_parameters()
        if p.requires_grad
    }
    gradients = torch.autograd.grad(total, list(named.values()))
    return total.item(), dict(zip(named, gradients, strict=True))


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return sum(float((ours[name] - gradient).square().sum()) for name, gradient in theirs.items())


def check(kind: str, options: dict[str, Any], recorded: Recorded, tokenizer: Any) -> None:
    """Token by token where rewards, advantages and returns lie, then losses and gradients of every update."""
    with torch.no_grad():
        reference = numbers(read_tokens(recorded.reference, None, tokenizer)[0])
        first = recorded.updates[0].modules
        logprobs, _, states = read_tokens(first["policy"], first.get("value"), tokenizer)
    old, values = numbers(logprobs), numbers(states) if "value" in first else None
    near: dict[str, Any] = {"rel": 1e-4, "abs": 1e-4}
    rewards = token_rewards(options, old, reference)
    advantages, returns = aim(kind, options, rewards, values)
    assert recorded.rewards.keys() == set(PLACES)
    for i, j in PLACES:
        seen = recorded.experience[i, j]
        assert seen["logprobs"] == pytest.approx(old[i][j], **near)
        assert seen["reference"] == pytest.approx(reference[i][j], **near)
        assert recorded.rewards[i, j] == pytest.approx(rewards[i][j], **near), f"rewards of response {j} to {i}"
        assert recorded.aims[i, j]["advantages"] == pytest.approx(advantages[i][j], **near)
        if values is not None and returns is not None:
            assert seen["values"] == pytest.approx(values[i][j], **near)
            assert recorded.aims[i, j]["returns"] == pytest.approx(returns[i][j], **near)
    assert len(recorded.updates) == options.get("epochs", 1) * options.get("minibatches", 1)
    left = [[i] for i in range(3)] if options.get("minibatches", 1) > 1 else [[0, 1, 2]]
    for update in recorded.updates:
        trials = [
            differentiate(kind, options, update, tokenizer, old, reference, values, advantages, returns, some)
            for some in left
        ]
        closest = min(range(len(left)), key=lambda k: distance(update.gradients, trials[k][1]))
        total, expected = trials[closest]
        assert update.metrics["loss"] == pytest.approx(total, rel=1e-4, abs=1e-5)
        largest = max(float(g.abs().max()) for g in expected.values())
        assert largest > 1e-3
        for name, gradient in expected.items():
            torch.testing.assert_close(
                update.gradients[name].double(), gradient, rtol=1e-3, atol=1e-4 * max(1.0, largest), msg=name
            )
        if len(left) > 1:
            left.pop(closest)  # each prompt's turn comes once, in an order of the trainer's


@pytest.mark.parametrize("name", CASES)
def test_a_step_equals_loops_over_its_definition(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards on the last token, KL off each, returns, advantages, loss and gradient, of responses of 1 to 6 tokens."""
    kind, options = CASES[name]
    recorded = record(kind, world, monkeypatch, options, lora=False)
    check(kind, options, recorded, load_tokenizer(world.model))


@pytest.mark.parametrize("kind", ["ppo", "rloo", "grpo"])
def test_the_second_update_is_clipped_on_both_sides(kind: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above compares is not the flat part of everything: ratios leave the range above and below."""
    options = {"ppo": PPO, "grpo": {**GRPO, "epochs": 2}, "rloo": {**PENALISED, "clip": 0.2, "epochs": 2}}[kind]
    recorded = record(kind, world, monkeypatch, options, lora=False)
    check(kind, options, recorded, load_tokenizer(world.model))
    second = recorded.updates[1].modules
    with torch.no_grad():
        now, _, values = read_tokens(second["policy"], second.get("value"), load_tokenizer(world.model))
    above, below, changes = 0, 0, []
    for (i, j), seen in recorded.experience.items():
        log_ratios = (now[i][j] - torch.tensor(seen["logprobs"])).tolist()
        ratios = [math.exp(x) for x in ([sum(log_ratios)] if kind == "rloo" else log_ratios)]
        for ratio, advantage in zip(ratios, recorded.aims[i, j]["advantages"], strict=False):
            above += ratio > 1.2 and advantage > 0
            below += ratio < 0.8 and advantage < 0
        if kind == "ppo":
            changes += (values[i][j] - torch.tensor(seen["values"])).tolist()
    assert above > 0
    assert below > 0
    if kind == "ppo":
        assert max(changes) > 0.2
        assert min(changes) < -0.2
        clipped = recorded.updates[1].metrics["clip_fraction"]
        assert clipped == pytest.approx((above + below) / sum(len(ids) for own in RESPONSES for ids in own))


PACKINGS: dict[str, Callable[[Sequence[Group]], Sequence[Group]]] = {
    "prompts shared": lambda groups: groups,
    "one response a row": lambda groups: [Group(g.prompt, [ids]) for g in groups for ids in g.responses],
}


@pytest.mark.parametrize("budget", [2048, 64])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", ["reinforce", "rloo"])
def test_packing_and_batching_change_nothing(
    kind: str, packing: str, budget: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows shared or not, one pass or two unequal ones: rewards lie on the same tokens, gradients are the same."""
    batches = []

    def choose_rows(groups: Sequence[Group]) -> Sequence[Group]:
        batches.append(len(groups))
        return PACKINGS[packing](groups)

    monkeypatch.setattr("rlaif_framework.rl.learner.choose_rows", choose_rows)
    name, options = CASES[kind]
    recorded = record(name, world, monkeypatch, options, lora=False, train_tokens=budget)
    assert set(batches) == ({3} if budget == 2048 else {1, 2}), "the budget does not divide the step as it should"
    check(name, options, recorded, load_tokenizer(world.model))


@pytest.mark.parametrize("kind", ["reinforce", "ppo", "rloo", "grpo"])
def test_minibatches_have_each_prompts_loss_once(kind: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets, whitening included, are the whole rollout's; each update's average is over its own responses."""
    name, options = CASES[kind]
    options = {**options, "epochs": 1, "minibatches": 3}
    recorded = record(name, world, monkeypatch, options, lora=False)
    check(name, options, recorded, load_tokenizer(world.model))


@pytest.mark.parametrize("kind", ["reinforce", "grpo"])
def test_a_step_of_adapters_equals_the_same_loops(kind: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options = CASES[kind]
    recorded = record(name, world, monkeypatch, options, lora=True)
    check(name, options, recorded, load_tokenizer(world.model))


@pytest.mark.parametrize("kind", ["reinforce", "ppo", "rloo", "grpo"])
def test_logged_numbers_are_those_of_the_rollout(kind: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options = CASES[kind]
    options = {**options, "epochs": 1}
    recorded = record(name, world, monkeypatch, options, lora=False)
    row, shaped = recorded.updates[0].metrics, shape_scores(options)
    seen = recorded.experience
    differences = [
        [p - q for p, q in zip(x["logprobs"], x["reference"], strict=True)] for x in (seen[place] for place in PLACES)
    ]
    tokens = [x for own in differences for x in own]
    near: dict[str, Any] = {"rel": 1e-4, "abs": 1e-5}
    assert row["kl_k1"] == pytest.approx(sum(tokens) / 6, **near)
    assert row["kl_k2"] == pytest.approx(sum(x**2 / 2 for x in tokens) / 6, **near)
    assert row["kl_k3"] == pytest.approx(sum(math.exp(-x) - 1 + x for x in tokens) / 6, **near)
    assert row["reward"] == pytest.approx(sum(map(sum, REWARDS)) / 6, **near)
    assert row["objective"] == pytest.approx(sum(map(sum, shaped)) / 6 - BETA * sum(tokens) / 6, **near)
    assert row["entropy"] == pytest.approx(-sum(x for p in PLACES for x in seen[p]["logprobs"]) / len(tokens), **near)
    assert row["eos_rate"] == pytest.approx(5 / 6)
    assert row["tokens"] == pytest.approx(len(tokens) / 6)
    assert row["ratio"] == pytest.approx(1)
    assert row["clip_fraction"] == 0
    advantages = [x for place in PLACES for x in recorded.aims[place]["advantages"]]
    mean = sum(advantages) / len(tokens)
    spread = sum((x - mean) ** 2 for x in advantages) / len(tokens)
    assert row["advantage_std"] == pytest.approx(spread**0.5, **near)
    if "values" in seen[0, 0]:
        returns = [x for place in PLACES for x in recorded.aims[place]["returns"]]
        errors = [r - v for r, v in zip(returns, (x for p in PLACES for x in seen[p]["values"]), strict=True)]
        average, bias = sum(returns) / len(tokens), sum(errors) / len(tokens)
        variance = sum((r - average) ** 2 for r in returns)
        unexplained = sum((e - bias) ** 2 for e in errors)
        assert row["explained_variance"] == pytest.approx(1 - unexplained / variance, rel=1e-3)


def test_a_reference_in_bf16_is_off_by_its_rounding_and_the_policy_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = record("rloo", world, monkeypatch, CASES["rloo"][1], lora=False)
    monkeypatch.undo()
    rounded = record("rloo", world, monkeypatch, {**CASES["rloo"][1], "reference_dtype": "bf16"}, lora=False)
    for place in PLACES:
        one, other = exact.experience[place], rounded.experience[place]
        assert one["logprobs"] == other["logprobs"]
        assert one["reference"] == pytest.approx(other["reference"], abs=0.1)  # 8 bits of logits of about 4
    differences = [
        abs(p - q)
        for place in PLACES
        for p, q in zip(exact.experience[place]["reference"], rounded.experience[place]["reference"], strict=True)
    ]
    assert max(differences) > 1e-4, "the reference was not in bf16"
    # The KL is that from the rounded reference, token by token, and so are the rewards.
    for i, j in PLACES:
        seen = rounded.experience[i, j]
        kl = [p - q for p, q in zip(seen["logprobs"], seen["reference"], strict=True)]
        expected = [-BETA * x for x in kl]
        expected[-1] += REWARDS[i][j]
        assert rounded.rewards[i, j] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("values", [[3.0], [1000.0, 1000.1, 999.9, 1000.2], [0.0, 0.0]], ids=str)
def test_moments_are_exact_and_finite(values: list[float]) -> None:
    alone = SimpleNamespace(learner=SimpleNamespace(accelerator=SimpleNamespace(reduce=lambda sums, reduction: sums)))
    mean, variance = _Trainer._moments(alone, torch.tensor(values))  # type: ignore[arg-type]
    exact = torch.tensor(values).double()
    assert float(mean) == pytest.approx(float(exact.mean()))
    assert float(variance) == pytest.approx(float(exact.var()) if len(values) > 1 else 0.0, rel=1e-6, abs=1e-12)
