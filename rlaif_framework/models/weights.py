"""Count the parameters of a model from the headers of its files."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from reprlib import repr as short
from typing import Any

from rlaif_framework.errors import ModelError

_NOT_ADAPTED = re.compile(r"emb|wte|wpe|lm_head|^output\.weight$")
"""Names of embeddings and heads, which have no adapters."""


def measure_safetensors(files: list[Path]) -> dict[str, int]:
    """Count the parameters of a model folder.

    Args:
        files: Its `config.json`, followed by its safetensors files.

    Returns:
        `parameters`, and `linear_width`: the sum of (inputs + outputs) over its linear layers.

    Raises:
        ModelError: A file is damaged or incomplete.
    """
    config, *weights = files
    _check_config(config)
    shapes: dict[str, list[int]] = {}
    for file in weights:
        shapes |= _read_shapes(file)
    return _count(shapes, config.parent)


def _read_shapes(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as stream:
        try:
            # The format: 8 bytes with the length of the header, the header as JSON, and the tensors.
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file; it may be truncated, or a Git LFS pointer")
            header = json.loads(stream.read(length))
            tensors = {key: item for key, item in header.items() if key != "__metadata__"}
            whole = 8 + length + max((item["data_offsets"][1] for item in tensors.values()), default=0)
            if whole != file.stat().st_size:
                raise ValueError(f"its header describes {whole:,} bytes, the file has {file.stat().st_size:,}")
            return {key: _check_shape(key, item["shape"]) for key, item in tensors.items()}
        except (struct.error, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            raise ModelError(f"{file} is not a complete safetensors file: {error}") from error


def _check_shape(name: str, shape: Any) -> list[int]:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the shape of '{name}' is {short(shape)}, not a list of sizes")
    return shape


def _check_config(file: Path) -> None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not a model config: it contains a {type(config).__name__}, not a mapping")


def measure_gguf(file: Path) -> dict[str, int]:
    """Count the parameters of a GGUF file; see `measure_safetensors`."""
    from gguf import GGUFReader

    class WholeReader(GGUFReader):
        """Refuses values beyond the end of the file; the library reads them as empty, as many as a count says."""

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            found = super()._get(offset, dtype, count, override_order)
            if len(found) < count:
                raise ValueError("it ends within a value")
            return found

    try:
        tensors = WholeReader(file).tensors
    except (ValueError, LookupError, OverflowError, RecursionError) as error:
        raise ModelError(f"{file} is not a complete GGUF file: {error}") from error
    return _count({t.name: [int(n) for n in t.shape] for t in tensors}, file)


def _count(shapes: Mapping[str, list[int]], where: Path) -> dict[str, int]:
    if not shapes:
        raise ModelError(f"{where} is not a model: it contains no weights")
    linear = [shape for name, shape in shapes.items() if len(shape) == 2 and not _NOT_ADAPTED.search(name)]
    return {"parameters": sum(map(prod, shapes.values())), "linear_width": sum(map(sum, linear))}
