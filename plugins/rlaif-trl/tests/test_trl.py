"""TRL's trainers, as conformance tests and real specs run them: on the problems that the framework's own must solve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trl
from pydantic import ValidationError

from rlaif_framework import (
    AlgorithmConfig,
    Comparison,
    Context,
    Guidance,
    LabelledComparison,
    PluginManager,
    Prompt,
    RlaifError,
    Spec,
    Store,
    TrainingError,
    run_spec,
)
from rlaif_framework.contracts import read_metrics
from rlaif_framework.models import encode_prompt, encode_response
from rlaif_framework.testing import (
    AlgorithmConformance,
    OracleReward,
    RewardConformance,
    load_manager,
    make_context,
    make_stage,
    save_tiny_model,
)
from rlaif_trl import DpoConfig, GrpoConfig, RlooConfig
from rlaif_trl.trainers import Dpo, Grpo, Rloo, encode_pairs

ONLINE: Mapping[str, Any] = {
    "max_steps": 16,
    "num_generations": 8,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.02,
}
PAIRS: Mapping[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 0.01}
CHAT = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}<s>assistant\n"


class TrainerConformance(AlgorithmConformance):
    @pytest.fixture
    def short(self, manager: PluginManager, parsed: AlgorithmConfig) -> AlgorithmConfig:
        return parsed.model_copy(update={"max_steps": 4} if "max_steps" in type(parsed).model_fields else {})


class TestGrpo(TrainerConformance):
    component = "trl/grpo"
    config: ClassVar[Mapping[str, Any]] = ONLINE


class TestGrpoWithAdapters(TestGrpo):
    policy: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 1, "lora": {"rank": 4}}


class TestRloo(TrainerConformance):
    component = "trl/rloo"
    config: ClassVar[Mapping[str, Any]] = ONLINE


class TestDpo(TrainerConformance):
    component = "trl/dpo"
    config: ClassVar[Mapping[str, Any]] = PAIRS


class TestReward(RewardConformance):
    component = "trl/reward"
    config: ClassVar[Mapping[str, Any]] = {**PAIRS, "num_train_epochs": 8}


class TestRewardWithAdapters(TestReward):
    policy: ClassVar[Mapping[str, Any]] = {"lora": {"rank": 4}}


class TestOwnGrpo(AlgorithmConformance):
    """The framework's own GRPO, on the same problem with the same numbers of steps and responses."""

    component = "grpo"
    config: ClassVar[Mapping[str, Any]] = {"steps": 16, "prompts_per_step": 4, "responses_per_prompt": 8, "lr": 0.02}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def context(model: Path) -> Context:
    return make_context(load_manager(), model)


def test_a_spec_with_all_of_them_runs_to_an_evaluation(model: Path, tmp_path: Path) -> None:
    manager = load_manager()
    online = {**ONLINE, "max_steps": 2, "learning_rate": 1e-3, "missing_eos_penalty": 1.0}
    feedback = {"kind": "ai", "labeler": "length", "pairs": {"limit": 12}, "allow_weak_labels": True}
    arms = {
        "grpo": {"reward": "length", "algorithm": {"kind": "trl/grpo", **online}},
        "rloo": {"reward": "length", "algorithm": {"kind": "trl/rloo", **online}},
        "dpo": {"feedback": feedback, "algorithm": {"kind": "trl/dpo", **PAIRS}},
        # A value model can start from TRL's reward model, as from `bradley-terry`.
        "trained": {
            "feedback": feedback,
            "reward": {"kind": "trl/reward", **PAIRS, "margin": 0.5},
            "algorithm": {"kind": "ppo", "steps": 1, "prompts_per_step": 2, "value_from": "reward"},
        },
    }
    spec = {
        "task": "testing/tiny",
        "policy": {"model": str(model), "dtype": "fp32", "lora": {"rank": 4}, "max_new_tokens": 4},
        "sft": {"limit": 8},
        "arms": arms,
        "evaluate": {"judge": "length", "prompts": 4, "matchups": [["trained", "dpo"]]},
    }
    run_spec(
        Spec.model_validate(spec, context={"manager": manager}), tmp_path / "run", Store(tmp_path / "store"), manager
    )
    evaluation = json.loads((tmp_path / "run" / "evaluation" / "summary" / "evaluation.json").read_text())
    assert set(arms) < set(evaluation["policies"])
    for arm in ("grpo", "rloo"):
        rows = read_metrics(tmp_path / "run" / arm / "policy")
        assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.parametrize(("kind", "config"), [(Grpo, GrpoConfig), (Rloo, RlooConfig)])
def test_prompts_are_read_as_all_policies_read_them(
    kind: type[Grpo], config: type[GrpoConfig], context: Context, model: Path, tmp_path: Path
) -> None:
    """With the chat template, and with control tokens in the data as ordinary text."""
    prompts = [Prompt("1", "a </s> b", "a </s> b"), Prompt("2", "c", "c")]
    tokenizer = context.load_policy_tokenizer(model)
    tokenizer.chat_template = CHAT
    from rlaif_framework.models import load_model

    parts = {"model": load_model(model, "causal", context.dtype, context.device), "processing_class": tokenizer}
    settings = config(per_device_train_batch_size=8)
    built = kind(settings, context).build(
        Guidance(OracleReward()), prompts, make_stage(context, tmp_path / "s"), **parts
    )
    ids, *_ = built._tokenize_prompts(["0", "1"])
    assert ids == [encode_prompt(tokenizer, prompt) for prompt in prompts]
    assert ids[0].count(tokenizer.eos_token_id) == 1, "the end token in the data ends the turn"


def test_a_response_without_an_end_token_is_penalised(context: Context, model: Path, tmp_path: Path) -> None:
    scored: list[str] = []

    class Constant:
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
            scored.extend(responses)
            return [2.0] * len(responses)

    config = GrpoConfig(max_steps=1, per_device_train_batch_size=8, missing_eos_penalty=1.0)
    stage = make_stage(context, tmp_path / "s")
    Grpo(config, context).improve(model, Guidance(Constant()), [Prompt("1", "a", "a")], stage)
    (row,) = read_metrics(stage.folder)
    assert row["reward"] == pytest.approx(2.0 - (1 - row["eos_rate"]))
    assert len(scored) == 8


def label(first: float) -> LabelledComparison:
    comparison = Comparison(str(first), Prompt("1", "a", "a"), ("good", "bad"))
    return LabelledComparison(comparison, (first, 1 - first))


def test_labels_become_preferred_responses_and_ties_are_left_out(context: Context, model: Path, tmp_path: Path) -> None:
    tokenizer, stage = context.load_policy_tokenizer(model), make_stage(context, tmp_path / "s")
    rows = encode_pairs([label(0.9), label(0.5), label(0.2)], tokenizer, stage)
    good, bad = (encode_response(tokenizer, text) for text in ("good", "bad"))
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in rows] == [(good, bad), (bad, good)]
    assert [row["certainty"] for row in rows] == pytest.approx([0.8, 0.6])
    assert stage.facts == {"pairs": 2, "ties": 1}


def test_ties_alone_are_an_error(context: Context, model: Path, tmp_path: Path) -> None:
    stage = make_stage(context, tmp_path / "s")
    with pytest.raises(TrainingError, match="all labels are ties"):
        Dpo(DpoConfig(), context).improve(model, Guidance(labels=[label(0.5)]), [], stage)


def test_the_pairs_that_the_trainer_gets_are_the_encoded_ones(context: Context, model: Path, tmp_path: Path) -> None:
    from rlaif_framework.models import load_model

    tokenizer, stage = context.load_policy_tokenizer(model), make_stage(context, tmp_path / "s")
    parts = {"model": load_model(model, "causal", context.dtype, context.device), "processing_class": tokenizer}
    built = Dpo(DpoConfig(), context).build(Guidance(labels=[label(0.9)]), [], stage, **parts)
    (row,) = built.train_dataset
    assert row["prompt_ids"] == encode_prompt(tokenizer, label(0.9).comparison.prompt)
    assert isinstance(built, trl.DPOTrainer)


@pytest.mark.parametrize("config", [GrpoConfig, RlooConfig])
def test_a_step_has_whole_groups(config: type[GrpoConfig]) -> None:
    with pytest.raises(ValidationError, match="num_generations: 12 responses of a step are no multiple of it"):
        config(per_device_train_batch_size=6, gradient_accumulation_steps=2)


def test_an_unknown_argument_is_refused(context: Context) -> None:
    spec = {"task": "testing/tiny", "policy": {"model": "unused"}}
    arm = {"reward": "length", "algorithm": {"kind": "trl/grpo", "output_dir": "/tmp"}}
    with pytest.raises((ValidationError, RlaifError), match="output_dir"):
        Spec.model_validate({**spec, "arms": {"a": arm}}, context={"manager": load_manager()})
