"""Measure speed and memory of an RLOO step, relative to TRL's RLOOTrainer in the same run.

python benchmarks/rl_step.py [--cases small large] [--precisions fp32 bf16] [--steps 3] [--random 1B]
                             [--train-tokens 2048] [--trl-responses 16]

Both sides train the same model on the same prompts against the same reward model, with the same number of generated
tokens (the EOS token is one that the model never generates), in the same precision, each in a separate process. A case
is prompts x responses x tokens. A step consists of sampling, scoring, reference and update. Prints one line per case:
the ratio of samples per second to TRL's, such as `2.31x`, peak memory, and the seconds of each part of our step.
Medians exclude the first step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sides import (
    MINI,
    add_arguments,
    answer_side,
    describe,
    make_clock,
    run_side,
    save_scores,
    save_start,
    time_steps,
    wait,
)

from rlaif_framework import Context, Guidance, PluginManager, Prompt
from rlaif_framework.models import load_model, load_tokenizer
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.rl import OnlineLearner, learner, policy_gradient
from rlaif_framework.spec.loading import build_spec

CASES = {"small": (4, 4, 48), "large": (16, 4, 128)}
BETA, TEMPERATURE, LR = 0.05, 0.9, 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser, list(CASES), ["fp32", "bf16"], steps=3)
    parser.add_argument("--prompt-tokens", type=int, default=80)
    parser.add_argument(
        "--trl-responses",
        type=int,
        default=16,
        help="responses per pass with gradients on TRL's side: 64 of a 135M model needed more than 23 GiB",
    )
    given = parser.parse_args()
    if answer_side(given.side, {"ours": run_ours, "trl": run_trl}):
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = Path(scratch) / "start"
        save_start(given.model, given.random, start)
        save_scores(start, Path(scratch) / "reward")
        model, threads = given.random or given.model, torch.get_num_threads()
        print(f"# {model}, prompts of {given.prompt_tokens} tokens, {threads} threads", flush=True)
        ours: dict[tuple[str, str], float] = {}
        for case in given.cases:
            for precision in given.precisions:
                settings = {
                    "case": case,
                    "precision": precision,
                    "steps": given.steps,
                    "length": given.prompt_tokens,
                    "train_tokens": given.train_tokens,
                    "trl_responses": given.trl_responses,
                    "start": str(start),
                    "reward": f"{scratch}/reward",
                }
                mine = run_side(sys.argv[0], {**settings, "who": "ours"})
                theirs = None if given.only else run_side(sys.argv[0], {**settings, "who": "trl"})
                ours[case, precision] = describe(mine["seconds"])
                print(compare(case, precision, mine, theirs), flush=True)
                if precision == "bf16" and (case, "fp32") in ours:
                    gain = ours[case, "fp32"] / ours[case, "bf16"]
                    print(f"{case}, our bf16 against our fp32: {gain:.2f}x", flush=True)


def compare(case: str, precision: str, mine: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    """Format one line."""
    prompts, responses, tokens = CASES[case]
    seconds = describe(mine["seconds"])
    parts = ", ".join(f"{name} {value:.1f}" for name, value in mine["parts"].items())
    rate = prompts * responses / seconds
    line = f"{case} ({prompts} x {responses} x {tokens}), {precision}: "
    if theirs is None:
        return f"{line}{rate:.3f} samples/s, {seconds:.1f} s per step ({parts}), peak {mine['peak'] / 2**30:.2f} GiB"
    slow = describe(theirs["seconds"])
    return (
        f"{line}{slow / seconds:.2f}x  ({rate:.3f} against {prompts * responses / slow:.3f} samples/s; "
        f"{seconds:.1f} s per step: {parts}; against {slow:.1f} s, of which sampling {theirs['sampling']:.1f}; "
        f"peak {mine['peak'] / 2**30:.2f} against {theirs['peak'] / 2**30:.2f} GiB)"
    )


def read_prompts(start: str, count: int, length: int) -> list[str]:
    """Return posts that are truncated to the same number of tokens."""
    tokenizer = load_tokenizer(start)
    posts = [json.loads(line)["post"] for line in MINI.read_text(encoding="utf-8").splitlines()]
    ids = [tokenizer(post)["input_ids"] for post in posts]
    long = [own[:length] for own in ids if len(own) >= length]
    return [str(tokenizer.decode(long[i % len(long)])) for i in range(count)]


def run_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Run steps of the algorithm `rloo`, and measure their parts."""
    prompts, responses, tokens = CASES[settings["case"]]
    manager = PluginManager.load()
    algorithm = {
        "kind": "rloo",
        "steps": settings["steps"],
        "prompts_per_step": prompts,
        "responses_per_prompt": responses,
        "temperature": TEMPERATURE,
        "beta": BETA,
        "lr": LR,
        "samples_every": 1000,  # never: TRL writes no samples either
    }
    policy = {
        "model": settings["start"],
        "chat": "plain",  # as on the other side
        "dtype": settings["precision"],
        "max_new_tokens": tokens,
        "train_tokens": settings["train_tokens"],
    }
    spec = build_spec({"task": "tldr", "policy": policy, "evaluate": None}, "benchmark", manager)
    context = Context.from_spec(spec, manager)
    model = context.build_algorithm(narrow("algorithm", algorithm, manager))
    reward = context.build_reward(narrow("reward", "bradley-terry", manager)).load(Path(settings["reward"]))
    texts = read_prompts(settings["start"], prompts * settings["steps"], settings["length"])
    pool = [Prompt(str(i), text, text) for i, text in enumerate(texts)]
    parts: dict[str, list[float]] = defaultdict(list)
    timed(OnlineLearner, "sample", "sampling", parts)
    timed(OnlineLearner, "reference_logprobs", "reference", parts)
    timed(OnlineLearner, "policy_logprobs", "forward", parts)
    timed(type(context.accelerator), "backward", "backward", parts)
    timed(policy_gradient, "score_rollout", "reward", parts)
    start = Path(settings["start"])
    seconds, _ = time_steps(
        learner, "improve", context, lambda stage: model.improve(start, Guidance(reward), pool, stage)
    )
    shown = {name: sum(values) / settings["steps"] for name, values in parts.items()}
    shown["rest"] = sum(seconds) / len(seconds) - sum(shown.values())
    return {"seconds": seconds, "parts": shown}


def timed(owner: Any, name: str, part: str, into: dict[str, list[float]]) -> None:
    """Replace a function by one that appends the seconds of each call to `into[part]`."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **rest: Any) -> Any:
        wait()
        start = time.perf_counter()
        result = original(*args, **rest)
        wait()
        into[part].append(time.perf_counter() - start)
        return result

    setattr(owner, name, call)


def run_trl(settings: dict[str, Any]) -> dict[str, Any]:
    """Run steps of TRL's RLOOTrainer."""
    import trl
    from datasets import Dataset

    prompts, responses, tokens = CASES[settings["case"]]
    together = min(settings["trl_responses"], prompts * responses)
    seconds: list[float] = []

    with tempfile.TemporaryDirectory() as scratch:
        config = trl.RLOOConfig(
            output_dir=scratch,
            max_steps=settings["steps"],
            per_device_train_batch_size=together,
            gradient_accumulation_steps=prompts * responses // together,
            num_generations=responses,
            max_completion_length=tokens,
            temperature=TEMPERATURE,
            beta=BETA,
            learning_rate=LR,
            bf16=settings["precision"] == "bf16",
            gradient_checkpointing=False,
            disable_dropout=True,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = trl.RLOOTrainer(
            model=load_model(settings["start"], "causal", torch.float32, torch.device("cpu")),
            reward_funcs=settings["reward"],
            args=config,
            train_dataset=Dataset.from_dict(
                {"prompt": read_prompts(settings["start"], prompts * settings["steps"], settings["length"])}
            ),
            processing_class=load_tokenizer(settings["start"]),
        )
        trainer.add_callback(make_clock(seconds))
        sampling: dict[str, list[float]] = defaultdict(list)
        timed(trainer, "_generate", "sampling", sampling)
        trainer.train()
    return {"seconds": seconds, "sampling": sum(sampling["sampling"]) / settings["steps"]}


if __name__ == "__main__":
    main()
