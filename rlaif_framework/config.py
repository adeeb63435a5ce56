"""The pydantic base class of all settings."""

from __future__ import annotations

import re
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

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""Name of a model or data set on the Hugging Face Hub. A data set always has an owner before its name."""


class Config(BaseModel):
    """Base of every part of a spec: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,  # a command uses few of all the settings there are
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Name the nearest known key beside each unknown one."""
        try:
            return handler(value)
        except ValidationError as error:
            lines: list[InitErrorDetails] = []
            for item in error.errors(include_url=False):
                message = item["msg"].removeprefix("Value error, ")
                if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                    message = f"unknown key; {suggest(str(item['loc'][0]), cls.model_fields)}"
                elif item["type"] == "model_type":
                    message = f"expected a mapping of settings, got {type(item['input']).__name__}"
                reason = PydanticCustomError(item["type"], "{message}", {"message": message})
                lines.append({"type": reason, "loc": item["loc"], "input": item["input"]})
            raise ValidationError.from_exception_data(cls.__name__, lines) from None
