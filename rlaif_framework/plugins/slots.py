"""Spec fields that hold a component, validated as the config of the component that `kind` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rlaif_framework.errors import PluginError, RlaifError, name_type
from rlaif_framework.plugins.component import ComponentConfig, Slot, SlotMark
from rlaif_framework.plugins.configs import (
    BASES,
    AlgorithmConfig,
    BackendConfig,
    LabelerConfig,
    MetricConfig,
    RewardConfig,
    StrategyConfig,
    TaskConfig,
    TrackerConfig,
    check_metric_names,
)
from rlaif_framework.plugins.examples import add_example
from rlaif_framework.plugins.failures import describe_error

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager

SLOT_MARK = "x-rlaif-slot"
"""Key that marks a slot in the JSON Schema until `spec_schema` replaces it."""


@dataclass(frozen=True)
class SlotType(SlotMark):
    """Marks a spec field as a slot, so that the JSON Schema can list the components that fit."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a mark that `spec_schema` replaces by the components of the slot."""
        return {SLOT_MARK: self.name}

    def validate(self, value: object, info: ValidationInfo) -> ComponentConfig:
        """Validate a slot's value with the plugin manager in the validation context."""
        manager = (info.context or {}).get("manager")
        if manager is None:  # a config that is created in Python, without a spec
            from rlaif_framework.plugins.manager import PluginManager

            manager = PluginManager.load()
        try:
            return narrow(self.name, value, manager)
        except PluginError as error:  # pydantic collects only ValueErrors, with their locations
            raise ValueError(str(error)) from error


@overload
def narrow(slot: Literal["task"], value: object, manager: PluginManager) -> TaskConfig: ...
@overload
def narrow(slot: Literal["backend"], value: object, manager: PluginManager) -> BackendConfig: ...
@overload
def narrow(slot: Literal["strategy"], value: object, manager: PluginManager) -> StrategyConfig: ...
@overload
def narrow(slot: Literal["labeler"], value: object, manager: PluginManager) -> LabelerConfig: ...
@overload
def narrow(slot: Literal["reward"], value: object, manager: PluginManager) -> RewardConfig: ...
@overload
def narrow(slot: Literal["algorithm"], value: object, manager: PluginManager) -> AlgorithmConfig: ...
@overload
def narrow(slot: Literal["metric"], value: object, manager: PluginManager) -> MetricConfig: ...
@overload
def narrow(slot: Literal["tracker"], value: object, manager: PluginManager) -> TrackerConfig: ...
@overload
def narrow(slot: Slot, value: object, manager: PluginManager) -> ComponentConfig: ...
def narrow(slot: Slot, value: object, manager: PluginManager) -> ComponentConfig:
    """Validate a slot's value as the config of the component that its `kind` names.

    Accepts a config, a mapping with `kind`, or shorthand: the kind alone.
    """
    article = "an" if slot.startswith("a") else "a"
    if isinstance(value, ComponentConfig):
        if not isinstance(value, BASES[slot]):
            raise ValueError(f"expected {article} {slot}, got {type(value).__name__}")
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"expected the name of {article} {slot} or a mapping with 'kind', got {name_type(value)}")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"'kind' is missing: name one of {', '.join(manager.names(slot))}")
    component = manager.find(slot, kind)
    try:
        config = component.config.model_validate(dict(value), context={"manager": manager})
    except ValidationError as error:
        raise add_example(error, component, manager) from None
    except RlaifError:
        raise
    except Exception as error:  # of the plugin's own validators
        reason = describe_error(error, component.config.__module__)
        raise PluginError(f"{manager.title(slot, kind)}: its settings cannot be read: {reason}") from error
    try:
        config.model_dump_json()
    except Exception as error:  # of pydantic, or of the plugin's own serialisers
        reason = str(error).partition("\n")[0]
        raise PluginError(f"{manager.title(slot, kind)}: its settings cannot be written as JSON: {reason}") from error
    return config


def check_scores(labeler: LabelerConfig) -> LabelerConfig:
    """Check that a labeler scores responses alone.

    Raises:
        ValueError: It does not.
    """
    if not labeler.scores_responses:
        raise ValueError(
            f"labeler '{labeler.kind}' compares responses and cannot score one alone; use one that can, such as "
            "'rate', 'similarity', 'likelihood', 'rouge' or 'length'"
        )
    return labeler


def default_component(kind: str) -> Any:
    """Use the component of this name, with its own defaults, as the default of a slot."""
    return Field({"kind": kind})


def default_components(*kinds: str) -> Any:
    """Use the components of these names, with their own defaults, as the default of a field with several slots."""
    return Field([{"kind": kind} for kind in kinds])


_TASK, _BACKEND, _STRATEGY = SlotType("task"), SlotType("backend"), SlotType("strategy")
_LABELER, _REWARD, _ALGORITHM = SlotType("labeler"), SlotType("reward"), SlotType("algorithm")
_METRIC = SlotType("metric")
_TRACKER = SlotType("tracker")

# SerializeAsAny: dumping a field by its declared base would drop the settings of the component.
TaskSlot = Annotated[SerializeAsAny[TaskConfig], _TASK, BeforeValidator(_TASK.validate)]
BackendSlot = Annotated[SerializeAsAny[BackendConfig], _BACKEND, BeforeValidator(_BACKEND.validate)]
StrategySlot = Annotated[SerializeAsAny[StrategyConfig], _STRATEGY, BeforeValidator(_STRATEGY.validate)]
LabelerSlot = Annotated[SerializeAsAny[LabelerConfig], _LABELER, BeforeValidator(_LABELER.validate)]
ScoringLabelerSlot = Annotated[LabelerSlot, AfterValidator(check_scores)]
"""A labeler that scores each response alone (`LabelerConfig.scores_responses`)."""

RewardSlot = Annotated[SerializeAsAny[RewardConfig], _REWARD, BeforeValidator(_REWARD.validate)]
AlgorithmSlot = Annotated[SerializeAsAny[AlgorithmConfig], _ALGORITHM, BeforeValidator(_ALGORITHM.validate)]
MetricSlot = Annotated[SerializeAsAny[MetricConfig], _METRIC, BeforeValidator(_METRIC.validate)]

MetricSlots = Annotated[list[MetricSlot], AfterValidator(check_metric_names)]
"""Several metrics, which measure numbers with different names."""

TrackerSlot = Annotated[SerializeAsAny[TrackerConfig], _TRACKER, BeforeValidator(_TRACKER.validate)]
