"""Architectures of transformers in the roles of a run, compared with one plain forward pass for each prompt.

`PYTHONPATH=tests python -m support.architectures` writes the table of docs/models.md.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlaif_framework import Choose, Context, ModelError, Question
from rlaif_framework.models import (
    Group,
    ScoreModel,
    add_lora,
    choose_rows,
    load_model,
    load_tokenizer,
    pack_groups,
    response_logprobs,
    sample_responses,
)
from rlaif_framework.models.decoding import can_share_prefixes
from rlaif_framework.models.layouts import layout_of
from rlaif_framework.models.probe import check_head
from rlaif_framework.models.tiny_copy import build_tiny, shrink_config
from rlaif_framework.spec.model import LoraSettings
from rlaif_plugins.backends.transformers import TransformersConfig
from rlaif_plugins.backends.transformers.backend import TransformersBackend

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- architectures: written by tests/support/architectures.py -->", "<!-- end of architectures -->"
CPU = torch.device("cpu")
TOLERANCE = 1e-4

WINDOWED = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
SPARSE = {
    **{"index_topk": 32, "index_n_heads": 8, "num_attention_heads": 8, "num_key_value_heads": 8},
    **{"hidden_size": 256, "intermediate_size": 256, "moe_intermediate_size": 64, "q_lora_rank": 64},
    **{"kv_lora_rank": 64, "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    **{"n_group": 1, "topk_group": 1},
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral, sliding window": ("mistral", {"sliding_window": 64}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mixtral": ("mixtral", {}),
    "ministral3": ("ministral3", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, sliding window": ("qwen2", WINDOWED),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_next": ("qwen3_next", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {}),
    "gemma3_text": ("gemma3_text", {}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {"sliding_window": 64}),
    "stablelm": ("stablelm", {}),
    "starcoder2": ("starcoder2", {"sliding_window": 64}),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere2", {}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {}),
    "olmoe": ("olmoe", {}),
    "gpt_neox": ("gpt_neox", {}),
    "smollm3": ("smollm3", {}),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "granite": ("granite", {}),
    "granitemoe": ("granitemoe", {}),
    "granitemoehybrid": ("granitemoehybrid", {"layer_types": ["mamba", "mamba", "attention", "mamba"] * 8}),
    "exaone4": ("exaone4", {}),
    "gpt_oss": ("gpt_oss", {}),
    "deepseek_v3": ("deepseek_v3", {}),
    "deepseek_v32": ("deepseek_v32", SPARSE),
    "helium": ("helium", {}),
    "persimmon": ("persimmon", {}),
    "gpt2": ("gpt2", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_neo": ("gpt_neo", {}),
    "gptj": ("gptj", {}),
    "codegen": ("codegen", {}),
    "opt": ("opt", {}),
    "xglm": ("xglm", {}),
    "biogpt": ("biogpt", {}),
    "openai-gpt": ("openai-gpt", {}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {}),
    "falcon": ("falcon", {}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "doge": ("doge", {}),
    "minimax": ("minimax", {}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    "falcon_h1": ("falcon_h1", {}),
    "jamba": ("jamba", {}),
    "bamba": ("bamba", {"attn_layer_indices": [1, 3]}),
    "recurrent_gemma": ("recurrent_gemma", {}),
    "mamba": ("mamba", {}),
    "mamba2": ("mamba2", {}),
    "falcon_mamba": ("falcon_mamba", {}),
    "rwkv": ("rwkv", {}),
    "bert": ("bert", {}),
}
"""Model type of transformers and settings by the name in the table; all other settings are the defaults."""

IN_CI = (
    "llama",
    "mistral, sliding window",
    "qwen2, sliding window",
    "gemma2",
    "olmo3",
    "gpt_oss",
    "deepseek_v32",
    "gpt2",
    "gpt_neo",
    "bloom",
    "falcon, ALiBi",
    "mamba",
    "rwkv",
    "bert",
)
"""Architectures that are tried in every run of the tests; the others have the marker `slow`."""


@dataclass(frozen=True)
class Roles:
    """How an architecture serves in each role: the layout of rows, or a refusal."""

    labeler: str
    policy: str
    sampling: str
    reward: str

    def row(self, name: str) -> str:
        """Write a row of the table."""
        return f"| {name} | {self.labeler} | {self.policy} | {self.sampling} | {self.reward} |"


def make_folder(name: str, folder: Path) -> None:
    """Save a tiny random model of an architecture, with a tokenizer of single characters."""
    kind, settings = ARCHITECTURES[name]
    config = shrink_config(AutoConfig.for_model(kind, **settings))
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id, text.bos_token_id = 0, 2, 1
    build_tiny(config, cast(Any, AutoModelForCausalLM.from_config)).save_pretrained(folder)
    specials = ["<pad>", "<bos>", "<eos>"]
    letters = {chr(code): i for i, code in enumerate(range(32, 127), len(specials))}
    words = {**{token: i for i, token in enumerate(specials)}, **letters, "\n": len(specials) + len(letters)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=specials[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    ).save_pretrained(folder)


def try_roles(name: str, folder: Path) -> Roles:
    """Try all roles of a tiny model, and compare them with plain forward passes.

    Raises:
        AssertionError: A number differs.
    """
    make_folder(name, folder)
    try:
        model = load_model(folder, "causal", torch.float32, CPU)
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return Roles(*["refused"] * 4)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layout = layout_of(model)
    with torch.no_grad():
        check_labeler(folder, plain)
        check_policy(model, plain)
        generation = check_sampling(model, folder, plain)
        reward = check_reward(model, folder)
    check_training(folder)
    rows = "packed" if layout.packed else "a row each"
    return Roles("packed" if layout.prefixes else "a row each", rows, generation, reward)


START = "Which of the two summaries is better? The post: "
POSTS = ("my neighbour parks in my space", "short", "my neighbour never washes the dishes, and the kitchen is a mess")


def check_labeler(folder: Path, plain: PreTrainedModel) -> None:
    """Compare the probabilities of options with those of a pass for each question."""
    context = cast(Context, SimpleNamespace(device=CPU, batch_tokens=400))
    backend = TransformersBackend(TransformersConfig(model=str(folder), dtype="fp32"), context)
    options = ("1", "2", "10")
    requests = [Choose(Question(START + post, "The better one is"), options) for post in (*POSTS, POSTS[0])]
    for number, answer in backend.answer(requests):
        question = requests[number].question
        ids = backend.encode(question)
        logprobs = plain(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(0)
        digits = [load_tokenizer(folder).convert_tokens_to_ids(digit) for digit in ("1", "2", "0")]
        after = plain(input_ids=torch.tensor([[*ids, digits[0]]])).logits[0, -1].log_softmax(0)
        one, two = float(logprobs[digits[0]].exp()), float(logprobs[digits[1]].exp())
        ten = one * float(after[digits[2]].exp())
        expected = torch.tensor([one - ten, two, ten])
        found = torch.tensor(answer.probabilities)
        torch.testing.assert_close(found, expected / expected.sum(), atol=TOLERANCE, rtol=0)
        assert answer.mass is not None
        assert math.isclose(answer.mass, float(expected.sum()), abs_tol=TOLERANCE)


def make_groups() -> list[Group]:
    """Return prompts of 5 to 50 tokens with responses of 1 to 30."""
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 98, (length,), generator=draw).tolist()

    return [Group(ids(50), [ids(30), ids(4), ids(17)]), Group(ids(5), [ids(1), ids(12)]), Group(ids(20), [ids(6)])]


def check_policy(model: PreTrainedModel, plain: PreTrainedModel) -> None:
    """Compare log-probabilities of packed responses with those of a pass for each."""
    groups = make_groups()
    expected = []
    for group in groups:
        for ids in group.responses:
            logprobs = plain(input_ids=torch.tensor([group.prompt + ids])).logits[0].log_softmax(1)
            expected.append(logprobs[len(group.prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0])
    for rows in (groups, choose_rows(groups)):
        found = response_logprobs(model, pack_groups(rows, 0, CPU))
        torch.testing.assert_close(found, torch.cat(expected), atol=TOLERANCE, rtol=1e-5)


@torch.enable_grad()
def check_training(folder: Path) -> None:
    """Train adapters for a step: they have gradients, and those of new adapters change nothing."""
    model = load_model(folder, "causal", torch.float32, CPU)
    packed = pack_groups(make_groups(), 0, CPU)
    expected = response_logprobs(model, packed).detach()
    wrapped = add_lora(model, LoraSettings(rank=2), "CAUSAL_LM").train()
    found = response_logprobs(wrapped, packed)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=1e-5)
    found.sum().backward()
    gradients = [p.grad for p in wrapped.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def check_sampling(model: PreTrainedModel, folder: Path, plain: PreTrainedModel) -> str:
    """Compare greedy responses with the most likely tokens of a pass for each token."""
    prompts = [group.prompt for group in make_groups()]
    prompts = [*prompts, prompts[0], prompts[0][::-1]]
    tokenizer = load_tokenizer(folder)
    try:
        samples = sample_responses(model, tokenizer, prompts, max_new_tokens=6, temperature=0.0, seed=0)
    except ModelError:
        return "refused"
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (len(ids) == len(prompt) or ids[-1] != tokenizer.eos_token_id):
            ids.append(int(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert sample.ids == ids[len(prompt) :]
    kinds = {"padded": "padded", "equal": "equal lengths", "single": "one by one"}
    return "shared prompts" if can_share_prefixes(model) else kinds[layout_of(model).generation]


def check_reward(model: PreTrainedModel, folder: Path) -> str:
    """Compare scores with those of a saved model, from a pass for each response."""
    try:
        check_head(model.config, "the model")
        tokenizer = load_tokenizer(folder)
        scorer = ScoreModel.load(folder, tokenizer, torch.float32, CPU, head="normal")
    except ModelError:
        return "no"
    groups = make_groups()
    found = scorer.score_groups(groups, 0, 200, torch.float32)
    scorer.save(tokenizer, folder / "scorer", torch.float32)
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "scorer", dtype=torch.float32).eval()
    alone = [float(plain(input_ids=torch.tensor([g.prompt + ids])).logits) for g in groups for ids in g.responses]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(alone), atol=TOLERANCE, rtol=TOLERANCE)
    return "packed" if layout_of(scorer.model).packed else "a row each"


def read_table() -> dict[str, str]:
    """Return the rows of the page's table by architecture."""
    block = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in block.splitlines() if line.startswith("| ")]
    return {row.split("|")[1].strip(): row for row in rows[1:] if not row.startswith("| ---")}


def write_table(rows: Sequence[str]) -> None:
    """Write the table into the page."""
    titles = "| Architecture | Labeler, rater | Policy, reference | Sampling | Reward, value model |"
    head = [titles, "| --- " * 5 + "|"]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, "", *head, *rows, "", END]) + after, encoding="utf-8")


def _measure_rows() -> Iterator[str]:
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            row = try_roles(name, Path(folder)).row(name)
            print(row, file=sys.stderr)
            yield row


if __name__ == "__main__":
    write_table(list(_measure_rows()))
