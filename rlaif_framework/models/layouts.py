"""How sequences can be laid out in the rows of a batch, which depends on a model's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

Generation = Literal["padded", "equal", "single", "none"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layouts that give every sequence what a forward pass of its own gives."""

    packed: bool = True
    """If True, a row can hold several responses to a prompt; otherwise it holds one sequence, padded on the right."""
    prefixes: bool = True
    """If True, the keys and values of a shared prefix can be computed once and used by all rows."""
    generation: Generation = "padded"
    """Prompts that can be generated from in one batch: of any length, padded on the left; of equal length; or one
    alone. `none` if the model cannot generate."""


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of a model, with or without adapters; the default one if it has not been tried."""
    # A wrapper with adapters finds the attributes of the model inside it.
    layout: Layout = getattr(model, "row_layout", Layout())
    return layout


def set_layout(model: nn.Module, layout: Layout) -> None:
    """Set the layout of a model."""
    model.__dict__["row_layout"] = layout  # no parameter, buffer or module
