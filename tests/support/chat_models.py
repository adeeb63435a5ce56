"""Tiny models with the chat templates and end tokens of well-known families."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    AddedToken,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

# Reduced to what differs between the families: markers, system turns, dates, start tokens and ends of turns.
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}"
        "{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not su"
        "pported') }}{% endif %}"
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<"
        "end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ strftime_now('%d %b %Y') }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}"
        "{% endif %}<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | "
        "trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "llama2": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    "harmony": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m.content }}{{ '<|return|>' if m.role == 'assistant' else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "glm": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think></think>\n{% endif %}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "r1": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
        "{% else %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content.split('</think>')[-1] }}"
        "{{ eos_token if m.role == 'assistant' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
    ),
}

TOKENS = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "llama2": ["<s>", "</s>"],
    "harmony": ["<|startoftext|>", "<|return|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>"],
    "qwen3": ["<|im_start|>", "<|im_end|>"],
    "glm": ["<|user|>", "<|endoftext|>", "<|assistant|>", "<|system|>"],
    "r1": ["<s>", "</s>"],
}
"""Special tokens: the start and the end token first."""

UNMARKED = {
    "qwen3": ["<think>", "</think>"],
    "glm": ["<think>", "</think>"],
    "r1": ["<think>", "<|user|>", "<|assistant|>"],
}
"""Added tokens that are not marked as special."""

TURN_ENDS = {
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama3": "<|eot_id|>",
    "llama2": "</s>",
    "harmony": "<|return|>",
    "qwen3": "<|im_end|>",
    "glm": "<|endoftext|>",
    "r1": "</s>",
}


def save_chat_model(family: str, base: Path, folder: Path) -> Path:
    """Save the tiny model with another family's special tokens and chat template."""
    plain = AutoTokenizer.from_pretrained(base)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, bos_token=TOKENS[family][0], eos_token=TOKENS[family][1]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": TOKENS[family]})
    tokenizer.add_tokens([AddedToken(token, special=False) for token in UNMARKED.get(family, [])])
    tokenizer.chat_template = TEMPLATES[family]
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    end, turn = (tokenizer.convert_tokens_to_ids(t) for t in (TOKENS[family][1], TURN_ENDS[family]))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted({end, turn}), repetition_penalty=1.3, max_length=20
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read_generation_config(folder: Path) -> dict[str, object]:
    """Read a saved generation config as plain JSON."""
    return dict(json.loads((folder / "generation_config.json").read_text()))
