"""Convert GGUF files to safetensors folders, once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlaif_framework.errors import ModelError
from rlaif_framework.files import atomic_path, cache_folder, locked, remove_leftovers
from rlaif_framework.models.source import ModelSource, check_hub, find_weights
from rlaif_framework.models.weights import measure_safetensors
from rlaif_framework.terminal import escape_controls


def converted_folder(source: ModelSource) -> Path:
    """Return the folder of a converted GGUF file, which may not exist yet."""
    return cache_folder() / "models" / source.identity.removeprefix("sha256:")


def gguf_settings(source: ModelSource) -> Path:
    """Return a folder with the config of a GGUF file, extracted on first use without converting the weights."""
    folder = converted_folder(source)
    if folder.exists():
        return folder
    folder = cache_folder() / "configs" / folder.name
    file = Path(source.location)

    def extract(temporary: Path) -> None:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        config.save_pretrained(temporary)

    return _make_once(folder, f"reads the config of {file}", extract)


def materialise(source: ModelSource) -> str:
    """Return a folder or hub id for `from_pretrained`. A GGUF file is converted on first use and cached.

    Raises:
        ModelError: The file is not a language model, or the hub has no such model or cannot be reached.
    """
    if not source.is_gguf:
        check_hub(source)
        return source.location
    file = Path(source.location)
    folder = converted_folder(source)
    _make_once(folder, f"converts {file}", lambda temporary: _convert_gguf(file, temporary))
    try:
        measure_safetensors([folder / "config.json", *find_weights(folder)])
    except (ModelError, OSError) as error:
        raise ModelError(f"{folder} is damaged: {error}; delete it, and rerun to convert {file} again") from error
    return str(folder)


def _make_once(folder: Path, work: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which is made on first use. Other processes wait while one makes it."""
    if folder.exists():  # before the lock, which needs a cache that can be written
        return folder
    with locked(folder, work, lambda text: print(escape_controls(text), file=sys.stderr)):
        if not folder.exists():
            remove_leftovers(folder.parent)
            with atomic_path(folder) as temporary:
                make(temporary)
    return folder


def _convert_gguf(file: Path, folder: Path) -> None:
    """Write the weights and the tokenizer of a GGUF file to a folder."""
    try:
        given: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{file} cannot be read as a language model: {error}") from error
    # `save_pretrained` refuses a model with a quantisation config: copy the dequantised weights into a plain model.
    facts = model.config.to_dict()
    facts.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(type(model.config)(**facts), trust_remote_code=False)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
