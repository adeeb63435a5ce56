"""The type of a setting that is a template."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _check(source: str) -> str:
    # Imported here, because Jinja takes longer to import than most specs to read.
    from rlaif_framework.data.templates import Template, TemplateFault

    try:
        Template("template", source)
    except TemplateFault as fault:
        raise ValueError(fault.reason) from fault
    return source


TemplateText = Annotated[str, AfterValidator(_check)]
"""A Jinja template, which is compiled when the settings are read, so that errors have the line of the spec."""
