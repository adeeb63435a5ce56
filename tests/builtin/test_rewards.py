"""Rewards that are trained, borrowed, combined or counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedTokenizerFast,
)

from rlaif_framework import (
    Answer,
    Comparison,
    Context,
    DataError,
    LabelledComparison,
    ModelError,
    PluginManager,
    Prompt,
    Request,
    Spec,
    SpecError,
    Stage,
    TrainingError,
    Turn,
)
from rlaif_framework.contracts import read_metrics
from rlaif_framework.models import encode_text, load_tokenizer
from rlaif_framework.pipeline.recipes import FittedReward, ScoreComparisonsRecipe, ScoreResponsesRecipe
from rlaif_framework.pipeline.stages import score
from rlaif_framework.pipeline.steps import Recipe, Step
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.records import write_rows
from rlaif_framework.rl import score_rollout
from rlaif_framework.spec.loading import build_spec
from rlaif_framework.training import truncate_prompts
from rlaif_framework.training.averages import MetricAverager
from support.oracle import ComponentStage

TEXTS = ["my dog ate the whole cake and was sick", "we met at noon and talked about the house", "he left"]
PROMPTS = [Prompt(str(i), f"POST: {text}\n\nTL;DR:", text) for i, text in enumerate(TEXTS)]
RESPONSES = ["the dog is sick", "we met", "he has left her and the dog at noon"]


class Bench:
    """Fits one reward on the tiny model."""

    def __init__(self, spec: Spec, manager: PluginManager, model: Path, folder: Path) -> None:
        self.context, self.manager, self.model, self.folder = (
            Context.from_spec(spec, manager),
            manager,
            model,
            folder,
        )

    def build(self, kind: str, **settings: Any) -> Any:
        return self.context.build_reward(narrow("reward", {"kind": kind, **settings}, self.manager))

    def stage(self, name: str = "reward") -> ComponentStage:
        folder, checkpoint = self.folder / name, self.folder / f"{name}.checkpoint"
        return ComponentStage.create("reward", folder, checkpoint, self.context)

    def fit(self, kind: str, labels: Sequence[LabelledComparison], stage: Stage, **settings: Any) -> Any:
        model = self.build(kind, **settings)
        model.fit(labels, self.model, stage)
        return model.load(stage.folder)


@pytest.fixture
def bench(tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path, tmp_path: Path) -> Bench:
    policy = {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 8, "chat": "plain"}
    return Bench(tiny_spec(policy=policy, arms={}, evaluate=None), manager, tiny_model, tmp_path)


def label(place: int, a: str, b: str, p: float, confidence: float | None = None) -> LabelledComparison:
    comparison = Comparison(f"{place}{a}{b}", PROMPTS[place], (a, b), confidence=confidence)
    return LabelledComparison(comparison, (p, 1 - p))


LABELS = [label(i, RESPONSES[i], RESPONSES[j], p) for i, j, p in [(0, 1, 0.9), (1, 2, 0.2), (2, 0, 0.7), (0, 2, 0.6)]]
TRAIN = {"lr": 3e-3, "epochs": 8, "batch_size": 2}


# Bradley-Terry: what is learned


@pytest.mark.parametrize(
    ("settings", "given", "learned"),
    [
        ({}, 0.9, 0.9),
        ({"label_temperature": 2.0}, 0.9, 0.75),  # odds of 9 become odds of 3
        ({"label_clamp": [0.4, 0.6]}, 0.9, 0.6),
        ({"label_clamp": [0.4, 0.6]}, 0.1, 0.4),
        ({"label_temperature": 2.0, "label_clamp": [0.3, 0.7]}, 0.1, 0.3),
    ],
)
def test_labels_are_shaped_before_they_are_learned(
    bench: Bench, settings: dict[str, Any], given: float, learned: float
) -> None:
    shaped = bench.build("bradley-terry", **settings).shape(label(0, "a", "b", given))
    assert shaped.probabilities == pytest.approx((learned, 1 - learned))
    assert shaped.weight == 1


def test_weights_follow_the_labels_certainty_or_the_raters_confidence(bench: Bench) -> None:
    certain, confident = (bench.build("bradley-terry", weights=name) for name in ("certainty", "confidence"))
    assert certain.shape(label(0, "a", "b", 0.9)).weight == pytest.approx(0.8)
    assert certain.shape(label(0, "a", "b", 0.5)).weight == 0
    assert confident.shape(label(0, "a", "b", 0.9, confidence=0.25)).weight == 0.25
    assert confident.shape(label(0, "a", "b", 0.9)).weight == 1
    hard = bench.build("bradley-terry", labels="hard", weights="certainty").shape(label(0, "a", "b", 0.6))
    assert hard.weight == pytest.approx(0.2), "how sure the labeler was, not how hard its label was made"


def test_hard_labels_are_learned_as_such_with_the_margin_of_the_soft_ones(bench: Bench) -> None:
    margins, labels = torch.tensor([0.3, 0.3, 0.3, 0.3]), torch.tensor([0.51, 0.95, 0.2, 0.5])

    def loss(distance: float) -> float:
        return math.log(1 + math.exp(-distance))

    tie = (loss(0.3) + loss(-0.3)) / 2
    plain = bench.build("bradley-terry", labels="hard").loss(margins, labels)
    assert plain.tolist() == pytest.approx([loss(0.3), loss(0.3), loss(-0.3), tie], abs=1e-6)
    found = bench.build("bradley-terry", labels="hard", margin=2.0).loss(margins, labels)
    assert found.tolist() == pytest.approx([loss(0.3 - 0.04), loss(0.3 - 1.8), loss(-0.3 - 1.2), tie], abs=1e-6)


def test_the_margin_loss_is_the_closed_form(bench: Bench) -> None:
    model = bench.build("bradley-terry", margin=2.0)
    margins, labels = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 0.5, 0.75])
    expected = []
    for p, shift in [(1.0, 2.0), (0.5, 0.0), (0.75, 1.0)]:
        d = 1.0 - shift
        expected.append(-p * math.log(1 / (1 + math.exp(-d))) - (1 - p) * math.log(1 / (1 + math.exp(d))))
    assert model.loss(margins, labels).tolist() == pytest.approx(expected)


def test_a_weightless_comparison_changes_nothing(bench: Bench) -> None:
    """Of a prompt of its own and of no weight, so that only its weight keeps it from being learned."""
    # One batch with every comparison once.
    settings = {**TRAIN, "epochs": 1, "weights": "certainty"}
    tie = label(2, "he left her", "nobody knows", 0.5)
    plain = bench.fit("bradley-terry", LABELS[:2], bench.stage("plain"), **{**settings, "batch_size": 2})
    tied = bench.fit("bradley-terry", [*LABELS[:2], tie], bench.stage("tied"), **{**settings, "batch_size": 3})
    assert plain.score(PROMPTS, RESPONSES) == pytest.approx(tied.score(PROMPTS, RESPONSES), abs=1e-6)
    assert any(plain.score(PROMPTS, RESPONSES))


def test_it_learns_the_labels(bench: Bench) -> None:
    reward = bench.fit("bradley-terry", LABELS, bench.stage(), lr=1e-2, epochs=60, batch_size=4, schedule="cosine")
    for given in LABELS:
        a, b = reward.score([given.comparison.prompt] * 2, given.comparison.responses)
        assert 1 / (1 + math.exp(b - a)) == pytest.approx(given.probabilities[0], abs=0.1)
    row = read_metrics(bench.stage().folder)[-1]
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.9, 0.2, 0.7, 0.6)) / 4
    assert row["loss"] == pytest.approx(entropy, abs=0.03)  # what soft labels leave
    assert row["accuracy"] == 1


@pytest.mark.parametrize("model", ["base", "path"])
def test_it_starts_from_another_model(bench: Bench, model: str, tiny_model: Path, tmp_path: Path) -> None:
    """With the supervised baseline out of reach, so that it cannot be what is loaded."""
    bench.model = tmp_path / "nothing"
    settings = {**TRAIN, "epochs": 1, "model": str(tiny_model) if model == "path" else model}
    assert len(bench.fit("bradley-terry", LABELS, bench.stage(), **settings).score(PROMPTS, RESPONSES)) == 3


def test_a_new_head_may_be_random_as_in_huang_et_al(bench: Bench) -> None:
    settings = {"lr": 1e-12, "epochs": 1}
    zeros = bench.fit("bradley-terry", LABELS, bench.stage("zeros"), **settings).score(PROMPTS, RESPONSES)
    torch.manual_seed(0)
    normal = bench.fit("bradley-terry", LABELS, bench.stage("normal"), head="normal", **settings)
    assert zeros == pytest.approx([0.0] * 3, abs=1e-6)
    weight = normal.model.model.score.weight
    assert float(weight.std()) == pytest.approx((weight.shape[1] + 1) ** -0.5, rel=0.4)


def test_centred_scores_of_references_average_zero(bench: Bench) -> None:
    reward = bench.fit("bradley-terry", LABELS, bench.stage(), centre=True, **TRAIN)
    task, tokenizer = bench.context.task, bench.context.load_policy_tokenizer(bench.model)
    prompts, _ = truncate_prompts(bench.context, task.prompts("train"), tokenizer)
    references = [p.reference or "" for p in prompts]
    scores = reward.score(prompts, references)
    assert sum(scores) / len(scores) == pytest.approx(0.0, abs=1e-5)
    plain = bench.build("pretrained", model=str(bench.stage().folder), format="text").load(bench.folder)
    shift = plain.score(prompts[:1], references[:1])[0] - scores[0]
    assert abs(shift) > 1e-3
    assert shift == pytest.approx(
        json.loads((bench.stage().folder / "reward_level.json").read_text())["level"], abs=1e-5
    )


def test_centring_without_references_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(bench.context.task), "prompts", lambda self, split: [Prompt("p", "POST", "POST")])
    with pytest.raises(TrainingError, match="the task's training prompts have no reference responses"):
        bench.fit("bradley-terry", LABELS, bench.stage(), centre=True, **TRAIN)


# Pretrained


@pytest.fixture
def trained(bench: Bench) -> Path:
    bench.fit("bradley-terry", LABELS, bench.stage("trained"), **TRAIN)
    return bench.stage("trained").folder


@pytest.mark.parametrize("format", ["text", "chat"])
def test_a_pretrained_model_scores_as_transformers_does_one_by_one(
    bench: Bench, trained: Path, tiny_model: Path, format: str
) -> None:
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(trained)  # has a chat template
    reward = bench.build("pretrained", model=str(trained), format=format, batch_size=2).load(bench.folder)
    dialogue = (Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("user", "Name a lake."))
    prompts = [*PROMPTS[:2], replace(PROMPTS[2], turns=dialogue)]
    scores = reward.score(prompts, RESPONSES)
    tokenizer: Any = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForSequenceClassification.from_pretrained(trained, dtype=torch.float32).eval()
    for prompt, response, found in zip(prompts, RESPONSES, scores, strict=True):
        text = f"{prompt.text} {response}{tokenizer.eos_token}"
        if format == "chat":
            turns = [*(prompt.turns or [("user", prompt.text)]), ("assistant", response)]
            messages = [{"role": role, "content": content} for role, content in turns]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            assert found == pytest.approx(float(model(ids).logits), abs=1e-5)
    assert len(set(scores)) == 3


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(vocabulary)})
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_labels": 1}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(vocabulary), initializer_range=1.0, **sizes)).eval()
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_pair_of_texts_is_scored_with_the_kinds_of_its_tokens(bench: Bench, bert: Path, tmp_path: Path) -> None:
    reward = bench.build("pretrained", model=str(bert)).load(tmp_path)
    assert reward.format == "pair"
    tokenizer: Any = AutoTokenizer.from_pretrained(bert)
    model = BertForSequenceClassification.from_pretrained(bert).eval()
    with torch.no_grad():
        alone = [
            model(**tokenizer(prompt.text, response, return_tensors="pt", truncation=True)).logits
            for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
        ]
    assert reward.score(PROMPTS, RESPONSES) == pytest.approx([float(x) for x in alone], abs=1e-4)


def test_a_separator_in_a_text_of_a_pair_is_text(bench: Bench, bert: Path, tmp_path: Path) -> None:
    reward = bench.build("pretrained", model=str(bert)).load(tmp_path)
    row = reward.encode(replace(PROMPTS[0], text="a [SEP] b"), "c [SEP] d [CLS]")
    assert row["input_ids"].count(reward.tokenizer.sep_token_id) == 2
    assert row["input_ids"].count(reward.tokenizer.cls_token_id) == 1


def test_the_head_of_an_encoder_is_computed_in_fp32(
    bert: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    context = Context.from_spec(tiny_spec(policy={"model": str(bert), "dtype": "bf16"}), manager)
    config = narrow("reward", {"kind": "pretrained", "model": str(bert)}, manager)
    reward: Any = context.build_reward(config).load(tmp_path)
    assert reward.model.classifier.weight.dtype == torch.float32
    assert reward.model.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    scores = torch.tensor(reward.score(PROMPTS, RESPONSES))
    assert not scores.equal(scores.bfloat16().float())


def test_a_padding_token_that_is_new_has_an_embedding(bench: Bench, trained: Path, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(trained)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), tokenizer.eos_token)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **ends)  # as GPT-2's: no token to spare
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    model.config.pad_token_id = None
    model.resize_token_embeddings(len(bare))
    model.save_pretrained(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "bare")
    reward = bench.build("pretrained", model=str(tmp_path / "bare"), format="text").load(tmp_path)
    together = reward.score(PROMPTS, RESPONSES)
    alone = [reward.score([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_it_is_the_reward_it_was_saved_from(bench: Bench, trained: Path) -> None:
    own = bench.build("bradley-terry").load(trained).score(PROMPTS, RESPONSES)
    borrowed = bench.build("pretrained", model=str(trained), format="text").load(bench.folder)
    assert borrowed.score(PROMPTS, RESPONSES) == pytest.approx(own, abs=1e-5)


def test_a_long_prompt_is_cut_and_never_the_response(bench: Bench, trained: Path) -> None:
    reward = bench.build("pretrained", model=str(trained), format="text", max_tokens=80).load(bench.folder)
    post = "\n".join(["a line of a long post"] * 20)
    long = Prompt("long", f"SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: {post}\n\nTL;DR:", post)
    ids = reward._fit(long, RESPONSES[0])["input_ids"]
    assert 60 < len(ids) <= 80
    response = reward.tokenizer(" " + RESPONSES[0], add_special_tokens=False)["input_ids"]
    assert ids[-len(response) - 1 : -1] == response
    with pytest.raises(DataError, match="prompt 'long': the response does not fit into 80 tokens"):
        reward.score([long], ["word " * 60])


def test_a_model_that_is_no_reward_model_is_refused(bench: Bench, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a reward model: it has no scalar head"):
        bench.build("pretrained", model=str(tiny_model)).load(tmp_path)
    several = tmp_path / "several"
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=3).save_pretrained(several)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(several)
    with pytest.raises(ModelError, match="has 3 outputs, a reward model has one"):
        bench.build("pretrained", model=str(several)).load(tmp_path)


# Combined


class Fixed:
    """A reward of given scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def fit(self, *given: Any) -> None: ...

    def load(self, folder: Path) -> Fixed:
        return self

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        return self.scores


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"combine": "mean"}, [3.0, 0.0]),
        ({"combine": "worst"}, [1.0, 0.0]),
        ({"combine": "mean-minus-spread", "spread_weight": 0.5}, [3.0 - 0.5 * math.sqrt(8 / 3), 0.0]),
    ],
)
def test_an_ensemble_combines_its_members(bench: Bench, settings: dict[str, Any], expected: list[float]) -> None:
    model = bench.build("ensemble", members=["length"] * 3, **settings)
    model.parts = {"a": Fixed(1.0, 0.0), "b": Fixed(3.0, 0.0), "c": Fixed(5.0, 0.0)}
    assert model.load(bench.folder).score(PROMPTS[:2], RESPONSES[:2]) == pytest.approx(expected)


def test_equal_members_are_trained_with_seeds_of_their_own_and_only_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = {"kind": "bradley-terry", "lora": {"rank": 2}, "head": "normal", **TRAIN}
    members = {"members": [member, member]}
    first = bench.fit("ensemble", LABELS, bench.stage(), **members)
    scores = [list(m.score(PROMPTS, RESPONSES)) for m in first.members]
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)
    # A try that was stopped in the second member goes on there, and comes out the same.
    (bench.stage().checkpoint / "member-2" / "fitted.json").unlink()
    fitted: list[str] = []
    original = type(bench.build("bradley-terry")).fit

    def watch(self: Any, labels: Any, initial: Path, stage: Stage) -> None:
        fitted.append(stage.name)
        original(self, labels, initial, stage)

    monkeypatch.setattr(type(bench.build("bradley-terry")), "fit", watch)
    again = bench.fit("ensemble", LABELS, bench.stage(), **members)
    assert fitted == ["reward member-2"]
    assert [list(m.score(PROMPTS, RESPONSES)) for m in again.members] == scores


def test_a_sum_weighs_its_terms_and_shows_them(bench: Bench) -> None:
    terms = {"quality": {"kind": "length", "per": 1}, "words": {"kind": "length", "unit": "words", "per": 1}}
    reward = bench.fit("sum", [], bench.stage(), terms=terms, weights={"words": -2.0})
    shown = reward.score_terms(PROMPTS, RESPONSES)
    assert shown == {"quality": [15.0, 6.0, 35.0], "words": [-8.0, -4.0, -18.0]}
    assert reward.score(PROMPTS, RESPONSES) == [7.0, 2.0, 17.0]


def test_a_length_target_is_best_met(bench: Bench) -> None:
    reward = bench.build("length", target=10, per=10).load(bench.folder)
    assert reward.score(PROMPTS, ["x" * 10, "x" * 5, "x" * 30]) == [0.0, -0.5, -2.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            {"kind": "sum", "terms": {"a": "length"}, "weights": {"b": 1}},
            "arms.x.reward: weights: no term is named 'b'; the terms are a",
        ),
        ({"kind": "sum", "terms": {"a/b": "length"}}, "'a/b' is not a valid name"),
        ({"kind": "sum", "terms": {}}, "at least 1 item"),
        ({"kind": "ensemble", "members": ["length"]}, "at least 2 items"),
        ({"kind": "bradley-terry", "label_clamp": [0.6, 0.9]}, "expected [low, 1 - low] with 0 <= low <= 0.5"),
        ({"kind": "bradley-terry", "label_clamp": [0.5, 0.9]}, "the bounds hold for both responses"),
        ({"kind": "sum", "terms": {"a": "bradley-terry"}}, "trained on preferences"),
    ],
)
def test_what_is_wrong_with_a_reward_is_said(manager: PluginManager, reward: dict[str, Any], message: str) -> None:
    arm = {"reward": reward, "algorithm": "rloo"}
    data = {"name": "n", "task": "tldr", "policy": {"model": "m/m"}, "arms": {"x": arm}, "evaluate": None}
    with pytest.raises(SpecError) as raised:
        build_spec(data, "x.yaml", manager)
    assert message in str(raised.value)


# Direct


class Judge:
    """A backend that gives each response the score its text says, and notes how it was asked."""

    def __init__(self, name: str = "judge") -> None:
        self.name, self.batches = name, list[int]()

    def identity(self) -> str:
        return self.name

    def fits(self, question: Any, new_tokens: int) -> bool:
        return True

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        self.batches.append(len(requests))
        for index, request in enumerate(requests):
            wanted = max(range(3), key=lambda i: request.question.text.rfind(RESPONSES[i]))
            yield index, Answer(probabilities=tuple(float(i == wanted) for i in range(10)), mass=0.5)


def test_the_direct_reward_asks_for_a_whole_rollout_at_once(bench: Bench, tiny_model: Path) -> None:
    labeler = {"kind": "rate", "backend": {"kind": "transformers", "model": str(tiny_model)}}
    reward = bench.build("direct", labeler=labeler).load(bench.folder)
    judge = Judge()
    reward.labeler.backend = cast(Any, judge)
    scores = reward.score([p for p in PROMPTS for _ in range(3)], RESPONSES * 3)
    assert scores == pytest.approx([(i - 5.5) / 4.5 for i in (1, 2, 3)] * 3)
    assert judge.batches == [1, 9]  # one question decides about the ending
    assert reward.measures() == {"label_token_mass": [0.5] * 9}


@pytest.mark.parametrize(
    "labeler",
    [
        {"kind": "length", "prefer": "shorter"},
        {"kind": "rouge", "metric": "rouge1"},
        {"kind": "similarity", "model": "TINY"},
        {"kind": "similarity", "model": "TINY", "against": "reference"},
        {"kind": "likelihood", "model": "TINY", "dtype": "fp32", "instruction": "Be good.", "against": "Lie."},
        {"kind": "reference-likelihood", "model": "TINY", "dtype": "fp32"},
        {"kind": "rate", "backend": {"kind": "transformers", "model": "TINY", "dtype": "fp32"}},
    ],
    ids=lambda labeler: "-".join(filter(None, [labeler["kind"], labeler.get("against")])),
)
def test_a_direct_reward_is_the_score_in_the_labelers_evidence(
    bench: Bench, tiny_model: Path, labeler: dict[str, Any]
) -> None:
    named = json.loads(json.dumps(labeler).replace("TINY", str(tiny_model).replace("\\", "/")))
    # A model with random weights puts little on ratings.
    reward = bench.build("direct", labeler=named, scale=10, allow_weak_labels=True).load(bench.folder)
    prompts = [replace(prompt, reference=f"a {prompt.source}") for prompt in PROMPTS]
    pairs = [(prompt, text) for prompt in prompts for text in RESPONSES]
    scores = reward.score([prompt for prompt, _ in pairs], [text for _, text in pairs])
    comparisons = [Comparison(f"c{i}", prompt, (text, RESPONSES[0])) for i, (prompt, text) in enumerate(pairs)]
    labels = bench.context.build_labeler(narrow("labeler", named, bench.manager)).label(comparisons)
    expected = [10 * preference.evidence.scores[0] for preference in labels if preference.evidence.scores]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len(set(scores)) >= 3
    assert reward.score([pairs[4][0]], [pairs[4][1]]) == pytest.approx([scores[4]], abs=1e-4)


def test_likelihood_truncates_a_prompt_for_each_response_of_a_reward_alone(bench: Bench, tiny_model: Path) -> None:
    reward = bench.build("direct", labeler={"kind": "likelihood", "model": str(tiny_model), "dtype": "fp32"})
    reward = reward.load(bench.folder)
    post = "the dog ran off and came back muddy. " * 400
    long = Prompt("p", f"POST: {post}\n\nTL;DR:", post.strip())
    responses = ["mud", "dog ran " * 40, "mud"]
    together = reward.score([long] * 3, responses)
    assert together == pytest.approx([reward.score([long], [text])[0] for text in responses], abs=1e-4)


@pytest.mark.parametrize("labeler", ["rouge", {"kind": "similarity", "model": "TINY", "against": "reference"}])
def test_a_direct_reward_names_the_prompt_without_a_reference(bench: Bench, tiny_model: Path, labeler: Any) -> None:
    named = {**labeler, "model": str(tiny_model)} if isinstance(labeler, dict) else labeler
    reward = bench.build("direct", labeler=named).load(bench.folder)
    with pytest.raises(DataError, match="prompt '0' has no reference"):
        reward.score(PROMPTS[:1], ["a dog"])


@pytest.mark.parametrize(("mass", "allowed"), [(0.005, False), (0.005, True), (0.02, False)])
def test_a_direct_reward_is_not_read_from_tokens_that_the_model_almost_never_writes(
    bench: Bench, tiny_model: Path, mass: float, allowed: bool
) -> None:
    class Rare(Judge):
        def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
            return ((index, replace(answer, mass=mass)) for index, answer in super().answer(requests))

    labeler = {"kind": "rate", "backend": {"kind": "transformers", "model": str(tiny_model)}}
    reward = bench.build("direct", labeler=labeler, allow_weak_labels=allowed).load(bench.folder)
    reward.labeler.backend = cast(Any, Rare(f"rare {mass}"))
    if mass == 0.005 and not allowed:
        with pytest.raises(TrainingError, match=r"almost never writes a score: .* is 0\.005\..*allow_weak_labels"):
            reward.score(PROMPTS, RESPONSES)
    else:
        assert len(reward.score(PROMPTS, RESPONSES)) == 3


def test_measures_of_a_reward_are_logged_also_from_within_others(bench: Bench, tiny_model: Path) -> None:
    rate = {"kind": "rate", "backend": {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32"}}
    direct = {"kind": "direct", "labeler": rate, "allow_weak_labels": True}
    both = {"kind": "ensemble", "members": [direct, "length"]}
    reward = bench.fit("sum", [], bench.stage(), terms={"good": both, "long": "length"})
    averager = MetricAverager()
    rollout: Any = SimpleNamespace(prompts=PROMPTS, texts=RESPONSES)
    score_rollout(reward, rollout, averager)
    means = averager.means(bench.stage("means").accelerator)
    labels = bench.context.build_labeler(narrow("labeler", rate, bench.manager)).label(
        [Comparison("c", prompt, (text, text)) for prompt, text in zip(PROMPTS, RESPONSES, strict=True)]
    )
    masses = [label.evidence.orders[0].mass or 0 for label in labels]
    assert means["reward/good/member-1/label_token_mass"] == pytest.approx(sum(masses) / 3)


@pytest.mark.parametrize("labeler", ["human", "synthetic", "test/taste", {"kind": "mix", "labeler": "length"}])
def test_a_labeler_that_only_compares_is_no_direct_reward(bench: Bench, labeler: Any) -> None:
    with pytest.raises(ValueError, match="compares responses and cannot score one alone; use one that can, such as"):
        narrow("reward", {"kind": "direct", "labeler": labeler}, bench.manager)


# In the evaluation


def test_the_evaluation_scores_prompts_cut_as_in_training(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Prompt] = []

    def note(reward: Any, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        seen.extend(prompts)
        return [0.0] * len(responses)

    monkeypatch.setattr(score, "score_responses", note)
    source = "\n".join(["a line of a long post"] * 40)
    long = Prompt("long", f"SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: {source}\n\nTL;DR:", source)
    write_rows(tmp_path / "responses.jsonl", [{"prompt": "long", "response": "it is long", "metrics": {}}])
    stage = bench.stage("scores")
    stage.artefact = lambda step: tmp_path
    step = Step("made", Recipe(), {}, ())
    reward = FittedReward(narrow("reward", {"kind": "length"}, bench.manager), step)
    texts = ScoreResponsesRecipe(reward=reward, prompts=[long], baseline=step, responses=step)
    score.score_policies(stage, bench.context, texts)
    pairs = [Comparison("c", long, ("a", "b"))]
    recipe = ScoreComparisonsRecipe(reward=reward, comparisons=pairs)
    score.score_comparisons(stage, bench.context, recipe)
    tokenizer = load_tokenizer(bench.model)
    assert len(seen) == 4
    assert all(60 < len(encode_text(tokenizer, prompt.text)) <= 96 for prompt in seen)


def test_the_evaluation_scores_both_responses_to_a_prompt_together(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[tuple[str, str]]] = []

    def note(reward: Any, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        calls.append([(prompt.id, text) for prompt, text in zip(prompts, responses, strict=True)])
        return [float(len(text)) for text in responses]

    monkeypatch.setattr(score, "score_responses", note)
    steps = []
    for name, texts in (("baseline", ["a", "bb"]), ("policy", ["ccc", "dddd"])):
        rows = [{"prompt": p.id, "response": t, "metrics": {}} for p, t in zip(PROMPTS, texts, strict=False)]
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "responses.jsonl", rows)
        steps.append(Step(name, Recipe(), {}, ()))
    stage = bench.stage("scores")
    stage.artefact = lambda step: tmp_path / step.name
    reward = FittedReward(narrow("reward", {"kind": "length"}, bench.manager), steps[0])
    prompts = PROMPTS[:2]
    recipe = ScoreResponsesRecipe(reward=reward, prompts=prompts, baseline=steps[0], responses=steps[1])
    score.score_policies(stage, bench.context, recipe)
    first, second = (prompt.id for prompt in prompts)
    assert calls == [[(first, "a"), (second, "bb"), (first, "ccc"), (second, "dddd")]]  # one call
    assert score.read_scores(stage.folder) == {"sft": [1.0, 2.0], "policy": [3.0, 4.0]}


def test_ties_change_no_metric_of_the_training(bench: Bench) -> None:
    ties = [label(2, "he left her", "nobody knows", 0.5), label(2, "nobody knows", "he left her", 0.5)]
    rows = []
    for name, tie in (("one", ties[0]), ("other", ties[1])):
        stage = bench.stage(name)
        bench.fit("bradley-terry", [*LABELS[:2], tie], stage, **{**TRAIN, "epochs": 2, "batch_size": 3})
        rows.append(read_metrics(stage.folder)[-1])
    for metric in ("loss", "accuracy", "margin"):
        assert rows[0][metric] == pytest.approx(rows[1][metric], abs=1e-6)
    assert rows[0]["accuracy"] in (0.0, 0.5, 1.0)  # of two comparisons
