"""Read the files that Weights & Biases writes offline: a log of LevelDB whose records are messages of protobuf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, START = 32768, 7, 7
"""Size of a block, of the header of a record, and of that of the file."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_messages(path: Path) -> Iterator[bytes]:
    """Yield the records of a log."""
    data, at, parts = path.read_bytes(), START, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the end of a block is padding
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        content = data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        parts = content if kind in (FULL, FIRST) else parts + content
        if kind in (FULL, LAST):
            yield parts


def read_run(path: Path) -> dict[str, Any]:
    """Return the run, its history and its summary."""
    from wandb.proto import wandb_internal_pb2

    create_record: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined,unused-ignore]

    found: dict[str, Any] = {"history": [], "summary": {}}
    for message in read_messages(path):
        record: Any = create_record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] = {_key(item): json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            found["history"].append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            found["summary"].update({_key(item): json.loads(item.value_json) for item in record.summary.update})
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def _key(item: Any) -> str:
    return "/".join(item.nested_key) or str(item.key)
