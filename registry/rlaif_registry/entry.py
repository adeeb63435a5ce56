"""The model of an entry of the catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator, model_validator

Kind = Literal["task", "backend", "strategy", "labeler", "reward", "algorithm", "metric", "tracker", "command"]
"""A kind of component, or a subcommand of `rlaif`."""

Status = Literal["built in", "example", "listed", "unmaintained"]

Text = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Entry(BaseModel):
    """A distribution with plugins. A listing is neither a review nor an endorsement."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    distribution: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    """Name for `pip install`."""
    namespace: str = Field(pattern=r"^[\w-]*$")
    """First part of the names of its components, which no other distribution can use; empty for the built-ins only."""
    summary: Text
    """One line on what it offers."""
    homepage: str = Field(pattern=r"^https://[^\s<>\"]+$")
    """Where its source or documentation is."""
    requires: str
    """The versions of rlaif-framework that it works with, as a pip requirement."""
    status: Status
    """`listed` for plugins of others; `unmaintained` if its authors say so."""
    components: dict[Kind, list[str]]
    """Names of its components by kind."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kinds(self) -> list[str]:
        """The kinds of components that it offers."""
        return list(self.components)

    @field_validator("requires")
    @classmethod
    def _check_requirement(cls, value: str) -> str:
        try:
            name = Requirement(value).name
        except InvalidRequirement as error:
            raise ValueError(f"'{value}' is not a requirement such as 'rlaif-framework>=0.1,<0.2'") from error
        if canonicalize_name(name) != "rlaif-framework":
            raise ValueError(f"'{value}' is not a requirement of rlaif-framework")
        return value

    @model_validator(mode="after")
    def _check_names(self) -> Entry:
        if (self.namespace == "") != (self.status == "built in"):
            raise ValueError("only the built-ins have no namespace, and they have none")
        for kind, names in self.components.items():
            if names != sorted(set(names)) or not names:
                raise ValueError(f"components.{kind}: list each name once, sorted")
            for name in names:
                inside = name.startswith(f"{self.namespace}/") or (kind == "command" and name == self.namespace)
                if self.namespace and not inside:
                    raise ValueError(f"components.{kind}: '{name}' does not begin with '{self.namespace}/'")
        return self

    def mentions(self, word: str) -> bool:
        """Return True if a word is part of the name, the namespace, the summary, a kind or a component."""
        names = [name for found in self.components.values() for name in found]
        texts = [self.distribution, self.namespace, self.summary, *self.components, *names]
        return any(word.lower() in text.lower() for text in texts)

    def names_with(self, word: str) -> list[str]:
        """Return the components, such as `labeler acme/a`, that a word is part of; all if it is in none of them."""
        names = [f"{kind} {name}" for kind, found in self.components.items() for name in found]
        return [name for name in names if word.lower() in name.lower()] or names
