"""Labelers without an LLM call (likelihood, ensemble, mix), and the gate before training on labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif_framework import (
    Comparison,
    Context,
    DataError,
    Evidence,
    ModelError,
    PluginManager,
    Preference,
    Prompt,
    Spec,
    SpecError,
    Store,
    TrainingError,
    run_spec,
)
from rlaif_framework.metrics.agreement import measure_labeler
from rlaif_framework.pipeline.stages.gate import check_agreement
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.progress import Progress
from rlaif_framework.records import LABEL_TOKEN_MASS
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.rows import load_preferences, read_preference

POST = Prompt("p", "POST: my dog ran off and came back muddy\n\nTL;DR:", "my dog ran off and came back muddy")
COMPARISONS = [
    Comparison("a", POST, ("dog ran away", "eee eee"), 1.0, "human"),
    Comparison("b", POST, ("the dog came back", "it rained all day and then some"), 0.0, "human"),
    Comparison("c", POST, ("eel", "mud"), None, None),
    Comparison("d", POST, ("me", "mud mud"), 0.0, "synthetic"),
]


def label(manager: PluginManager, spec: Spec, config: Any, comparisons: Sequence[Comparison]) -> list[Preference]:
    labeler: Any = narrow("labeler", config, manager)
    return list(Context.from_spec(spec, manager).build_labeler(labeler).label(comparisons))


class PlainLoop:
    """One forward pass of transformers for each text."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def mean_logprob(self, before: str, after: str) -> float:
        prompt = self.tokenizer(before)["input_ids"]
        answer = [*self.tokenizer(f" {after}", add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = self.model(torch.tensor([prompt + answer])).logits[0].log_softmax(1)
        rows = logprobs[len(prompt) - 1 : -1]
        return float(sum(row[token] for row, token in zip(rows, answer, strict=True)) / len(answer))


def test_likelihood_equals_a_plain_loop(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = {
        "kind": "likelihood",
        "model": str(tiny_model),
        "dtype": "fp32",
        "instruction": "Be good.",
        "against": "Lie.",
    }
    found = label(manager, tiny_spec(), config, COMPARISONS)
    plain = PlainLoop(tiny_model)
    for comparison, preference in zip(COMPARISONS, found, strict=True):
        expected = [
            plain.mean_logprob(f"Be good.\n\n{POST.text}", r) - plain.mean_logprob(f"Lie.\n\n{POST.text}", r)
            for r in comparison.responses
        ]
        assert preference.evidence.scores == pytest.approx(expected, abs=1e-4)
        odds = (expected[0] - expected[1]) / 0.1
        assert preference.probabilities is not None
        assert preference.probabilities[0] == pytest.approx(1 / (1 + 2.718281828459045**-odds), abs=1e-3)
    alone = label(manager, tiny_spec(), config, COMPARISONS[1:2])[0]
    assert alone.evidence.scores == pytest.approx(found[1].evidence.scores, abs=1e-5)


def test_reference_likelihood_equals_a_plain_loop(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = {"kind": "reference-likelihood", "model": str(tiny_model), "dtype": "fp32", "scale": 0.5}
    pairs = [replace(c, prompt=replace(POST, reference=f"a muddy dog {c.id}")) for c in COMPARISONS]
    plain = PlainLoop(tiny_model)
    for pair, preference in zip(pairs, label(manager, tiny_spec(), config, pairs), strict=True):
        reference = pair.prompt.reference or ""
        expected = [plain.mean_logprob(f"{text}\n\nIn other words:", reference) for text in pair.responses]
        assert preference.evidence.scores == pytest.approx(expected, abs=1e-4)
        assert preference.probabilities is not None
        odds = (expected[0] - expected[1]) / 0.5
        assert preference.probabilities[0] == pytest.approx(1 / (1 + 2.718281828459045**-odds), abs=1e-3)
    with pytest.raises(DataError, match="prompt 'p' has no reference"):
        label(manager, tiny_spec(), config, COMPARISONS)
    with pytest.raises(DataError, match=r"a response and the reference have .* tokens, more than the 1024"):
        label(manager, tiny_spec(), config, [replace(pairs[0], responses=("dog " * 2000, "mud"))])


@pytest.mark.parametrize("kind", ["likelihood", "reference-likelihood"])
def test_what_several_comparisons_share_is_computed_once(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, kind: str
) -> None:
    config: Any = narrow("labeler", {"kind": kind, "model": str(tiny_model), "dtype": "fp32"}, manager)
    labeler: Any = Context.from_spec(tiny_spec(), manager).build_labeler(config)
    prompt, texts = replace(POST, reference="a muddy dog"), ["a dog", "mud", "it rained", "eel"]
    # `rlaif label` gives each row's prompt an id of its own.
    pairs = [Comparison(f"{a}-{b}", replace(prompt, id=f"{a}-{b}"), (a, b)) for a, b in combinations(texts, 2)]

    def count_tokens(comparisons: Sequence[Comparison]) -> int:
        sizes: list[int] = []
        hook = labeler.model.register_forward_pre_hook(
            lambda model, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        list(labeler.label(comparisons))
        hook.remove()
        return sum(sizes)

    # All six pairs consist of the responses of the first and the last one.
    assert count_tokens(pairs) == pytest.approx(count_tokens([pairs[0], pairs[-1]]), rel=0.1)
    assert count_tokens(pairs) < 0.5 * sum(count_tokens([pair]) for pair in pairs)


def test_likelihood_cuts_a_prompt_to_the_models_context(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = {"kind": "likelihood", "model": str(tiny_model), "dtype": "fp32", "against": "Lie about it. " * 10}
    post = "the dog ran off and came back muddy. " * 400
    long = Comparison("long", Prompt("p", f"POST: {post}\n\nTL;DR:", post.strip()), ("dog ran " * 20, "mud"))
    found, short = label(manager, tiny_spec(), config, [long, COMPARISONS[0]])
    assert (found.evidence.source_truncated, short.evidence.source_truncated) == (True, False)
    # Two instructions, each with a prompt and both responses: more is read than one context, and not much beyond two.
    assert 1024 < found.evidence.prompt_tokens < 2 * 1024 + 100
    endless = replace(long, responses=("dog " * 2000, "mud"))
    with pytest.raises(DataError, match="prompt 'p': a response alone is longer than the model's context"):
        label(manager, tiny_spec(), config, [endless])


def test_control_tokens_are_text_to_similarity(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = narrow("labeler", {"kind": "similarity", "model": str(tiny_model)}, manager)
    labeler: Any = Context.from_spec(tiny_spec(), manager).build_labeler(config)
    end = labeler.tokenizer.eos_token
    assert labeler.tokenizer.eos_token_id not in labeler._encode(f"a {end} b")
    assert labeler._encode("a b") == labeler.tokenizer("a b", split_special_tokens=False)["input_ids"]


def test_similarity_refuses_a_model_with_another_pooling(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "1_Pooling").mkdir()
    config: Any = narrow("labeler", {"kind": "similarity", "model": str(folder)}, manager)
    context = Context.from_spec(tiny_spec(), manager)
    modes = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**modes, "include_prompt": True}))
    context.build_labeler(config)
    modes |= {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    with pytest.raises(ModelError, match="pools tokens by cls_token, and the labeler by their mean"):
        context.build_labeler(config)


def test_similarity_cuts_the_source_and_says_what_it_could_not_read_whole(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = {"kind": "similarity", "model": str(tiny_model)}
    turns = [f"Human: question {n} {'word ' * 60}\n\nAssistant: answer {n}" for n in range(30)]
    source = "\n\n".join([*turns, "Human: the last question"])
    long = Comparison("long", Prompt("p", source, source), ("a dog", "mud"))
    spec = tiny_spec(task="dialogue")
    found, short, cut = label(
        manager, spec, config, [long, COMPARISONS[0], replace(COMPARISONS[1], responses=("dog " * 2000, "mud"))]
    )
    assert [p.evidence.source_truncated for p in (found, short, cut)] == [True, False, False]
    assert [p.evidence.responses_truncated for p in (found, short, cut)] == [0, 0, 1]
    parsed: Any = narrow("labeler", config, manager)
    labeler: Any = Context.from_spec(spec, manager).build_labeler(parsed)
    seen: set[str] = set()
    embed = labeler.embed

    def keeping(texts: Sequence[str]) -> Any:
        seen.update(texts)
        return embed(texts)

    labeler.embed = keeping
    list(labeler.label([long]))
    (known,) = seen - set(long.responses)
    assert known.endswith("Human: the last question")
    assert "question 0 " not in known


def test_an_ensemble_averages_votes_and_keeps_what_each_said(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    members = {"long": "length", "short": {"kind": "length", "prefer": "shorter"}, "e": "test/taste"}
    mean = {"kind": "ensemble", "labelers": members, "weights": {"long": 3, "short": 1, "e": 0}}
    found = label(manager, tiny_spec(), mean, COMPARISONS)
    assert [p.probabilities and p.probabilities[0] for p in found] == [0.75, 0.25, 0.5, 0.25]
    majority = label(manager, tiny_spec(), {"kind": "ensemble", "labelers": members, "how": "majority"}, COMPARISONS)
    # long and short cancel out: the one who likes the letter e decides
    assert [p.probabilities and p.probabilities[0] for p in majority] == [0.0, 1.0, 1.0, 1.0]
    said = {vote.labeler: vote.probabilities for vote in majority[0].evidence.members}
    assert said == {"long": (1.0, 0.0), "short": (0.0, 1.0), "e": (0.0, 1.0)}


def test_an_ensemble_passes_on_what_befell_its_members(manager: PluginManager, tiny_spec: Callable[..., Spec]) -> None:
    from rlaif_plugins.labelers.ensemble import EnsembleConfig, EnsembleLabeler

    class Member:
        def __init__(self, **flags: Any) -> None:
            self.flags = flags

        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            said = None if "inconsistent" in self.flags else (0.9, 0.1)
            yield from (Preference(c.id, said, Evidence("fake", **self.flags)) for c in comparisons)

    config = narrow("labeler", {"kind": "ensemble", "labelers": {"a": "length", "b": "length"}}, manager)
    assert isinstance(config, EnsembleConfig)
    ensemble = EnsembleLabeler(config, Context.from_spec(tiny_spec(), manager))
    ensemble.members = {"a": Member(source_truncated=True), "b": Member(inconsistent=True)}
    (found,) = ensemble.label(COMPARISONS[:1])
    assert (found.evidence.source_truncated, found.evidence.inconsistent) == (True, True)
    assert found.probabilities == pytest.approx((0.9, 0.1))
    ensemble.members = {"a": Member(inconsistent=True)}
    (found,) = ensemble.label(COMPARISONS[:1])
    assert found.probabilities is None
    assert not found.unparsed
    ensemble.members = {"a": Member()}
    (found,) = ensemble.label(COMPARISONS[:1])
    assert (found.evidence.source_truncated, found.evidence.inconsistent) == (False, False)


def test_the_mass_of_an_ensemble_is_the_smallest_of_its_members(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    from rlaif_plugins.labelers.ensemble import EnsembleConfig, EnsembleLabeler

    class Member:
        def __init__(self, *masses: float | None) -> None:
            self.orders = tuple(Ballot((0.9, 0.1), mass) for mass in masses)

        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            yield from (Preference(c.id, (0.9, 0.1), Evidence("fake", self.orders)) for c in comparisons)

    names = dict.fromkeys("abcd", "length")
    config = narrow("labeler", {"kind": "ensemble", "labelers": names, "weights": {"d": 0}}, manager)
    assert isinstance(config, EnsembleConfig)
    ensemble = EnsembleLabeler(config, Context.from_spec(tiny_spec(), manager))
    ensemble.members = {"a": Member(0.6, 0.8), "b": Member(0.001, 0.003), "c": Member(None), "d": Member(0.0)}
    (found,) = ensemble.label(COMPARISONS[:1])
    assert found.evidence.masses == pytest.approx([0.002])
    assert read_preference(json.loads(json.dumps(asdict(found)))) == found
    quality = measure_labeler(COMPARISONS[:1], [found])
    assert quality.label_token_mass is not None
    assert quality.label_token_mass.value == pytest.approx(0.002)
    ensemble.members = {"c": Member(None)}
    (found,) = ensemble.label(COMPARISONS[:1])
    assert found.evidence.masses == ()


def test_an_ensemble_leaves_out_members_that_could_not_be_read(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    from rlaif_plugins.labelers.ensemble import EnsembleConfig, EnsembleLabeler

    config = narrow("labeler", {"kind": "ensemble", "labelers": {"a": "length", "b": "length"}}, manager)
    assert isinstance(config, EnsembleConfig)
    ensemble = EnsembleLabeler(config, Context.from_spec(tiny_spec(), manager))
    assert ensemble.combine({"a": (0.2, 0.8), "b": None}) == pytest.approx((0.2, 0.8))
    assert ensemble.combine({"a": None, "b": None}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"c": 1}}, "weights.c: no member has this name"),
        ({"weights": {"a": 0}}, "the weights of all members are 0"),
        ({"labelers": {}}, "at least 1"),
    ],
)
def test_an_impossible_ensemble_is_refused(manager: PluginManager, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        narrow("labeler", {"kind": "ensemble", "labelers": {"a": "length"}, **changes}, manager)


def test_a_mix_keeps_what_is_known_and_says_where_each_label_is_from(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    found = label(manager, tiny_spec(), {"kind": "mix", "labeler": "length"}, COMPARISONS)
    assert [p.evidence.source for p in found] == ["human", "human", "length", "length"]
    assert [p.probabilities and p.probabilities[0] for p in found] == [1.0, 0.0, 0.5, 0.0]
    none = label(manager, tiny_spec(), {"kind": "mix", "labeler": "length", "proportion": 0}, COMPARISONS)
    assert {p.evidence.source for p in none} == {"length"}


def test_the_share_of_a_mix_is_drawn_by_id_and_about_right(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    many = [replace(COMPARISONS[0], id=str(i)) for i in range(2000)]
    config = {"kind": "mix", "labeler": "length", "proportion": 0.3}
    found = label(manager, tiny_spec(), config, many)
    kept = {p.comparison for p in found if p.evidence.source == "human"}
    assert 0.26 < len(kept) / 2000 < 0.34
    again = label(manager, tiny_spec(), config, many[::-1][:700])
    assert {p.comparison for p in again if p.evidence.source == "human"} == kept & {c.id for c in many[::-1][:700]}


def test_labels_that_were_handed_out_do_not_count_for_a_mixs_agreement(
    manager: PluginManager, tiny_spec: Callable[..., Spec]
) -> None:
    found = label(manager, tiny_spec(), {"kind": "mix", "labeler": "length"}, COMPARISONS)
    quality = measure_labeler(COMPARISONS, found)
    assert quality.agreement is not None
    assert quality.agreement.count == 1  # d alone: a and b are what is known itself, c is not known


def arms(labeler: Any, **feedback: Any) -> dict[str, Any]:
    return {
        "rlaif": {
            "feedback": {"kind": "ai", "labeler": labeler, "pairs": {"limit": 60}, **feedback},
            "reward": {"kind": "bradley-terry", "batch_size": 32},
            "algorithm": {"kind": "reinforce", "steps": 1, "prompts_per_step": 2},
        }
    }


def test_the_gate_stops_labels_no_better_than_chance(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    backwards = {"kind": "length", "prefer": "shorter"}
    spec = tiny_spec(arms=arms(backwards), evaluate=None)
    store = Store(tmp_path / "store")
    with pytest.raises(TrainingError, match=r"agree with gold preferences on .*allow_weak_labels: true"):
        run_spec(spec, tmp_path / "run", store, manager, Progress())
    assert load_preferences(next(tmp_path.glob("store/label-*/preferences.jsonl")))  # what was labelled is kept
    allowed = tiny_spec(arms=arms(backwards, allow_weak_labels=True), evaluate=None)
    run_spec(allowed, tmp_path / "run2", store, manager, Progress())
    facts = json.loads((tmp_path / "run2" / "rlaif" / "labels" / "artefact.json").read_text())["facts"]
    assert facts["label_agreement_count"] == 60
    assert facts["label_agreement"] < 0.5


def test_the_gate_asks_about_validation_comparisons_where_the_labelled_ones_are_the_policys_own(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    own = {"pairs": {"source": "policy", "prompts": 6}}
    spec = tiny_spec(arms=arms({"kind": "length", "prefer": "shorter"}, **own), evaluate=None)
    with pytest.raises(TrainingError, match="validation comparisons"):
        run_spec(spec, tmp_path / "run", Store(tmp_path / "store"), manager, Progress())


@pytest.mark.parametrize("mass", [0.005, 0.02, None])
def test_the_gate_stops_labels_from_tokens_that_the_model_almost_never_writes(
    tmp_path: Path, mass: float | None
) -> None:
    (tmp_path / "agreement.json").write_text(json.dumps({"on": "labelled", "agreement": None, LABEL_TOKEN_MASS: mass}))
    expected = pytest.raises(TrainingError, match=r"almost never writes a label: .* is 0\.005\..*allow_weak_labels")
    with expected if mass == 0.005 else nullcontext():
        check_agreement(tmp_path)


def test_the_mass_of_an_arms_labels_is_measured(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path, tmp_path: Path
) -> None:
    llm = {"kind": "llm", "backend": {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32"}}
    spec = tiny_spec(arms=arms(llm, pairs={"limit": 4}), evaluate=None)
    # A model with random weights puts next to nothing on two tokens of its vocabulary.
    with pytest.raises(TrainingError, match="almost never writes a label"):
        run_spec(spec, tmp_path / "run", Store(tmp_path / "store"), manager, Progress())
    (folder,) = (path.parent for path in tmp_path.glob("store/label-*/preferences.jsonl"))
    ballots = [ballot for p in load_preferences(folder / "preferences.jsonl") for ballot in p.evidence.orders]
    mass = json.loads((folder / "agreement.json").read_text())[LABEL_TOKEN_MASS]
    assert mass == pytest.approx(sum(ballot.mass or 0 for ballot in ballots) / 8)


def test_known_preferences_themselves_pass_the_gate(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = tiny_spec(arms=arms("synthetic"), evaluate=None)
    run_spec(spec, tmp_path / "run", Store(tmp_path / "store"), manager, Progress())
    found = json.loads((tmp_path / "run" / "rlaif" / "labels" / "agreement.json").read_text())
    assert found["agreement"] is None


def test_a_contrast_of_an_instruction_with_itself_is_refused(manager: PluginManager) -> None:
    with pytest.raises((SpecError, ValueError), match="all scores would be 0"):
        narrow("labeler", {"kind": "likelihood", "model": "m", "instruction": "x", "against": "x"}, manager)


@pytest.mark.parametrize(("proportion", "missing"), [(1.0, False), (0.5, True)])
def test_a_mix_needs_what_its_labeler_needs_if_it_may_ask_it(
    proportion: float, missing: bool, manager: PluginManager
) -> None:
    config: Any = narrow("labeler", {"kind": "mix", "labeler": "rouge", "proportion": proportion}, manager)
    assert (config.missing_field(COMPARISONS[0]) is not None) == missing
