"""A tiny model, a spec with every stage and algorithm, and child processes that start at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ONLINE = {"steps": 2, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": 1e-3}
FEEDBACK = {
    "kind": "ai",
    "labeler": "length",
    "pairs": {"source": "both", "limit": 8, "prompts": 4},
    "allow_weak_labels": True,
}
REWARD = {"kind": "bradley-terry", "lr": 1e-3, "batch_size": 8}
ALGORITHMS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind, **ONLINE} for kind in ("reinforce", "a2c", "ppo", "rloo", "grpo", "online-dpo")},
    "best-of-n": {"kind": "best-of-n", "n": 2},
    "rejection-sampling": {"kind": "rejection-sampling", "n": 2, "prompts": 4, "sft": {"lr": 1e-3, "batch_size": 4}},
    "dpo": {"kind": "dpo", "lr": 1e-3, "batch_size": 8},
}


def make_model(folder: Path) -> Path:
    """Save a Llama with random weights and a tokenizer."""
    from conftest import save_tiny_model

    path = folder / "tiny"
    if not (path / "tokenizer.json").exists():
        save_tiny_model(path)
    return path


def make_spec(model: Path, *algorithms: str) -> dict[str, Any]:
    """Return a spec with an arm for each algorithm, and an evaluation."""
    arms = {}
    for kind in algorithms:
        arms[kind] = {"feedback": FEEDBACK, "algorithm": ALGORITHMS[kind]}
        if kind != "dpo":
            arms[kind]["reward"] = REWARD
    return {
        "name": "torture",
        "task": "tldr",
        "policy": {
            "model": str(model),
            "dtype": "fp32",
            "lora": {"rank": 2},
            "max_prompt_tokens": 96,
            "max_new_tokens": 6,
        },
        "sft": {"lr": 1e-3, "batch_size": 8, "limit": 16},
        "arms": arms,
        "evaluate": {"judge": "length", "prompts": 4, "comparisons": 6, "labelers": {"gold": "synthetic"}},
    }


def write_spec(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


@cache
def _import_everything() -> None:
    """Import what runs need, so that child processes have it from the start."""
    for module in (
        "transformers.models.llama.modeling_llama",
        "rlaif_framework.pipeline.engine",
        "rlaif_framework.training.policies",
        "rlaif_plugins.algorithms.dpo.algorithm",
        "rlaif_plugins.rewards.bradley_terry.model",
    ):
        import_module(module)


def in_child(work: Callable[[], object]) -> int:
    """Do work in a forked process, which has imported everything already; return its exit status as a shell does.

    What it prints goes to the file `child.log` in the current folder.
    """
    _import_everything()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            log = os.open("child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def command(*argv: object) -> None:
    """Run `rlaif` in this process; it ends with SystemExit."""
    from rlaif_framework.cli.main import main

    sys.argv = ["rlaif", *map(str, argv)]
    main()
