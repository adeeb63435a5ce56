"""The pydantic base class of all settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif_framework.errors import name_type, suggest


class Config(BaseModel):
    """Base of every part of a spec. Instances are frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,  # the default of a slot is written as {"kind": NAME} and must become a config
        allow_inf_nan=False,  # infinity would satisfy bounds such as gt=0
        defer_build=True,  # a command uses only some configs, and building all of them would slow it down
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse booleans in place of numbers, and say what to do about unknown keys and wrong types."""
        booleans, lines = list(_find_booleans(cls, value)), list[InitErrorDetails]()
        try:
            validated = handler(value)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                message = item["msg"].removeprefix("Value error, ")
                # A longer location belongs to a nested config, which has explained its own keys already.
                if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                    message = f"unknown key; {suggest(str(item['loc'][0]), cls.model_fields)}"
                elif item["type"] == "model_type":
                    message = f"expected a mapping of settings, got {name_type(item['input'])}"
                reason = PydanticCustomError(item["type"], "{message}", {"message": message})
                lines.append({"type": reason, "loc": item["loc"], "input": item["input"]})
        else:
            if not booleans:
                return validated
        told = {line["loc"] for line in lines}
        lines += [line for line in booleans if line["loc"] not in told]
        raise ValidationError.from_exception_data(cls.__name__, lines) from None


def _find_booleans(config: type[Config], settings: Any) -> Iterator[InitErrorDetails]:
    """Yield an error for each boolean in place of a number, such as `limit: true`, which pydantic would read as 1."""
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        places: dict[tuple[Any, ...], Any] = {(name,): value}
        if isinstance(value, Mapping | list):
            inside = value.items() if isinstance(value, Mapping) else enumerate(value)
            places = {(name, key): item for key, item in inside}
        for place, item in places.items():
            if isinstance(item, bool) and name in config.model_fields and _wants_numbers(config, name):
                yield {
                    "type": PydanticCustomError("number_type", "Input should be a number"),
                    "loc": place,
                    "input": item,
                }


@cache
def _wants_numbers(config: type[Config], name: str) -> bool:
    """Return True if a setting takes numbers, alone or in a list or mapping, and no booleans."""
    kinds = set(_find_kinds(config.model_fields[name].annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any}


def _find_kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _find_kinds(part)
