"""Run the Python code of models only if the user trusts it, and load weights only from safetensors.

transformers asks on stdin whether to run a model's code unless `trust_remote_code` is given, so it is given everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from rlaif_framework.errors import ModelError
from rlaif_framework.models.source import ModelSource

DYNAMIC = "transformers_modules."
"""Start of the names of modules that transformers makes from the code of models."""


def source_settings(source: ModelSource) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a model's source: its commit, and whether its code may run.

    Raises:
        ModelError: Its code is trusted, but is in another repository.
    """
    if source.trusted:
        _check_code(source)
    return {"revision": source.commit or source.revision or "main", "trust_remote_code": source.trusted}


def has_own_code(config: PreTrainedConfig) -> bool:
    """Return True for the config of a model with code of its own, which the user trusts, or it would not be loaded."""
    return type(config).__module__.startswith(DYNAMIC)


def check_config(config: PreTrainedConfig, name: str) -> None:
    """Check that a config asks for no code from elsewhere, and for no other weights than those of its identity.

    Raises:
        ModelError: Its implementation of attention would be downloaded, or it names a file of weights.
    """
    weights = getattr(config, "transformers_weights", None)  # a setting of any config, which none declares
    if weights is not None:
        raise ModelError(
            f"'{name}': its config.json names the weights '{weights}'; remove 'transformers_weights' from it, and name "
            "the file model.safetensors"
        )
    parts = [getattr(config, part, None) for part in config.sub_configs]
    for part in (config, *(part for part in parts if isinstance(part, PreTrainedConfig))):
        attention = str(part._attn_implementation)
        if "/" in attention:
            raise ModelError(
                f"'{name}': its config.json asks for attention code from '{attention}', which is never downloaded; "
                "remove 'attn_implementation' from the file"
            )


def check_class(model: PreTrainedModel, name: str) -> None:
    """Check that a model's own code can be seen from its config, by which its layout is found.

    Raises:
        ModelError: Its code has no class for its config.
    """
    if type(model).__module__.startswith(DYNAMIC) and not has_own_code(model.config):
        raise ModelError(
            f"'{name}': its code replaces the model class of '{model.config.model_type}' without a config class; add a "
            "config class to its auto_map"
        )


def _check_code(source: ModelSource) -> None:
    """Check that the code of a trusted model is among its own files, which its identity covers."""
    for name in ("config.json", "tokenizer_config.json"):
        for reference in _read_code_references(_find_file(source, name)):
            repository, separator, _ = reference.partition("--")
            if separator:
                raise ModelError(
                    f"'{source.name}': its {name} names code in another repository, {repository}, which may change; "
                    "download both into one folder, and name the code without the repository"
                )


def _find_file(source: ModelSource, name: str) -> Path:
    if Path(source.location).is_dir():
        return Path(source.location) / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(source.location, name, revision=source.commit or source.revision))
    except (EntryNotFoundError, OSError):  # there is no such file, or loading the model reports the cause
        return Path(name).absolute() / "missing"


def _read_code_references(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["auto_map"].values()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    return [str(item) for value in found for item in (value if isinstance(value, list) else [value])]
