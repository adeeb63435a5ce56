"""A saved policy answers in transformers, word for word, what the run measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from rlaif_framework import Context, PluginManager, Spec
from rlaif_framework.records import read_rows
from support.chat_models import TEMPLATES, TURN_ENDS, read_generation_config, save_chat_model
from support.runs import execute


def chat_spec(build: Callable[..., Spec], model: Path, **policy: object) -> Spec:
    arm = {
        "reward": {"kind": "length", "target": 20},
        "algorithm": {"kind": "rloo", "steps": 2, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": 1e-3},
    }
    settings = {
        "model": str(model),
        "dtype": "fp32",
        "lora": {"rank": 4},
        "max_prompt_tokens": 900,
        "max_new_tokens": 12,
    }
    return build(
        policy={**settings, **policy},
        arms={"rl": arm},
        sft={"lr": 1e-3, "batch_size": 4, "limit": 8},
        evaluate={"judge": "length", "prompts": 4, "comparisons": 4},
    )


@pytest.mark.parametrize("family", TEMPLATES)
def test_saved_chat_policies_answer_as_evaluated(
    family: str, tiny_spec: Callable[..., Spec], tiny_model: Path, manager: PluginManager, tmp_path: Path
) -> None:
    spec = chat_spec(tiny_spec, save_chat_model(family, tiny_model, tmp_path / family))
    run = execute(spec, tmp_path / "run", manager)
    prompts = {p.id: p for p in Context.from_spec(spec, manager).task.prompts("test")}
    for name, place in (("sft", "sft"), ("rl", "rl/policy")):
        folder = run.folder / place
        tokenizer = AutoTokenizer.from_pretrained(folder)
        end = tokenizer.convert_tokens_to_ids(TURN_ENDS[family])
        config = read_generation_config(folder)
        assert config["eos_token_id"] == sorted({end, tokenizer.eos_token_id})
        assert config["max_new_tokens"] == 12
        assert not {"repetition_penalty", "max_length"} & {key for key, value in config.items() if value is not None}
        chat = pipeline("text-generation", model=str(folder), device="cpu")
        for _, row in read_rows(run.folder / f"evaluation/responses/{name}/responses.jsonl"):
            turns = [{"role": role, "content": content} for role, content in prompts[row["prompt"]].conversation]
            answer = chat(turns)[0]["generated_text"][-1]["content"]
            assert answer.strip() == row["response"]


def test_a_plain_policy_has_no_chat_template(
    tiny_spec: Callable[..., Spec], tiny_model: Path, manager: PluginManager, tmp_path: Path
) -> None:
    model = save_chat_model("chatml", tiny_model, tmp_path / "chatml")
    run = execute(chat_spec(tiny_spec, model, chat="plain"), tmp_path / "run", manager)
    folder = run.folder / "rl" / "policy"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template is None
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    _, row = next(iter(read_rows(run.folder / "evaluation/responses/rl/responses.jsonl")))
    prompt = next(p for p in Context.from_spec(tiny_spec(), manager).task.prompts("test") if p.id == row["prompt"])
    inputs = tokenizer(prompt.text, return_tensors="pt")
    new = loaded.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True).strip() == row["response"]
