"""Packed rows, padded batches and single sequences must give the same numbers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    Lfm2Config,
    MistralConfig,
    PreTrainedModel,
)

from rlaif_framework import ModelError
from rlaif_framework.models import (
    Group,
    ScoreModel,
    choose_rows,
    load_model,
    load_tokenizer,
    pack_groups,
    packed_attention,
    packing,
    response_logprobs,
    split_by_tokens,
)
from rlaif_framework.models.adapters import checkpoint_gradients
from rlaif_framework.models.layouts import Layout, set_layout
from rlaif_framework.models.packed_attention import PackedAttention, attend_packed, prepare_attention

CPU = torch.device("cpu")
GROUPS = [
    Group(list(range(10, 30)), [[40, 41, 42, 2], [50, 2], [60, 61, 62, 63, 64, 65, 2]]),
    Group([11, 12, 13], [[70, 71, 2]]),
    Group(list(range(100, 107)), [[80, 2], [81, 82, 83, 2]]),
]


@pytest.fixture(params=["whole rows", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How attention is computed, whatever takes less time."""
    monkeypatch.setattr(packing, "BLOCK_OVERHEAD", -10_000 if request.param == "blocks" else 10_000)
    assert (pack_groups(GROUPS, 0, CPU).blocks is not None) == (request.param == "blocks")
    return str(request.param)


@torch.no_grad()
def check_logprobs(model: PreTrainedModel) -> None:
    """Those of packed rows are those of each sequence alone."""
    ours = response_logprobs(model, pack_groups(GROUPS, 0, CPU))
    alone = []
    for group in GROUPS:
        for response in group.responses:
            logits = model(torch.tensor([group.prompt + response])).logits[0].log_softmax(-1)
            alone.append(logits[len(group.prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None]).squeeze(1))
    torch.testing.assert_close(ours, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logprobs_equal_those_of_each_sequence_alone(tiny_model: Path, attention: str) -> None:
    model = load_model(tiny_model, "causal", torch.float32, CPU, attn_implementation=attention)
    check_logprobs(model)


SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
WINDOWED = {
    "some layers": lambda: Gemma3TextConfig(
        **SIZES, num_hidden_layers=2, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "all layers": lambda: MistralConfig(**SIZES, num_hidden_layers=2, sliding_window=6),
    "beyond every row": lambda: MistralConfig(**SIZES, num_hidden_layers=2, sliding_window=512),
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_of_attention_counts_a_sequences_own_tokens(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(WINDOWED[name]()).save_pretrained(tmp_path)
    model = load_model(tmp_path, "causal", torch.float32, CPU)
    check_logprobs(model)


def lfm2_folder(folder: Path) -> Path:
    sizes = {**SIZES, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
    AutoModelForCausalLM.from_config(Lfm2Config(**sizes)).save_pretrained(folder)
    return folder


def test_models_with_layers_that_read_whole_rows_get_a_row_for_each_response(tmp_path: Path) -> None:
    check_logprobs(load_model(lfm2_folder(tmp_path), "causal", torch.float32, CPU))


def test_layers_that_read_whole_rows_refuse_several_responses_in_one(tmp_path: Path) -> None:
    model = load_model(lfm2_folder(tmp_path), "causal", torch.float32, CPU)
    set_layout(model, Layout())
    with pytest.raises(ModelError, match="'lfm2' has layers of kind conv, which ignore attention masks"):
        response_logprobs(model, pack_groups(GROUPS, 0, CPU))


def test_a_separate_row_has_each_token_where_it_is_looked_up(tmp_path: Path) -> None:
    model = load_model(lfm2_folder(tmp_path), "causal", torch.float32, CPU)
    packed = pack_groups(GROUPS, 0, CPU)
    separate = packed.fit(model)
    assert len(separate.input_ids) == len(separate.ends) == packed.responses
    for rows, columns in ((packed.rows, packed.columns), packed.ends.T):
        found = separate.input_ids[packed.locate(rows, columns)]
        assert found.tolist() == packed.input_ids[rows, columns].tolist()
    rows, columns = packed.locate(packed.rows, packed.columns)
    assert (rows.tolist(), columns.tolist())[1] == separate.columns.tolist()
    assert torch.stack(packed.locate(*packed.ends.T), 1).tolist() == separate.ends.tolist()


def test_a_sequence_longer_than_the_models_positions_is_refused(tiny_model: Path) -> None:
    model = load_model(tiny_model, "causal", torch.float32, CPU)
    with pytest.raises(ModelError, match=r"has 1,030 tokens, and the model \(llama\) has 1,024 positions"):
        response_logprobs(model, pack_groups([Group([5] * 1020, [[6] * 10])], 0, CPU))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_gradients_equal_those_of_each_sequence_alone(tiny_model: Path, checkpointing: bool) -> None:
    weights = torch.linspace(-1, 1, sum(len(r) for g in GROUPS for r in g.responses))

    def gradient(groups_of_groups: list[list[Group]]) -> torch.Tensor:
        model = load_model(tiny_model, "causal", torch.float32, CPU)
        if checkpointing:
            checkpoint_gradients(model.train())
        start = 0
        for groups in groups_of_groups:
            values = response_logprobs(model, pack_groups(groups, 0, CPU))
            (values * weights[start : start + len(values)]).sum().backward()
            start += len(values)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    single = [[Group(g.prompt, [r])] for g in GROUPS for r in g.responses]
    torch.testing.assert_close(gradient([GROUPS]), gradient(single), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "gpt2"])
def test_whole_rows_and_blocks_give_what_a_family_gives_each_sequence(family: str, heads: int) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    own = {"llama": {"num_key_value_heads": heads}, "qwen3": {"num_key_value_heads": heads, "head_dim": 12}}
    config = AutoConfig.for_model(family, vocab_size=120, **{**sizes, **own.get(family, {})})
    model = AutoModelForCausalLM.from_config(config).eval()
    prepare_attention(model)
    packed = pack_groups(GROUPS, 0, CPU)
    sequences = [(group.prompt, ids) for group in GROUPS for ids in group.responses]
    with torch.no_grad():
        ours = response_logprobs(model, packed).split([len(ids) for _, ids in sequences])
        for values, (prompt, ids) in zip(ours, sequences, strict=True):
            alone = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(1)
            torch.testing.assert_close(values, alone.gather(1, torch.tensor(ids)[:, None])[:, 0], atol=1e-5, rtol=1e-5)


def test_blocks_are_used_where_they_save_time_and_what_a_model_does_to_its_mask_is_kept(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Group([5] * 80, [[6] * 128] * 4)
    assert pack_groups([row] * 3, 0, CPU).blocks is not None
    assert pack_groups([Group([5] * 312, [[6] * 36] * 2)] * 5, 0, CPU).blocks is None
    model = load_model(tiny_model, "causal", torch.float32, CPU)
    calls: list[str] = []
    attend = PackedAttention.attend

    def counting(*args: Any) -> Any:
        calls.append("blocks")
        return attend(*args)

    monkeypatch.setattr(PackedAttention, "attend", counting)
    packed = pack_groups([row], 0, CPU)
    inputs = packed.model_inputs(model)
    with torch.no_grad():
        blocks = model(**inputs).logits
        assert len(calls) == model.config.num_hidden_layers
        whole = model(**{**inputs, "attention_mask": inputs["attention_mask"].clone()}).logits
    assert len(calls) == model.config.num_hidden_layers, "a mask that is not the batch's own says who sees whom"
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=1e-5)


def test_a_saved_model_attends_as_transformers_chooses(tiny_model: Path, tmp_path: Path) -> None:
    load_model(tiny_model, "causal", torch.float32, CPU).save_pretrained(tmp_path)
    assert "rlaif" not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_prompt_is_shared_where_that_saves_something_and_the_numbers_are_the_same(tiny_model: Path) -> None:
    long_prompt = [Group(list(range(3, 103)), [[40] * 5, [50] * 5])] * 2
    long_responses = [Group([3], [[40] * 90 + [2], [50] * 90 + [2]])] * 2
    assert list(choose_rows(long_prompt)) == long_prompt
    assert [len(row.responses) for row in choose_rows(long_responses)] == [1] * 4
    model = load_model(tiny_model, "causal", torch.float32, CPU)
    with torch.no_grad():
        spread = response_logprobs(model, pack_groups(choose_rows(long_responses), 0, CPU))
        shared = response_logprobs(model, pack_groups(long_responses, 0, CPU))
    torch.testing.assert_close(spread, shared, atol=1e-5, rtol=1e-5)


@pytest.fixture
def scorer(tiny_model: Path) -> ScoreModel:
    model = ScoreModel.load(tiny_model, load_tokenizer(tiny_model), torch.float32, CPU)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "score" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.usefixtures("way")
def test_a_score_alone_equals_its_score_in_any_batch(scorer: ScoreModel) -> None:
    together = scorer.score_groups(GROUPS, 0, 10_000, torch.float32)
    in_small_batches = scorer.score_groups(GROUPS, 0, 30, torch.float32)
    alone = [
        scorer.score_groups([Group(g.prompt, [r])], 0, 10_000, torch.float32)[0] for g in GROUPS for r in g.responses
    ]
    assert together == pytest.approx(alone, abs=1e-5)
    assert in_small_batches == pytest.approx(alone, abs=1e-5)
    assert len({round(s, 4) for s in alone}) == len(alone), "a scorer that gives one number to all proves nothing"


@pytest.mark.parametrize("side", ["left", "right"])
def test_transformers_alone_gives_the_same_score_padded_left_or_right(
    scorer: ScoreModel, tiny_model: Path, tmp_path: Path, side: str
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    ScoreModel.load(tiny_model, tokenizer, torch.float32, CPU)  # which gives the tokenizer its padding token
    pad: Any = tokenizer.pad_token_id
    assert pad != tokenizer.eos_token_id, "padded with the end token, transformers would read one position too early"
    scorer.save(tokenizer, tmp_path / "rm", torch.float32)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    sequences = [g.prompt + r for g in GROUPS for r in g.responses]
    width = max(map(len, sequences)) + 3
    ids = torch.full((len(sequences), width), pad)
    for row, sequence in enumerate(sequences):
        where = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        ids[row, where] = torch.tensor(sequence)
    mask = ids.ne(pad).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        theirs = opened(input_ids=ids, attention_mask=mask, position_ids=positions).logits.squeeze(-1)
    ours = scorer.score_groups(GROUPS, 0, 10_000, torch.float32)
    assert ours == pytest.approx(theirs.tolist(), abs=1e-5)


def test_batches_keep_to_their_budget_and_hold_everything_once() -> None:
    lengths = [5, 90, 30, 30, 7, 200, 1]
    batches = split_by_tokens(lengths, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 100


def test_no_way_to_batch_costs_less() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 8))]
        budget, overhead = draw.randint(40, 300), draw.randint(0, 80)
        batches = split_by_tokens(lengths, budget, overhead)

        def cost(batches: list[list[int]], lengths: list[int] = lengths, overhead: int = overhead) -> int:
            return sum(max(lengths[i] for i in batch) * len(batch) + overhead for batch in batches)

        longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        cuts = itertools.product([False, True], repeat=len(lengths) - 1)
        ways = [_cut(longest_first, where) for where in cuts]
        fitting = [way for way in ways if all(len(b) == 1 or lengths[b[0]] * len(b) <= budget for b in way)]
        assert cost(batches) == min(map(cost, fitting))


def _cut(items: list[int], where: Sequence[bool]) -> list[list[int]]:
    parts = [[items[0]]]
    for item, new in zip(items[1:], where, strict=True):
        parts += [[item]] if new else []
        if not new:
            parts[-1].append(item)
    return parts


def test_rows_of_a_length_of_their_own_are_not_planned_by_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def forward(*args: Any, **rest: Any) -> None:
        asked.append(torch.backends.cuda.cudnn_sdp_enabled())

    monkeypatch.setattr(packed_attention, "sdpa_attention_forward", forward)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    for on_a_gpu in (True, False):
        attend_packed(torch.nn.Module(), Mock(is_cuda=on_a_gpu), Mock(), Mock(), None)
    assert asked == [False, before]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_attends_without_cudnn(tiny_model: Path) -> None:
    model = load_model(tiny_model, "causal", torch.bfloat16, torch.device("cuda"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        response_logprobs(model, pack_groups(GROUPS, 0, model.device)).sum().backward()
    names = [event.key for event in profile.key_averages()]
    assert any("attention" in name for name in names)
    assert not any("cudnn_attention" in name for name in names)
