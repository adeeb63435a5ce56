"""Build the JSON Schema of specs, with the installed components as alternatives of each slot."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import SLOT_MARK
from rlaif_framework.spec.families import FamilyKeys
from rlaif_framework.spec.layers import BASE
from rlaif_framework.spec.model import Spec

BASE_HELP = (
    "Another spec, on top of which this one is merged: its path, relative to this file, or package:NAME/PATH for one "
    "in an installed package."
)
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def spec_schema(manager: PluginManager) -> dict[str, Any]:
    """Build the JSON Schema of specs, which editors use for validation and completion."""
    definitions: dict[str, Any] = {}
    for slot in SLOTS:
        choices: list[dict[str, Any]] = []
        for component, _ in manager.components(slot):
            # A '/' in the key of a definition would have to be escaped in every reference.
            key = f"{slot}.{component.name.replace('/', '.')}"
            # Nested settings of two plugins may have the same name: the key of the component is their prefix.
            definitions[key] = _model_schema(component.config, definitions, f"{key}.")
            definitions[key]["properties"]["kind"] = {"const": component.name, "description": component.summary}
            # `kind` has a default for use in Python, but a mapping in a spec must have it.
            definitions[key]["required"] = sorted({*definitions[key].get("required", []), "kind"})
            choices.append({"$ref": f"#/$defs/{key}"})
        short = {"enum": manager.names(slot), "description": f"Shorthand for {{kind: <{slot}>}} with all defaults."}
        definitions[f"slot.{slot}"] = {"oneOf": [short, *choices]}
    schema = _model_schema(Spec, definitions)
    # The shorthand is expanded by a validator, which pydantic's schema does not contain.
    arm = definitions["Arm"]["properties"]["feedback"]
    arm["anyOf"].append({"enum": ["human"], "description": "Shorthand for {kind: human}."})
    # Reading a spec removes these keys, so `Spec` does not have them.
    family = _model_schema(FamilyKeys, definitions)["properties"]
    schema["properties"] = {BASE: {"type": "string", "description": BASE_HELP}, **family, **schema["properties"]}
    # The base may have what is required.
    required = {"if": {"not": {"required": [BASE]}}, "then": {"required": schema.pop("required")}}
    return {"$schema": DIALECT, **schema, **required, "title": "rlaif spec", "$defs": definitions}


def _model_schema(model: type[BaseModel], definitions: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    schema = _link_slots(model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}"))
    definitions.update({f"{prefix}{name}": part for name, part in schema.pop("$defs", {}).items()})
    # A model that contains itself is a reference to its definition.
    whole = schema.pop("$ref", None)
    return dict(schema) if whole is None else {**definitions[whole.removeprefix("#/$defs/")], **schema}


def _link_slots(node: Any) -> Any:
    """Replace the mark of each slot by a reference to the slot's alternatives."""
    if isinstance(node, list):
        return [_link_slots(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: _link_slots(value) for key, value in node.items() if key != SLOT_MARK}
    return {"$ref": f"#/$defs/slot.{node[SLOT_MARK]}", **rest} if SLOT_MARK in node else rest
