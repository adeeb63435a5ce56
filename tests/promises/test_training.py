"""What settings promise of training: dropout off, recomputed activations, start levels, epochs, checked scores."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif_framework import (
    Comparison,
    DataError,
    Evidence,
    Guidance,
    LabelledComparison,
    ModelLoad,
    PluginManager,
    Preference,
    Prompt,
    RlaifError,
    Spec,
    TrainingError,
)
from rlaif_framework.contracts import read_metrics
from rlaif_framework.contracts.checked import check_returns
from rlaif_framework.models import Group, ScoreModel, encode_continuation, load_model, load_tokenizer, pack_groups
from rlaif_framework.models.memory_plan import plan_load
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.records import read_rows
from rlaif_framework.rl import Experience, ValueLearner, clipped_surrogate, delay_scores, gae
from rlaif_framework.rl import learner as rl_learner
from rlaif_framework.rl.diagnostics import finish_metrics
from rlaif_framework.rl.policy_gradient import _Trainer
from rlaif_framework.spec.model import SftConfig
from rlaif_framework.training import fine_tune, fine_tuning, group_by_prompt
from rlaif_framework.training.loop import accumulate, local_shard
from support.world import LetterReward, World

CPU = torch.device("cpu")
PROMPTS = [Prompt(str(i), f"POST: {text}\n\nTL;DR:", text) for i, text in enumerate(["a dog", "noon", "rain", "tea"])]
RESPONSES = ["the dog is here", "noon", "it rains", "tea for two"]


def labels(per_prompt: int = 1) -> list[LabelledComparison]:
    return [
        LabelledComparison(Comparison(f"{p.id}-{i}", p, (RESPONSES[i], RESPONSES[i + 1])), (0.8, 0.2))
        for p in PROMPTS
        for i in range(per_prompt)
    ]


def test_dropout_of_every_kind_is_off(tiny_model: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.config.attention_dropout = 0.5  # by a function in the attention, not by a module
    model.save_pretrained(tmp_path)
    load_tokenizer(tiny_model).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, "causal", torch.float32, CPU).train()
    ids = torch.arange(3, 40)[None]
    assert torch.equal(loaded(ids).logits, loaded(ids).logits), "two passes of one model differ"


# Gradient checkpointing


def bytes_kept(work: Callable[[], Any]) -> int:
    """Bytes that autograd keeps for backward passes, summed over a training."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return kept


ONE_STEP = {"steps": 1, "prompts_per_step": 1, "responses_per_prompt": 2}
TRAINERS: dict[str, Callable[[World, Any], Any]] = {
    "rloo": lambda world, stage: world.train("rloo", stage, **ONE_STEP),
    "a2c": lambda world, stage: world.train("a2c", stage, **ONE_STEP),
    "online-dpo": lambda world, stage: world.train("online-dpo", stage, **ONE_STEP),
    "dpo": lambda world, stage: world.train("dpo", stage, given=labels(), batch_size=4),
    "bradley-terry": lambda world, stage: fit_reward(world, stage, labels()),
    "sft": lambda world, stage: fine_tune(stage.context, stage, world.model, [(PROMPTS[0], "a dog")] * 2, SftConfig()),
}


def fit_reward(world: World, stage: Any, given: Sequence[LabelledComparison], **settings: Any) -> Path:
    config = narrow("reward", {"kind": "bradley-terry", **settings}, world.manager)
    stage.context.build_reward(config).fit(given, world.model, stage)
    return Path(stage.folder)


@pytest.mark.parametrize("name", TRAINERS)
def test_checkpointed_gradients_keep_less_and_change_nothing(name: str, world: World) -> None:
    plain, checkpointed = world.stage("plain"), world.stage("checkpointed", gradient_checkpointing=True)
    one = bytes_kept(lambda: TRAINERS[name](world, plain))
    other = bytes_kept(lambda: TRAINERS[name](world, checkpointed))
    assert other < 0.75 * one, f"{other} of {one} bytes: nothing is recomputed"
    for a, b in zip(read_metrics(plain.folder), read_metrics(checkpointed.folder), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def test_a_value_model_recomputes_too(world: World) -> None:
    def kept(**policy: Any) -> int:
        stage = world.stage(f"value-{len(policy)}", **policy)
        config: Any = narrow("algorithm", {"kind": "a2c"}, world.manager)
        learner = ValueLearner(config, stage.context, stage, world.model)
        rollout = learner.sample(world.prompts, 0)
        return bytes_kept(lambda: learner.predict_values(learner.pack(rollout.groups)))

    assert kept(gradient_checkpointing=True) < 0.75 * kept()


class CastCounter(TorchDispatchMode):
    """Counts how often a matrix of each shape is cast to bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.counts[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_for_all_passes_of_a_step(world: World) -> None:
    """Each of the 2 layers has one matrix (32, 64) and two (64, 32); the model is saved in fp32, without a cast."""
    stage = world.stage("run", dtype="bf16", train_tokens=64)
    with CastCounter() as casts:
        fit_reward(world, stage, labels(), epochs=1, batch_size=4)
    assert len(read_metrics(stage.folder)) == 1
    assert casts.counts[(32, 64)] == 2
    assert casts.counts[(64, 32)] == 4


def test_no_cast_outlives_an_update(world: World) -> None:
    def train(name: str) -> dict[str, torch.Tensor]:
        stage = world.stage(name, dtype="bf16", train_tokens=64)
        return load_file(fit_reward(world, stage, labels(3), epochs=3, batch_size=4, lr=1e-2) / "model.safetensors")

    expected = train("plain")
    left_open: Any = accumulate(world.stage("other").context.accelerator, [], [1, 2])
    next(left_open)  # as after an error in its loop, while the traceback is kept
    found = train("beside")
    left_open.close()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


# Policy gradients


@pytest.mark.parametrize("start", ["sft", "reward"])
def test_values_start_at_the_mean_reward_whatever_they_start_from(start: str, world: World) -> None:
    class Far(LetterReward):
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
            return [100.0 + i for i in range(len(responses))]

    reward = fit_reward(world, world.stage("reward"), labels(), head="normal")
    settings = {"steps": 1, "prompts_per_step": 1, "responses_per_prompt": 4, "objective": "penalised", "beta": 0}
    config = narrow("algorithm", {"kind": "a2c", "value_from": start, **settings}, world.manager)
    stage = world.stage("run")
    stage.context.build_algorithm(config).improve(world.model, Guidance(Far(), reward), world.prompts, stage)
    (row,) = read_metrics(stage.folder)
    # Advantages are returns, 100 to 103, less values: off by the spread of both, and not by the level of either.
    assert row["value_loss"] / row["tokens"] < 30


def test_a_ratio_that_overflows_leaves_no_nan_where_clipping_takes_it_away() -> None:
    log_ratios = torch.tensor([200.0, -200.0, 200.0, 0.0], requires_grad=True)
    losses = clipped_surrogate(log_ratios, torch.tensor([1.0, -1.0, 0.0, 2.0]), 0.2)
    losses[[0, 1, 3]].sum().backward()
    assert losses[:2].tolist() == pytest.approx([-1.2, 0.8])
    assert log_ratios.grad is not None
    assert log_ratios.grad[[0, 1, 3]].tolist() == pytest.approx([0, 0, -2])


@pytest.mark.parametrize("clip", [0.2, 1.5])
def test_clipping_is_that_of_the_paper(clip: float) -> None:
    log_ratios = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    advantages = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64)[None]
    ratios = log_ratios.exp()
    expected = -torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
    found = clipped_surrogate(log_ratios.expand_as(expected), advantages.expand_as(expected), clip)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_adaptive_kl_looks_at_all_minibatches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(_Trainer, "_adapt", lambda self, kl, target, responses: seen.append(kl))
    yielded: list[float] = []

    def note(metrics: dict[str, float], beta: float) -> dict[str, float]:
        yielded.append(metrics["kl_k1"])
        return finish_metrics(metrics, beta)

    monkeypatch.setattr("rlaif_framework.rl.policy_gradient.finish_metrics", note)
    world.prompts = PROMPTS
    settings = {"steps": 2, "prompts_per_step": 4, "responses_per_prompt": 1, "minibatches": 4, "lr": 1e-2}
    world.train("ppo", world.stage("run"), epochs=1, kl_target=0.1, **settings)
    assert len(set(yielded[4:])) > 1, "the minibatches are alike: the test shows nothing"
    assert seen[1] == pytest.approx(sum(yielded[4:]) / 4)


def test_what_a_missing_end_costs_is_a_term_of_the_log(world: World) -> None:
    settings = {"steps": 1, "prompts_per_step": 1, "responses_per_prompt": 8, "beta": 0, "objective": "penalised"}
    for name, changes in {"penalty": {"missing_eos_penalty": 2.0}, "instead": {"missing_eos_reward": -3.0}}.items():
        (row,) = read_metrics(world.train("rloo", world.stage(name), **settings, **changes))
        assert row["eos_rate"] < 1
        assert row["reward/missing_eos"] < 0
        assert row["objective"] == pytest.approx(row["reward"] + row["reward/missing_eos"], abs=1e-5)


# Online DPO


class Constant(LetterReward):
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        return [0.0] * len(responses)


def test_a_step_without_a_usable_pair_is_no_error(world: World) -> None:
    class Undecided:
        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            for comparison in comparisons:
                yield Preference(comparison.id, None, Evidence("undecided"))

    stage = world.stage("run")
    config = narrow("algorithm", {"kind": "online-dpo", **ONE_STEP}, world.manager)
    algorithm = stage.context.build_algorithm(config)
    algorithm.labeler = Undecided()  # type: ignore[attr-defined]
    algorithm.improve(world.model, Guidance(), world.prompts, stage)
    (row,) = read_metrics(stage.folder)
    assert row["labelled_fraction"] == 0
    assert row["loss"] == 0


def test_online_dpo_refuses_what_is_no_probability(world: World) -> None:
    class Wrong:
        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            for comparison in comparisons:
                yield Preference(comparison.id, (math.nan, math.nan), Evidence("wrong"))

    stage = world.stage("run")
    config = narrow("algorithm", {"kind": "online-dpo", **ONE_STEP}, world.manager)
    algorithm = stage.context.build_algorithm(config)
    algorithm.labeler = check_returns(Wrong, "labeler", "labeler 'wrong'")()  # type: ignore[attr-defined]
    with pytest.raises(RlaifError, match=r"labeler 'wrong', comparison .*: probabilities\.0 is nan"):
        algorithm.improve(world.model, Guidance(), world.prompts, stage)


def test_a_penalty_on_a_labelers_preferences_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="a labeler has none; remove them"):
        narrow("algorithm", {"kind": "online-dpo", "labeler": "length", "missing_eos_penalty": 1}, world.manager)


# Best of n


@pytest.mark.parametrize("score", [math.nan, -math.inf, 3e38], ids=str)
@pytest.mark.parametrize("kind", ["best-of-n", "rejection-sampling"])
def test_best_of_n_refuses_a_score_that_is_no_number_to_learn_from(kind: str, score: float, world: World) -> None:
    from rlaif_plugins.algorithms.best_of_n.algorithm import select_best

    class Broken(LetterReward):
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
            return [score, *([1.0] * (len(responses) - 1))]

    config = narrow("algorithm", {"kind": kind, "n": 4}, world.manager)
    stage = world.stage("run")
    with pytest.raises(TrainingError, match=rf"prompt 'p' is {re.escape(str(score))}"):
        select_best(stage.context, world.model, Broken(), world.prompts, config, stage)  # type: ignore[arg-type]


def test_best_of_n_prefers_responses_that_end(world: World) -> None:
    from rlaif_plugins.algorithms.best_of_n.algorithm import select_best

    def eos_rate(penalty: float) -> float:
        settings = {"kind": "best-of-n", "n": 64, "missing_eos_penalty": penalty}
        config, stage = narrow("algorithm", settings, world.manager), world.stage("run")
        best = select_best(stage.context, world.model, Constant(), PROMPTS, config, stage)  # type: ignore[arg-type]
        return sum(sample.finished for sample, _ in best) / len(best)

    assert eos_rate(1.0) > eos_rate(0.0)


# Reward models


@pytest.mark.parametrize(("per_prompt", "batch_size"), [(3, 2), (3, 4), (1, 3), (2, 8)])
def test_an_epoch_is_every_comparison_once(per_prompt: int, batch_size: int, world: World) -> None:
    given = labels(per_prompt)
    trainers = {
        "reward": lambda stage: fit_reward(world, stage, given, epochs=2, batch_size=batch_size),
        "dpo": lambda stage: world.train("dpo", stage, given=given, epochs=2, batch_size=batch_size),
    }
    for name, train in trainers.items():
        stage = world.stage(name)
        drawn: list[int] = []
        stage.report_step = lambda number, metrics, stage=stage, drawn=drawn: drawn.append(len(stage.batch))  # type: ignore[misc]
        train(stage)
        # Prompts drawn over all steps, to the nearest whole batch.
        assert abs(sum(drawn) - 2 * len(PROMPTS)) < drawn[0], name


def test_long_responses_are_cut_to_what_is_asked_for(tiny_model: Path, world: World) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = None
    (unit,) = group_by_prompt(labels()[:1], tokenizer, max_tokens=3)
    assert unit.group.responses[0] == encode_continuation(tokenizer, RESPONSES[0])[:3]
    folder = fit_reward(world, world.stage("run"), labels(), max_response_tokens=3, head="normal")
    config = narrow("reward", {"kind": "bradley-terry", "max_response_tokens": 3}, world.manager)
    scorer = world.stage("score").context.build_reward(config).load(folder)
    start = str(tokenizer.decode(encode_continuation(tokenizer, RESPONSES[0])[:3]))
    first, again = scorer.score([PROMPTS[0]] * 2, [RESPONSES[0], start + " and much more"])
    assert first == pytest.approx(again, abs=1e-5)


def test_a_tokenizer_with_no_special_token_but_its_end_gets_padding(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=load_tokenizer(tiny_model).backend_tokenizer, eos_token="<|im_end|>"
    )
    model = load_model(tiny_model, "causal", torch.float32, CPU)
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    start = AutoTokenizer.from_pretrained(tmp_path / "start")
    assert start.pad_token is None
    scores = ScoreModel.load(tmp_path / "start", start, torch.float32, CPU, head="normal")
    assert start.pad_token_id not in (None, start.eos_token_id)
    scores.save(start, tmp_path / "scores", torch.float32)
    again, words = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "scores"),
        AutoTokenizer.from_pretrained(tmp_path / "scores"),
    )
    texts = ["a dog<|im_end|>", "a very long story about a dog<|im_end|>"]
    with torch.no_grad():
        together = again(**words(texts, return_tensors="pt", padding=True)).logits
        alone = torch.cat([again(**words([text], return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# Optimisers


def test_adafactor_trains_and_resumes_to_the_same_weights(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_file(folder / "model.safetensors")

    settings = {"steps": 4, "prompts_per_step": 1, "responses_per_prompt": 4, "optimizer": "adafactor", "lr": 1e-2}
    whole = weights(world.train("rloo", world.stage("whole"), **settings))
    assert any(not torch.equal(a, b) for a, b in zip(whole.values(), weights(world.model).values(), strict=True))

    class Killed(LetterReward):
        calls = 0

        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
            self.calls += 1
            if self.calls == 3:
                raise DataError("killed")
            return super().score(prompts, responses)

    with pytest.raises(DataError, match=r"stage 'improve', step 3 of 4 .*killed"):
        world.train("rloo", world.stage("cut", seconds=0), Killed(), **settings)
    resumed = weights(world.train("rloo", world.stage("cut", seconds=0), **settings))
    assert all(torch.equal(a, b) for a, b in zip(whole.values(), resumed.values(), strict=True))


def test_the_memory_plan_knows_a_reward_models_own_adapters_and_optimiser(
    tiny_model: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    policy = tiny_spec().policy

    def planned(**settings: Any) -> Any:
        (load,) = narrow("reward", {"kind": "bradley-terry", **settings}, manager).loads(str(tiny_model))
        return plan_load(load, policy)

    adapters, everything = planned(), planned(lora=None)
    assert everything.memory_bytes == pytest.approx(16 * everything.parameters, rel=0.01)
    assert adapters.memory_bytes < everything.memory_bytes
    assert planned(lora=None, optimizer="adafactor").memory_bytes == pytest.approx(8 * everything.parameters, rel=0.01)
    reference = ModelLoad(str(tiny_model), "KL reference", shared=True)
    assert plan_load(reference, policy).memory_bytes == 0


# Values of finished responses


def test_a_deferred_score_is_gae_with_a_step_after_the_last_token() -> None:
    """Against the recursion over responses that are one step longer, as Huang et al. 2024 compute it."""
    lengths, gamma, lam = [3, 1, 4], 0.9, 0.8
    response_index = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    generator = torch.Generator().manual_seed(0)
    kl, values = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    scores, ends = (torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))
    rewards = kl.clone()
    rewards[[2, 3, 7]] += scores
    found = gae(delay_scores(rewards, scores, ends, response_index, gamma, lam), values, response_index, gamma, lam)
    expected, start = [], 0
    for i, length in enumerate(lengths):
        r = [*kl[start : start + length].tolist(), float(scores[i])]
        v = [*values[start : start + length].tolist(), float(ends[i]), 0.0]
        running, own = 0.0, []
        for t in reversed(range(length + 1)):
            running = r[t] + gamma * v[t + 1] - v[t] + gamma * lam * running
            own.append(running)
        expected += own[::-1][:length]
        start += length
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_finished_response_has_a_value_that_learns_its_score(world: World) -> None:
    world.prompts = PROMPTS
    settings: dict[str, Any] = {"steps": 1, "epochs": 1, "prompts_per_step": 2, "responses_per_prompt": 4}
    settings |= {"value_clip": None, "lam": 1.0}  # what the states before the end learn is then the same
    plain = world.train("ppo", world.stage("plain"), **settings)
    valued = world.train("ppo", world.stage("valued"), end_value=True, **settings)
    ((one,), (other,)) = (read_metrics(folder) for folder in (plain, valued))
    rewards = [row["reward"] for _, row in read_rows(valued / "samples" / "step-00001.jsonl")]
    level = sum(rewards) / 8  # a new value model says the same of all states
    tokens = 8 * other["tokens"]
    final = sum((level - reward) ** 2 for reward in rewards) / tokens
    assert final > 0
    assert other["value_loss"] - one["value_loss"] == pytest.approx(final, rel=1e-3)


@pytest.mark.parametrize("minibatches", [1, 2])
def test_end_values_change_nothing_with_lambda_1(minibatches: int, world: World) -> None:
    world.prompts = PROMPTS
    settings = {"steps": 1, "prompts_per_step": 2, "responses_per_prompt": 3, "minibatches": minibatches, "lam": 1.0}
    plain = read_metrics(world.train("ppo", world.stage("plain"), **settings))
    valued = read_metrics(world.train("ppo", world.stage("valued"), end_value=True, **settings))
    for key in ("policy_loss", "advantage_std", "policy_grad_norm"):
        assert plain[0][key] == pytest.approx(valued[0][key], rel=1e-4, abs=1e-5)
    assert valued[0]["value_loss"] > plain[0]["value_loss"]


def test_whitened_rewards_and_deferred_scores_are_one_sequence(world: World) -> None:
    """Against the recursion over responses that are one step longer, whose rewards, score included, are whitened."""
    response_index = torch.tensor([0, 0, 0, 1, 1])
    old, reference, values = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores, ends = (
        torch.tensor([[50.0], [20.0]], dtype=torch.float64),
        torch.tensor([[1.0], [-2.0]], dtype=torch.float64),
    )
    settings = {"prompts_per_step": 2, "beta": 0.3, "gamma": 0.9, "lam": 0.8, "whiten_rewards": True}
    settings |= {"whiten_advantages": False}
    config: Any = narrow("algorithm", {"kind": "ppo", "end_value": True, **settings}, world.manager)
    stage = world.stage("run")
    learner = ValueLearner(config, stage.context, stage, world.model)
    algorithm: Any = stage.context.build_algorithm(config)
    trainer = _Trainer(algorithm, learner, learner, LetterReward(), world.prompts)
    targets = trainer._build_targets(Experience(scores, response_index, old, reference, values, ends))

    kl = -0.3 * (old - reference)
    steps = torch.stack([*kl[:3], scores[0, 0], *kl[3:], scores[1, 0]])
    white = (steps - steps.mean()) / (steps.var() + 1e-8).sqrt() + steps.mean()
    expected = []
    for start, first, length in ((0, 0, 3), (4, 3, 2)):
        r = white[start : start + length + 1]
        v = torch.cat([values[first : first + length], ends[0 if length == 3 else 1], torch.zeros(1)])
        running, own = torch.tensor(0.0), []
        for t in reversed(range(length + 1)):
            running = r[t] + 0.9 * v[t + 1] - v[t] + 0.9 * 0.8 * running
            own.append(float(running))
        expected += own[::-1][:length]
    assert targets.advantages.tolist() == pytest.approx(expected, abs=1e-4)
    assert targets.values is not None
    assert targets.values.returns[5:].tolist() == pytest.approx(white[[3, 6]].tolist(), abs=1e-4)


def test_prompts_of_a_process_that_do_not_divide_into_minibatches_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.prompts = PROMPTS
    of_four = lambda accelerator, batch: local_shard(accelerator, batch)[:3]  # noqa: E731
    monkeypatch.setattr(rl_learner, "local_shard", of_four)
    settings = {"steps": 1, "prompts_per_step": 4, "responses_per_prompt": 1, "minibatches": 2}
    with pytest.raises(TrainingError, match="the 3 prompts that each process has in a step cannot be divided into 2"):
        world.train("ppo", world.stage("run"), **settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"beta": 0, "kl_target": 1.0}, "a beta of 0 cannot adapt"),
        ({"kl_target": 1.0, "kl_horizon": 10, "prompts_per_step": 64}, "kl_horizon: 10 responses, with 64 a step"),
    ],
)
def test_an_adaptive_kl_that_could_not_work_is_refused(settings: dict[str, Any], complaint: str, world: World) -> None:
    with pytest.raises(ValidationError, match=complaint):
        narrow("algorithm", {"kind": "reinforce", **settings}, world.manager)


def test_a_value_model_is_not_started_from_a_reward_model_that_reads_other_tokens(world: World, tmp_path: Path) -> None:
    reward = fit_reward(world, world.stage("reward"), labels())
    path = reward / "tokenizer.json"
    data = json.loads(path.read_text())
    vocabulary = data["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(data))
    config = narrow("algorithm", {"kind": "ppo", "value_from": "reward", "steps": 1}, world.manager)
    stage = world.stage("run")
    with pytest.raises(TrainingError, match="the reward model's tokenizer is not the policy's"):
        stage.context.build_algorithm(config).improve(
            world.model, Guidance(LetterReward(), reward), world.prompts, stage
        )


def test_a_response_that_was_cut_off_is_learned_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Group] = []

    def note(groups: Sequence[Group], *rest: Any) -> Any:
        seen.extend(groups)
        return pack_groups(groups, *rest)

    monkeypatch.setattr(fine_tuning, "pack_groups", note)
    end = load_tokenizer(world.model).eos_token_id
    pairs = [(world.prompts[0], "my dog"), (world.prompts[0], "my cat sat")]
    fine_tune(
        (stage := world.stage("run")).context,
        stage,
        world.model,
        pairs,
        SftConfig(batch_size=2, epochs=1),
        [True, False],
    )
    ends = {len(group.responses[0]): group.responses[0][-1] == end for group in seen}
    assert len(ends) == 2
    assert sorted(ends.values()) == [False, True]
