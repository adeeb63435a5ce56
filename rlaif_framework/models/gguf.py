"""Convert GGUF files to safetensors folders, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlaif_framework.errors import ModelError
from rlaif_framework.models.source import ModelSource, check_hub
from rlaif_framework.store import atomic_path, cache_folder


def converted_folder(source: ModelSource) -> Path:
    """Return the folder of a converted GGUF file, which may not exist yet."""
    return cache_folder() / "models" / source.identity.removeprefix("sha256:")


def gguf_settings(source: ModelSource) -> Path:
    """Return a folder with the config of a GGUF file, extracted on first use without converting the weights."""
    folder = converted_folder(source)
    if folder.exists():
        return folder
    folder = cache_folder() / "configs" / folder.name
    if not folder.exists():
        file = Path(source.location)
        with atomic_path(folder) as temporary:
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
            config.save_pretrained(temporary)
    return folder


def materialise(source: ModelSource) -> str:
    """Return a folder or hub id for `from_pretrained`. A GGUF file is converted on first use and cached.

    Raises:
        ModelError: The file is not a language model, or the hub has no such model or cannot be reached.
    """
    if not source.is_gguf:
        check_hub(source)
        return source.location
    folder = converted_folder(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another process may be converting the same file.
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _convert_gguf(Path(source.location), folder)
    return str(folder)


def _convert_gguf(file: Path, folder: Path) -> None:
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
    with atomic_path(folder) as temporary:
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
