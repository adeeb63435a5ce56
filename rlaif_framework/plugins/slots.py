"""Spec fields that hold a component, narrowed by `kind` to the component's own config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rlaif_framework.errors import PluginError

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager

from rlaif_framework.plugins.component import ComponentConfig, Slot

SLOT_MARK = "x-rlaif-slot"


@dataclass(frozen=True)
class SlotType:
    """Marks a spec field as a slot, so that the schema can list the components that fit."""

    name: Slot

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Leave a mark, for `spec_schema` to put the slot's alternatives there."""
        return {SLOT_MARK: self.name}


def narrow(slot: Slot, value: object, manager: PluginManager) -> ComponentConfig:
    """Validate a slot's value as the config of the component its `kind` names.

    Accepts a config, a mapping with `kind`, or the short form: the kind alone.
    """
    if isinstance(value, ComponentConfig):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        article = "an" if slot.startswith("a") else "a"
        raise ValueError(f"expected the name of {article} {slot} or a mapping with 'kind', got {type(value).__name__}")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"'kind' is missing: name one of {', '.join(manager.names(slot))}")
    component = manager.find(slot, kind)
    return component.config.model_validate(dict(value), context={"manager": manager})


def _validate_slot(value: object, info: ValidationInfo, *, slot: Slot) -> ComponentConfig:
    manager = (info.context or {}).get("manager")
    if manager is None:
        from rlaif_framework.plugins.manager import PluginManager

        manager = PluginManager.load()
    try:
        return narrow(slot, value, manager)
    except PluginError as error:
        raise ValueError(str(error)) from error


def default_component(kind: str) -> Any:
    """Default of a slot: the component of this name with its own defaults."""
    return Field({"kind": kind})


TaskSlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("task"), BeforeValidator(partial(_validate_slot, slot="task"))
]


BackendSlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("backend"), BeforeValidator(partial(_validate_slot, slot="backend"))
]


StrategySlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("strategy"), BeforeValidator(partial(_validate_slot, slot="strategy"))
]


LabelerSlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("labeler"), BeforeValidator(partial(_validate_slot, slot="labeler"))
]


RewardSlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("reward"), BeforeValidator(partial(_validate_slot, slot="reward"))
]


AlgorithmSlot = Annotated[
    SerializeAsAny[ComponentConfig], SlotType("algorithm"), BeforeValidator(partial(_validate_slot, slot="algorithm"))
]
