"""A tiny real language model, an oracle with a known taste, and specs that run in seconds."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from rlaif_framework import (
    PluginManager,
    Spec,
)
from rlaif_framework.plugins import discovery
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.spec.loading import build_spec
from support.commands import rlaif as rlaif
from support.fake_plugins import site as site
from support.oracle import oracle_module
from support.runs import run_folder as run_folder
from support.world import world as world

MINI = Path(__file__).parents[1] / "plugins" / "rlaif_plugins" / "tasks" / "tldr" / "tldr_mini.jsonl"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


TRACKIO = tempfile.TemporaryDirectory(prefix="trackio-")
"""Where trackio stores runs. In the user's cache, its default, they would be resumed by the next session."""


def pytest_configure() -> None:
    """Set what libraries read when they are imported: no hub, and one thread, as tiny models need no more."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TRACKIO_DIR"] = TRACKIO.name


FROZEN: set[str] = set()
"""Modules whose objects are kept out of garbage collections."""

LARGE_IMPORT = 100
"""Number of modules, such as those of one library, whose objects make collections slow."""


def pytest_collection_finish() -> None:
    _freeze()


def pytest_runtest_teardown() -> None:
    if len(sys.modules.keys() - FROZEN) > LARGE_IMPORT:
        _freeze()


def _freeze() -> None:
    """Keep what imports made out of garbage collections: a run collects after each of its stages."""
    gc.collect()
    gc.freeze()
    FROZEN.update(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No hub, no shared caches, no stray plugins."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RLAIF_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("RLAIF_PLUGINS", "")
    patch.setenv("TRANSFORMERS_VERBOSITY", "error")
    patch.setattr(discovery, "SLOW_SECONDS", math.inf)  # no warning of a plugin because the machine is busy
    yield
    patch.undo()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what all processes of pytest-xdist use and one of them makes, under a lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_model(shared: Path) -> Path:
    """A Llama of 2 layers with random weights, and a tokenizer trained on the embedded set."""
    folder = shared / "tiny"
    with FileLock(shared / "tiny.lock"):
        if not (folder / "tokenizer.json").exists():
            save_tiny_model(folder)
    return folder


def save_tiny_model(folder: Path) -> None:
    """Save the model, then its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    rows = [json.loads(line) for line in MINI.read_text(encoding="utf-8").splitlines()]
    # Not on all posts: new ones for the test split would make another model.
    tokenizer.train_from_iterator([r["post"] for r in rows if "flawed" in r], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[2],
        chat_template=CHAT,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.2,  # with the usual 0.02 a frozen head could hardly prefer any token
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)


@pytest.fixture
def manager() -> PluginManager:
    """The built-ins and the oracle."""
    found = PluginManager.load()
    found.add(Plugin("oracle", "rlaif-test", "1.0", module=oracle_module()))
    assert not [p.error for p in found.plugins if p.error]
    return found


@pytest.fixture
def tiny_spec(tiny_model: Path, manager: PluginManager) -> Callable[..., Spec]:
    """Build a spec over the tiny model; keyword arguments replace top-level keys."""

    def build(**changes: Any) -> Spec:
        data: dict[str, Any] = {
            "name": "tiny",
            "seed": 3,
            "task": "tldr",
            "policy": {
                "model": str(tiny_model),
                "dtype": "fp32",
                "lora": {"rank": 4},
                "max_prompt_tokens": 96,
                "max_new_tokens": 12,
            },
            "sft": {"lr": 1e-3, "batch_size": 8, "limit": 24},
            "arms": {
                "rlaif": {
                    "feedback": {
                        "kind": "ai",
                        "labeler": "test/taste",
                        "pairs": {"source": "both", "limit": 24, "prompts": 12},
                        "allow_weak_labels": True,  # the oracle's taste is not the data's
                    },
                    "reward": {"kind": "bradley-terry", "lr": 1e-3, "batch_size": 8},
                    "algorithm": {
                        "kind": "reinforce",
                        "steps": 3,
                        "prompts_per_step": 4,
                        "responses_per_prompt": 2,
                        "lr": 1e-3,
                        "value_from": "reward",
                    },
                }
            },
            "evaluate": {"judge": "length", "prompts": 6, "comparisons": 12, "labelers": {"own": "synthetic"}},
        }
        return build_spec({**data, **changes}, "tiny", manager)

    return build
