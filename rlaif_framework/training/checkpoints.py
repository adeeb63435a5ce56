"""Save and restore the state of a training loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, MutableMapping

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlaif_framework.contracts.stage import Stage, resume_step


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _save(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    kept: Mapping[str, float],
    number: int,
) -> None:
    if not stage.is_main:
        return
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        unwrapped = stage.accelerator.unwrap_model(module)
        tensors |= {f"{name}/{key}": p.detach().contiguous() for key, p in trainable(unwrapped).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    final = stage.checkpoint / f"step-{number}"
    temporary = stage.checkpoint / f"writing-{number}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(tensors, temporary / "state.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": number, "state": dict(kept)}))
    temporary.rename(final)
    for old in stage.checkpoint.glob("step-*"):
        if old != final:
            shutil.rmtree(old)


def _restore(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    kept: MutableMapping[str, float],
) -> int:
    number = resume_step(stage.checkpoint)
    if number == 0:
        return 0
    folder = stage.checkpoint / f"step-{number}"
    kept.update(json.loads((folder / "state.json").read_text())["state"])
    tensors = load_file(folder / "state.safetensors")
    with torch.no_grad():
        for name, module in modules.items():
            for key, parameter in trainable(stage.accelerator.unwrap_model(module)).items():
                parameter.copy_(tensors[f"{name}/{key}"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return number
