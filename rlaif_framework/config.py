"""The pydantic base class of all settings."""

from __future__ import annotations

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif_framework.errors import suggest


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
    def _explain_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Replace the messages about unknown keys and wrong types by ones that state the next step."""
        try:
            return handler(value)
        except ValidationError as error:
            lines: list[InitErrorDetails] = []
            for item in error.errors(include_url=False):
                message = item["msg"].removeprefix("Value error, ")
                # A longer location belongs to a nested config, which has explained its own keys already.
                if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                    message = f"unknown key; {suggest(str(item['loc'][0]), cls.model_fields)}"
                elif item["type"] == "model_type":
                    message = f"expected a mapping of settings, got {type(item['input']).__name__}"
                reason = PydanticCustomError(item["type"], "{message}", {"message": message})
                lines.append({"type": reason, "loc": item["loc"], "input": item["input"]})
            raise ValidationError.from_exception_data(cls.__name__, lines) from None
