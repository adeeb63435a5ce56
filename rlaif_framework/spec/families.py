"""Expand a spec with `seeds` or `matrix` into the settings of several runs, its members."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationError

from rlaif_framework.config import Config
from rlaif_framework.errors import SpecError, suggest
from rlaif_framework.spec.layers import Layers
from rlaif_framework.spec.merging import MATRIX, assign
from rlaif_framework.spec.model import Name, Spec
from rlaif_framework.spec.problems import explain

SEEDS, SEED = "seeds", "seed"

MAX_MEMBERS = 500
"""Maximum number of members."""

MAX_MEMBER_NAME = 200
"""Maximum number of characters of a member's name, which is the name of its folder."""


def _check_value(value: Any) -> Any:
    if isinstance(value, list | Mapping):
        raise ValueError("a list has numbers and texts only; name the values instead: {name: value}")
    return value


def _check_values(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("the list is empty; write at least one value, or remove the key")
    for number, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:number]):
            raise ValueError(f"{json.dumps(value)} is listed twice")
    return values


def _check_variants(variants: dict[str, Any]) -> dict[str, Any]:
    if not variants:
        raise ValueError("there are no variants; write at least one name with its value, or remove the key")
    return variants


def _choose_form(axis: Any) -> str:
    return "variants" if isinstance(axis, Mapping) else "none" if axis is None else "values"


Scalar = Annotated[bool | int | float | str | None, BeforeValidator(_check_value)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], AfterValidator(_check_values)]
Axis = Annotated[
    Annotated[Annotated[list[Scalar], AfterValidator(_check_values)], Tag("values")]
    | Annotated[Annotated[dict[Name, Any], AfterValidator(_check_variants)], Tag("variants")]
    | Annotated[None, Tag("none")],
    Discriminator(_choose_form),  # without it, an error would describe all forms
]


class FamilyKeys(Config):
    """Keys that make a spec a family of runs: one for each combination of the values."""

    seeds: Seeds | None = None
    """Seeds, each for a run of its own: shorthand for `matrix: {seed: [...]}`. All runs have the same test prompts and
    validation comparisons, which `evaluation_seed` chooses, or else the spec's `seed`."""
    matrix: dict[str, Axis] = Field({})
    """What differs between the runs. A key is the path of a setting, as `--set` takes it, with a list of values or a
    mapping of named values. A key without a dot that is no key of a spec is a name of your choice: its variants map
    paths to values, to change several settings at once. `null` removes a key of a spec below."""


@dataclass(frozen=True)
class Choice:
    """One value of an axis of the matrix."""

    axis: str
    """The key in the matrix, or `seed`."""
    label: str
    """Its part of the member's name: `seed=0`, or the name of the variant."""
    value: str
    """The value as text, or the name of the variant."""
    settings: Mapping[str, Any]
    """Values by their paths."""
    key: str
    """Its place in the spec: `matrix.AXIS`."""
    stated: str
    """Where that is, such as `spec.yaml:7`."""

    @property
    def where(self) -> str:
        """Both of these, for errors."""
        return f"{self.stated}: {self.key}" if self.stated else self.key


@dataclass(frozen=True)
class Variation:
    """The settings of one member, before validation."""

    choices: tuple[Choice, ...]
    """Its value of each axis. That of the seed is the last one."""
    layers: Layers
    """The settings, and where they are stated."""

    @property
    def name(self) -> str:
        """Name of the member, and of its folder."""
        return _join(self.choices)

    @property
    def variant(self) -> str:
        """Name that the members which differ by their seed have in common; empty if only the seed varies."""
        return _join(choice for choice in self.choices if choice.axis != SEED)


@dataclass(frozen=True)
class Member:
    """One run of a family."""

    name: str
    """Its name, also that of its folder, such as `beta=0.1,seed=2`."""
    variant: str
    """Name that members which differ by their seed have in common."""
    choices: Mapping[str, str]
    """What it has in place of each key of the matrix and `seed`, as text."""
    spec: Spec


@dataclass(frozen=True)
class Family:
    """A spec with `seeds` or `matrix`: several runs."""

    name: str
    settings: Mapping[str, Any]
    """The spec as plain JSON, before it is expanded."""
    members: tuple[Member, ...]
    """The runs, those of one variant after each other."""

    def find(self, name: str) -> Member:
        """Return a member by its name.

        Raises:
            SpecError: There is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise SpecError(f"the family has no member '{name}'; {suggest(name, (m.name for m in self.members))}")


def is_family(data: Mapping[str, Any]) -> bool:
    """Return True if a spec stands for several runs."""
    matrix = data.get(MATRIX)
    if isinstance(matrix, Mapping):  # null removes a key of a spec below
        matrix = [axis for axis in matrix.values() if axis is not None] or None
    return data.get(SEEDS) is not None or matrix is not None


def expand(layers: Layers, origin: str) -> list[Variation]:
    """Expand a spec into the settings of its members; those of one variant follow each other.

    Args:
        layers: The spec's files and settings.
        origin: Its name in errors.

    Raises:
        SpecError: The keys of the family are not valid, a path of the matrix does not fit the spec, two members have
            the same name, or there are too many.
    """
    keys = {key: layers.data[key] for key in (SEEDS, MATRIX) if layers.data.get(key) is not None}
    try:
        FamilyKeys.model_validate(keys)
    except ValidationError as error:
        raise explain(error, keys, f"{origin} is not a valid family of runs", layers) from error
    axes = list(_list_axes(layers))
    if (count := prod(map(len, axes))) > MAX_MEMBERS:
        raise SpecError(f"{origin} has {count} members, and at most {MAX_MEMBERS} are allowed; remove some values")
    variations = [Variation(choices, _apply(layers, choices)) for choices in product(*axes)]
    _check_names(variations, origin)
    return variations


def remove_family_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a spec without the keys that only families use."""
    return {key: value for key, value in data.items() if key not in (SEEDS, MATRIX)}


def _list_axes(layers: Layers) -> Iterator[list[Choice]]:
    """Yield the values of each axis, those of the seed last."""
    data = layers.data
    matrix = {key: values for key, values in (data.get(MATRIX) or {}).items() if values is not None}
    places: dict[str, tuple[str, ...]] = {axis: (MATRIX, axis) for axis in matrix}
    if data.get(SEEDS) is not None:
        if SEED in matrix:
            raise SpecError(f"{layers.locate((SEEDS,))}: seeds: the matrix varies the seed already; remove one of them")
        matrix[SEED], places[SEED] = data[SEEDS], (SEEDS,)
    for axis in sorted(matrix, key=lambda axis: axis == SEED):
        choices = list(_list_choices(axis, matrix[axis], ".".join(places[axis]), layers.locate(places[axis])))
        for choice in choices:
            _check_paths(choice, layers.data.get("arms"))
        yield choices


def _list_choices(axis: str, values: Any, key: str, stated: str) -> Iterator[Choice]:
    is_path = "." in axis or axis in Spec.model_fields
    if isinstance(values, list):
        shown = ".".join(part for part in axis.split(".") if part != "*")
        for value in values:
            text = value if isinstance(value, str) else json.dumps(value)
            yield Choice(axis, _clean(f"{shown}={text}"), str(text), {axis: value}, key, stated)
        return
    for name, value in values.items():
        choice = Choice(axis, name, name, {axis: value} if is_path else value, f"{key}.{name}", stated)
        if not isinstance(choice.settings, Mapping):
            raise SpecError(
                f"{choice.where}: '{axis}' is no path in a spec, so its variants map paths to values, such as "
                "{policy.max_new_tokens: 64}, or {} for the spec as it is"
            )
        yield choice


def _check_paths(choice: Choice, arms: Any) -> None:
    """Refuse paths that the spec does not have, of which some would otherwise be created."""
    for path in choice.settings:
        first, _, rest = str(path).partition(".")
        if first not in Spec.model_fields:
            raise SpecError(f"{choice.where}: a spec has no '{first}'; {suggest(first, Spec.model_fields)}")
        arm, _, inside = rest.partition(".")
        if first == "arms" and inside and arm != "*" and isinstance(arms, Mapping) and arm not in arms:
            raise SpecError(f"{choice.where}: the spec has no arm '{arm}'; {suggest(arm, map(str, arms))}")


def _apply(layers: Layers, choices: tuple[Choice, ...]) -> Layers:
    """Return the settings of a member."""
    data = deepcopy(remove_family_keys(layers.data))
    # Before the seed is set: members are compared on the same prompts.
    if any(choice.axis == SEED for choice in choices) and data.get("evaluation_seed") is None:
        data["evaluation_seed"] = data.get(SEED, Spec.model_fields[SEED].default)
    overrides = list(layers.overrides)
    for choice in choices:
        for path, value in choice.settings.items():
            places = assign(data, path, deepcopy(value), choice.where)
            overrides += [(place, choice.stated) for place in places]
    return Layers(layers.files, data, overrides)


def _check_names(variations: list[Variation], origin: str) -> None:
    seen: set[str] = set()
    for name in (variation.name for variation in variations):
        if len(name) > MAX_MEMBER_NAME:
            raise SpecError(
                f"{origin}: the name of member {name[:80]}... has more than {MAX_MEMBER_NAME} characters; name the "
                "values in the matrix: {short-name: value}"
            )
        if name.lower() in seen:  # some file systems ignore the case of names
            raise SpecError(
                f"{origin}: two members have the name '{name}'; name the values in the matrix: {{name: value}}"
            )
        seen.add(name.lower())


def _join(choices: Iterable[Choice]) -> str:
    return ",".join(choice.label for choice in choices)


def _clean(label: str) -> str:
    """Replace what the name of a folder should not have."""
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "-", label).strip("-.")
