"""The JSON Schema of specs, with each slot's alternatives taken from the installed components."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rlaif_framework.component import SLOTS, Slot
from rlaif_framework.plugins import Registry
from rlaif_framework.spec import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def spec_schema(registry: Registry) -> dict[str, Any]:
    """Build the schema an editor validates and completes specs with."""
    definitions: dict[str, Any] = {}
    for slot in SLOTS:
        choices: list[dict[str, Any]] = []
        for component, _ in registry.components(slot):
            # A '/' in a definition's key would have to be escaped in every reference to it.
            key = f"{slot}.{component.name.replace('/', '.')}"
            definitions[key] = _model_schema(component.config, definitions)
            definitions[key]["properties"]["kind"] = {"const": component.name, "description": component.summary}
            definitions[key]["required"] = sorted({*definitions[key].get("required", []), "kind"})
            choices.append({"$ref": f"#/$defs/{key}"})
        short = {"enum": registry.names(slot), "description": f"Short for {{kind: <{slot}>}} with all its defaults."}
        definitions[f"slot.{slot}"] = {"oneOf": [short, *choices]}
    schema = _model_schema(Spec, definitions)
    arm = definitions["Arm"]["properties"]["feedback"]
    arm["anyOf"].append({"enum": ["human"], "description": "Short for {kind: human}."})
    return {"$schema": DIALECT, "title": "rlaif spec", **schema, "$defs": definitions}


class _SlotSchema(GenerateJsonSchema):
    """Writes a reference to the slot's alternatives wherever a model has a slot."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        slot: Slot | None = getattr(schema["function"]["function"], "keywords", {}).get("slot")
        if slot is not None:
            return {"$ref": f"#/$defs/slot.{slot}"}
        return super().function_before_schema(schema)


def _model_schema(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="validation", schema_generator=_SlotSchema)
    definitions.update(schema.pop("$defs", {}))
    return schema
