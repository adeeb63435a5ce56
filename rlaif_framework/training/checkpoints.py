"""Save and restore the state of a training loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlaif_framework.contracts.stage import Stage, resume_step
from rlaif_framework.files import atomic_path

TENSORS, NUMBERS = "state.safetensors", "state.json"


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters that require a gradient."""
    # safetensors refuses tensors that are not contiguous.
    with atomic_path(path) as temporary:
        save_file({name: p.detach().contiguous() for name, p in trainable(module).items()}, temporary)


@torch.no_grad()
def load_weights(module: nn.Module, path: Path) -> None:
    """Set the parameters that require a gradient to those that `save_weights` wrote."""
    tensors = load_file(path)
    for name, parameter in trainable(module).items():
        parameter.copy_(tensors[name])


def save_checkpoint(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, float],
    number: int,
) -> None:
    """Write the state after `number` steps and delete older checkpoints; only the main process writes."""
    if not stage.is_main:
        return
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        unwrapped = stage.accelerator.unwrap_model(module)
        # safetensors refuses tensors that are not contiguous.
        tensors |= {f"{name}/{key}": p.detach().contiguous() for key, p in trainable(unwrapped).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    final = stage.checkpoint / f"step-{number}"
    temporary = stage.checkpoint / f"writing-{number}"  # a name that `resume_step` ignores
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(tensors, temporary / TENSORS)
    (temporary / NUMBERS).write_text(json.dumps({"step": number, "state": dict(state)}))
    # A rename is atomic: an interrupted write leaves no folder that looks like a checkpoint.
    temporary.rename(final)
    # Only after the rename: there is a complete checkpoint at any time.
    for old in stage.checkpoint.glob("step-*"):
        if old != final:
            shutil.rmtree(old)


def restore_checkpoint(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: MutableMapping[str, float],
) -> int:
    """Restore the last checkpoint in place and return the number of completed steps; 0 without a checkpoint.

    Raises:
        TrainingError: The checkpoint is damaged.
    """
    number = resume_step(stage.checkpoint)
    if number:
        with stage.reading_checkpoint():
            _restore(stage, modules, optimizer, state, number)
    return number


def _restore(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: MutableMapping[str, float],
    number: int,
) -> None:
    folder = stage.checkpoint / f"step-{number}"
    state.update(json.loads((folder / NUMBERS).read_text())["state"])
    tensors = load_file(folder / TENSORS)
    with torch.no_grad():
        for name, module in modules.items():
            for key, parameter in trainable(stage.accelerator.unwrap_model(module)).items():
                parameter.copy_(tensors[f"{name}/{key}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
    # Its parameter groups come from the config, their learning rates from the schedule: only the moments are restored.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
