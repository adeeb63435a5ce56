"""Comparisons of one prompt are computed together, and mean what they mean one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlaif_framework import Comparison, LabelledComparison, PluginManager, Prompt, Spec, Store, run_spec
from rlaif_framework.models import ScoreModel
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.models.packing import Group, pack_groups
from rlaif_framework.progress import Progress
from rlaif_framework.records.rows import load_comparisons
from rlaif_framework.training.preference_batches import group_by_prompt, index_pairs

POSTS = [Prompt(str(i), f"POST: {text}\n\nTL;DR:", text) for i, text in enumerate(["my dog ran", "we met at noon"])]


def label(post: int, first: str, second: str, probability: float) -> LabelledComparison:
    comparison = Comparison(f"{post}/{first}-{second}", POSTS[post], (first, second))
    return LabelledComparison(comparison, (probability, 1 - probability))


LABELS = [
    label(0, "the dog is gone", "a cat", 0.9),
    label(1, "a meeting", "noon", 0.3),
    label(0, "a cat", "dog", 0.2),
    label(0, "the dog is gone", "dog", 0.6),
]


def test_every_response_is_computed_once_and_every_comparison_kept(tiny_model: Path) -> None:
    units = group_by_prompt(LABELS, load_tokenizer(tiny_model))
    assert [len(unit.group.responses) for unit in units] == [3, 2]
    pairs = index_pairs(units, torch.device("cpu"))
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(0, 1), (1, 2), (0, 2), (3, 4)]
    assert pairs.labels.tolist() == pytest.approx([0.9, 0.2, 0.6, 0.3])
    assert pairs.weights.tolist() == [1, 1, 1, 1]


def test_margins_equal_those_of_comparisons_one_by_one(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    model = ScoreModel.load(tiny_model, tokenizer, torch.float32, torch.device("cpu"))
    torch.nn.init.normal_(model.model.score.weight)  # type: ignore[union-attr, arg-type]
    units = group_by_prompt(LABELS, tokenizer)
    packed = pack_groups([unit.group for unit in units], tokenizer.pad_token_id, torch.device("cpu"))
    pairs = index_pairs(units, torch.device("cpu"))
    with torch.no_grad():
        rewards = model(packed, packed.ends[:, 0], packed.ends[:, 1])
    margins = (rewards[pairs.first] - rewards[pairs.second]).tolist()
    one_by_one = []
    for unit in units:
        for pair in unit.pairs:
            group = Group(unit.group.prompt, [unit.group.responses[i] for i in (pair.first, pair.second)])
            better, worse = model.score_groups([group], tokenizer.pad_token_id, 4096, torch.float32)
            one_by_one.append(better - worse)
    assert margins == pytest.approx(one_by_one, abs=1e-5)


def test_several_responses_to_a_prompt_give_all_their_pairs(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    pairs = {"source": "policy", "prompts": 3, "responses": 4}
    arm = tiny_spec().arms["rlaif"].model_dump()
    arm["feedback"]["pairs"] = pairs
    spec = tiny_spec(arms={"rlaif": arm}, evaluate=None)
    run_spec(spec, tmp_path / "run", Store(tmp_path / "store"), manager, Progress())
    found = load_comparisons(tmp_path / "run" / "rlaif" / "pairs" / "comparisons.jsonl")
    by_prompt: dict[str, set[frozenset[str]]] = {}
    for comparison in found:
        by_prompt.setdefault(comparison.prompt.id, set()).add(frozenset(comparison.responses))
    assert len(by_prompt) == 3
    for chosen in by_prompt.values():
        texts = {text for pair in chosen for text in pair}
        assert len(chosen) == len(texts) * (len(texts) - 1) // 2
    assert max(map(len, by_prompt.values())) == 6
    assert len({c.id for c in found}) == len(found)
