"""Components that plugins offer, and the base class of their configs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from pydantic import PositiveInt

from rlaif_framework.config import Config
from rlaif_framework.plugins.config_returns import check_overrides
from rlaif_framework.plugins.own_code import FunctionName

Slot = Literal[
    "task",
    "backend",
    "strategy",
    "labeler",
    "reward",
    "algorithm",
    "metric",
    "tracker",
]
SLOTS: tuple[Slot, ...] = get_args(Slot)


@dataclass(frozen=True)
class SlotMark:
    """Marks a setting as a slot."""

    name: Slot


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """A model that a stage holds in memory."""

    model: str
    """Name, in the same forms as `policy.model`."""
    role: str
    """Purpose of the model, e.g. `value model`."""
    trained: bool = False
    """If True, the model is trained and also needs memory for gradients and optimiser state."""
    dtype: Literal["policy", "fp32", "bf16"] = "policy"
    """Precision of the weights: that of the policy (`policy`), or a fixed one."""
    shared: bool = False
    """If True, the model shares the policy's base weights when adapters are trained."""
    groups: PositiveInt = 16
    """Number of prompts per training step."""
    responses: PositiveInt = 1
    """Number of responses per prompt."""
    lora: Config | Literal["policy"] | None = "policy"
    """Adapters to train (`LoraSettings`), None to train all weights, or `policy` to use the policy's setting."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """Optimiser, which determines the size of the optimiser state."""
    device: Literal["policy", "cpu"] = "policy"
    """Device that holds the model: that of the policy, or the CPU."""
    trust_remote_code: bool = False
    """If True, the model's own Python code is run. The policy's model has its setting in the policy."""


class ComponentConfig(Config):
    """Base of all component configs.

    Plugins subclass the base of their kind of component: `TaskConfig`, `BackendConfig`, `StrategyConfig`,
    `LabelerConfig`, `RewardConfig`, `AlgorithmConfig`, `MetricConfig` or `TrackerConfig`.
    """

    _slot: ClassVar[Slot]

    kind: str
    """Name of the component."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Validate what the members that a subclass overrides return."""
        super().__pydantic_init_subclass__(**kwargs)
        check_overrides(cls)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the models that this component holds in memory.

        `rlaif plan` shows these models, and their contents are part of the keys of artefacts. The default lists the
        models of the components in this component's slots.

        Args:
            policy: Model name of the policy.
        """
        return [load for part in nested_configs(self) for load in part.loads(policy)]

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Names of the settings of the policy (`PolicyConfig`) that cannot change what this component computes.

        They are then not part of the keys of its artefacts. The default is none; components in the slots of this one
        have their own.
        """
        return frozenset()

    @property
    def unused_settings(self) -> frozenset[str]:
        """Names of this component's own settings that cannot change a result, such as a timeout.

        They are then not part of the keys of its artefacts. The default is none.
        """
        return frozenset()

    @property
    def own_code(self) -> Sequence[FunctionName]:
        """Functions of the user's own that this component calls, as `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION`.

        They run only if the user allows it. The hash of their code is part of the keys of artefacts. The default is
        none; components in the slots of this one have their own.
        """
        return ()

    @property
    def title(self) -> str:
        """The kind, followed by the settings that differ from their defaults: `similarity (against: reference)`."""
        changed = []
        for name, field in type(self).model_fields.items():
            value, default = getattr(self, name), field.get_default(call_default_factory=True)
            if name != "kind" and _shorten(value) != default:
                changed.append(f"{name}: {_format_value(value)}")
        return f"{self.kind} ({', '.join(changed)})" if changed else self.kind


AnyConfig = TypeVar("AnyConfig", bound=ComponentConfig)


def nested_configs(config: Config) -> Iterator[ComponentConfig]:
    """Yield the configs in the slots of a config, one level down.

    Slots inside lists, mappings and groups of settings (`Config`) are included.
    """
    for _, value in config:
        yield from configs_in(value)


def configs_in(value: object) -> Iterator[ComponentConfig]:
    """Yield the configs in the value of a field, one level down."""
    if isinstance(value, ComponentConfig):
        yield value
    elif isinstance(value, Config):
        yield from nested_configs(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from configs_in(item)
    elif isinstance(value, dict):
        yield from configs_in(list(value.values()))


def walk_configs(configs: Iterable[ComponentConfig]) -> Iterator[ComponentConfig]:
    """Yield configs and all configs in their slots, at any depth."""
    for config in configs:
        yield config
        yield from walk_configs(nested_configs(config))


def find_unused_policy_settings(config: ComponentConfig) -> frozenset[str]:
    """Return the settings of the policy that no component in a config uses."""
    return frozenset.intersection(*(part.unused_policy_settings for part in walk_configs([config])))


def outermost_configs(configs: Iterable[ComponentConfig], kind: type[AnyConfig]) -> Iterator[AnyConfig]:
    """Yield the configs of a kind, looking into the slots of those of other kinds only.

    A labeler inside a labeler, for example, is not yielded: the methods of the outer one include it.
    """
    for config in configs:
        if isinstance(config, kind):
            yield config
        else:
            yield from outermost_configs(nested_configs(config), kind)


def _shorten(value: object) -> object:
    """Return the value of a field as its default is written: a component with its defaults is `{"kind": name}`."""
    if isinstance(value, ComponentConfig) and value.title == value.kind:
        return {"kind": value.kind}
    return [_shorten(item) for item in value] if isinstance(value, list) else value


def _format_value(value: object) -> str:
    if isinstance(value, ComponentConfig):
        return value.title
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_format_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_format_value, value))}]"
    return str(value)


@dataclass(frozen=True, slots=True)
class Component:
    """A named component that a plugin offers."""

    name: str
    """The `kind` that specs refer to: a bare name for built-ins, `namespace/name` for third-party plugins."""
    config: type[ComponentConfig]
    """The pydantic model of its settings. Its module must not import heavy libraries."""
    target: str
    """`module:attribute` of the class. It is imported on first use and called as `Class(config, context)`."""

    @property
    def summary(self) -> str:
        """The first line of the config's docstring."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]
