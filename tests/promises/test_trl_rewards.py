"""Reward functions written for TRL's GRPOTrainer run unchanged, and get the scores that its trainer computes."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer

from rlaif_framework import Prompt
from rlaif_framework.plugins import OwnCode
from rlaif_framework.plugins.slots import narrow
from support.world import World

FUNCTIONS = """
import asyncio
import re

from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward

overlong = get_soft_overlong_punishment(max_completion_len=40, soft_punish_cache=39)
repetition = get_repetition_penalty_reward(ngram_size=2)


# The examples of TRL's documentation.
def longer(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


async def longer_async(prompts, completions, **kwargs):
    await asyncio.sleep(0)
    return [float(len(completion)) for completion in completions]


def correct(completions, ground_truth, **kwargs):
    matches = [re.search(r"\\\\boxed\\{(.*?)\\}", completion) for completion in completions]
    contents = [match.group(1) if match else "" for match in matches]
    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth)]


def math_only(prompts, completions, task, **kwargs):
    return [1.0 if p == "1+1" else None for p, t in zip(prompts, task)]


def logging(completions, log_extra=None, log_metric=None, **kwargs):
    if log_metric:
        log_metric("accuracy", 0.5)
    return [0.5 for _ in completions]
"""
PROMPTS = [Prompt("a", "1+1", "1+1", "2"), Prompt("b", "2+2", "2+2", "4")]
RESPONSES = [r"It is \boxed{2}.", "<think>\nso so so so so\n</think>\n4"]
COLUMNS = {"ground_truth": "reference", "task": "id"}


def score_in_trl(function: Any, tokenizer: PreTrainedTokenizerBase, conversational: bool) -> list[float]:
    """Score the responses with the code of TRL's trainer."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=False),
        args=SimpleNamespace(report_to=[]),
        reward_funcs=[function],
        reward_processing_classes=[None],
        reward_func_names=["f"],
        state=SimpleNamespace(global_step=0),
        environments=None,
        async_loop=loop,
        _log_completion_extra=lambda *given: None,
        _log_metric=lambda *given: None,
    )
    rows = [{"prompt": p.text, **{name: getattr(p, source) for name, source in COLUMNS.items()}} for p in PROMPTS]
    prompts: list[Any] = [p.text for p in PROMPTS]
    completions: list[Any] = list(RESPONSES)
    if conversational:
        prompts = [[{"role": "user", "content": text}] for text in prompts]
        completions = [[{"role": "assistant", "content": text}] for text in completions]
    ids = [tokenizer(text).input_ids for text in RESPONSES]
    found = GRPOTrainer._calculate_rewards(trainer, rows, prompts, completions, ids)
    loop.call_soon_threadsafe(loop.stop)
    # TRL leaves what does not apply out of the sum of the rewards.
    values: list[float] = found[:, 0].nan_to_num(0.0).tolist()
    return values


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes to gather from."""
    monkeypatch.setattr(sys.modules[GRPOTrainer.__module__], "gather", lambda values: values)


@pytest.mark.parametrize(
    ("name", "conversational"),
    [
        ("think_format_reward", True),
        ("overlong", False),
        ("repetition", False),
        ("longer", False),
        ("longer_async", False),
        ("correct", False),
        ("math_only", False),
        ("logging", True),
    ],
)
def test_a_reward_function_gets_the_scores_that_trl_computes(
    name: str, conversational: bool, tmp_path: Path, world: World
) -> None:
    (tmp_path / "rewards.py").write_text(FUNCTIONS)
    code = OwnCode(allow_all=True)
    context = world.stage("reward").context
    context.manager.code = code
    target = f"{tmp_path / 'rewards.py'}:{name}"
    settings = {"kind": "function", "target": target, "columns": COLUMNS, "conversational": conversational}
    reward = context.build_reward(narrow("reward", settings, context.manager)).load(tmp_path)
    found = reward.score(PROMPTS, RESPONSES)
    tokenizer = context.load_policy_tokenizer(context.policy_source)
    expected = score_in_trl(code.find_function(target), tokenizer, conversational)
    assert torch.tensor(found, dtype=torch.float32).tolist() == expected
    assert len(set(expected)) == 2 or name == "logging", "the responses do not tell the function from a constant"
