"""A named component that a plugin offers, and the base of its config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

if TYPE_CHECKING:
    from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
    from rlaif_framework.records.preferences import Comparison

from rlaif_framework.config import Config

Slot = Literal["task", "backend", "strategy", "labeler", "reward", "algorithm"]


SLOTS: tuple[Slot, ...] = get_args(Slot)


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """A model that a stage will hold in memory."""

    model: str
    """Name as in `policy.model`."""
    role: str
    """What it is there for, e.g. `value model`."""
    trained: bool = False
    """Trained (weights, gradients and optimiser state) or only read."""
    dtype: Literal["policy", "fp32", "bf16"] = "policy"
    """The policy's compute precision, or always another."""
    shared: bool = False
    """Whether it has the policy's base weights in common with it, where adapters are trained."""
    groups: int = 16
    """Prompts of a step whose responses are learned from."""
    responses: int = 1
    """Responses to each of them."""
    lora: Config | Literal["policy"] | None = "policy"
    """Adapters it is trained with (`LoraSettings`), None for all weights; `policy`: as the policy."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """What it is trained with."""
    device: Literal["policy", "cpu"] = "policy"
    """Where it is kept."""


class ComponentConfig(Config):
    """Base of a component's config. Subclasses add their settings and, if they like, a narrower `kind`."""

    kind: str
    """Name of the component."""

    responds: ClassVar[bool] = False
    """Whether an algorithm answers test prompts itself (see `Responder`), rather than by sampling from its policy."""

    saves_model: ClassVar[bool] = False
    """Whether a reward saves a scoring model, which a value model could start from."""

    @property
    def needs_preferences(self) -> bool:
        """Whether a reward model or algorithm is trained on preferences; its arm must then state its feedback.

        The default asks the component's own slots.
        """
        return any(config.needs_preferences for config in self.nested())

    @property
    def needs_reward(self) -> bool:
        """Whether an algorithm improves the policy against a reward; its arm must then state one."""
        return True

    @property
    def needs_reward_model(self) -> bool:
        """Whether an algorithm starts something from the model that the reward has saved."""
        return False

    def check_prompts(self, prompts: AnnotatorPrompts) -> None:
        """See whether a task's words have what these settings name, before anything heavy is loaded.

        The default asks the component's own slots.

        Raises:
            DataError: What is missing in the annotator prompts.
        """
        for config in self.nested():
            config.check_prompts(prompts)

    def missing_field(self, comparison: Comparison) -> str | None:
        """What a labeler misses in a comparison that it cannot label, such as `has no human preference`.

        Asked before anything is computed; None if it can label it. The default asks the component's own slots.
        """
        return next((lack for config in self.nested() if (lack := config.missing_field(comparison))), None)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the models this component will hold in memory; `policy` is the policy's model name.

        The default asks the component's own slots. What is listed is shown by `rlaif plan`, and decides, with the
        models' contents, whether an artefact can be reused.
        """
        return [load for config in self.nested() for load in config.loads(policy)]

    def preferred_chunk_size(self) -> int:
        """How many comparisons a labeler or its backend likes to be given at once; 0 if it does not matter.

        The default asks the component's own slots.
        """
        return max((config.preferred_chunk_size() for config in self.nested()), default=0)

    @property
    def title(self) -> str:
        """Its kind, with the settings that are not their defaults: `similarity (against: reference)`."""
        told = []
        for name, field in type(self).model_fields.items():
            value, default = getattr(self, name), field.get_default(call_default_factory=True)
            plain = {"kind": value.kind} if isinstance(value, ComponentConfig) and value.title == value.kind else value
            if name != "kind" and plain != default:
                told.append(f"{name}: {_show(value)}")
        return f"{self.kind} ({', '.join(told)})" if told else self.kind

    def nested(self) -> list[ComponentConfig]:
        """Configs of the components in this one's own slots, one level down."""
        found: list[ComponentConfig] = []
        for _, value in self:
            items = (
                value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
            )
            found += [item for item in items if isinstance(item, ComponentConfig)]
        return found


def _show(value: object) -> str:
    if isinstance(value, ComponentConfig):
        return value.title
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_show(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_show, value))}]"
    return str(value)


@dataclass(frozen=True, slots=True)
class Component:
    """One named building block a plugin offers."""

    name: str
    """As specs name it in `kind`: bare if built in, `namespace/name` for a third-party plugin."""
    config: type[ComponentConfig]
    """The pydantic model of its settings; its module must import no heavy library."""
    target: str
    """`module:attribute` of the class, imported on first use and called as `Class(config, context)`."""

    @property
    def summary(self) -> str:
        """First line of the config's docstring."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]
