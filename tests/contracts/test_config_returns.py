"""What the configs of components return is validated and converted, with the component in the message."""

from __future__ import annotations

import inspect
import json
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import new_class
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from rlaif_framework import (
    AlgorithmConfig,
    BackendConfig,
    ComponentConfig,
    DataError,
    LabelerConfig,
    LabelerSlot,
    MetricConfig,
    ModelLoad,
    RewardConfig,
    StrategyConfig,
    TaskConfig,
    TrackerConfig,
)
from rlaif_framework.cli.main import main
from rlaif_framework.errors import PluginError
from rlaif_framework.plugins import config_returns
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.config_returns import find_form, find_members
from rlaif_framework.plugins.configs import BASES
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.rl import GaeConfig
from support.fake_plugins import Site

OWNER = "'acme/x' of rlaif-acme 1.2"


@pytest.fixture
def installed(site: Site) -> None:
    """The distribution that the components of these tests belong to."""
    site.install("rlaif-acme", "", version="1.2")


def make(base: type[ComponentConfig], name: str, compute: Callable[[], object]) -> ComponentConfig:
    """Return a config that overrides a member of its base."""
    member: Any = lambda self, *args: compute()  # noqa: E731
    if isinstance(inspect.getattr_static(base, name), property):
        member = property(member)
    return define(base, name, member)(kind="acme/x")


def define(base: type[ComponentConfig], name: str, member: object) -> Any:
    """Return a class that overrides a member of its base."""
    return new_class("MadeConfig", (base,), exec_body=lambda body: body.update({name: member, "__module__": __name__}))


def read(config: ComponentConfig, name: str) -> Any:
    """Return the value of a member, called as the framework calls it."""
    found = getattr(config, name)
    return found(*[None] * len(inspect.signature(found).parameters)) if inspect.ismethod(found) else found


# Each member with its base, a wrong value, and the end of the message.
ARRAY = "Input should be a valid array"
WRONG: list[tuple[type[ComponentConfig], str, object, str]] = [
    (LabelerConfig, "loads", None, f"loads() is None: {ARRAY}"),
    (LabelerConfig, "loads", ["gpt2"], "loads(): 0 is 'gpt2': Input should be an object"),
    (LabelerConfig, "loads", [ModelLoad("m", "judge", responses=0)], "loads(): 0.responses is 0: Input should be"),
    (LabelerConfig, "loads", [ModelLoad("m", None)], "loads(): 0.role is None: Input should be a valid string"),  # type: ignore[arg-type]
    (RewardConfig, "unused_policy_settings", "dtype", f"unused_policy_settings is 'dtype': {ARRAY}"),
    (RewardConfig, "unused_policy_settings", [1], "unused_policy_settings: 0 is 1: Input should be a valid string"),
    (LabelerConfig, "unused_settings", None, f"unused_settings is None: {ARRAY}"),
    (LabelerConfig, "own_code", "mine.py:score", f"own_code is 'mine.py:score': {ARRAY}"),
    (LabelerConfig, "own_code", ["mine.py"], "own_code: 0 is 'mine.py': 'mine.py' is not FILE.py:FUNCTION, such as"),
    (LabelerConfig, "title", 3, "title is 3: Input should be a valid string"),
    (TaskConfig, "prompt_columns", "text", f"prompt_columns is 'text': {ARRAY}"),
    (TaskConfig, "suggested_judges", ["rouge"], "suggested_judges: 0 is 'rouge': Input should be an object"),
    (TaskConfig, "suggested_judges", {"kind": "rouge"}, f"suggested_judges is {{'kind': 'rouge'}}: {ARRAY}"),
    (BackendConfig, "preferred_chunk_size", -1, "preferred_chunk_size() is -1: Input should be greater"),
    (LabelerConfig, "preferred_chunk_size", np.float32(8), "preferred_chunk_size() is 8.0: Input should be"),
    (LabelerConfig, "preferred_chunk_size", None, "preferred_chunk_size() is None: Input should be a valid integer"),
    (StrategyConfig, "longest_answer", -5, "longest_answer is -5: Input should be greater than or equal to 0"),
    (StrategyConfig, "check_prompts", "no preamble", "check_prompts() is 'no preamble': Input should be null"),
    (LabelerConfig, "check_prompts", False, "check_prompts() is False: Input should be null"),
    (LabelerConfig, "missing_field", False, "missing_field() is False: Input should be a valid string"),
    (LabelerConfig, "missing_field", "", "missing_field() is '': String should have at least 1 character"),
    (RewardConfig, "missing_field", ["reference"], "missing_field() is ['reference']: Input should be a valid string"),
    (RewardConfig, "needs_preferences", "no", "needs_preferences is 'no': Input should be a valid boolean"),
    (RewardConfig, "needs_baseline", None, "needs_baseline is None: Input should be a valid boolean"),
    (AlgorithmConfig, "needs_preferences", 1, "needs_preferences is 1: Input should be a valid boolean"),
    (AlgorithmConfig, "needs_reward", "no", "needs_reward is 'no': Input should be a valid boolean"),
    (AlgorithmConfig, "needs_reward_model", 0.5, "needs_reward_model is 0.5: Input should be a valid boolean"),
    (MetricConfig, "names", "score", f"names is 'score': {ARRAY}"),
    (MetricConfig, "names", [], "names is []: Value should have at least 1 item"),
    (GaeConfig, "step_shape", 8, f"step_shape is 8: {ARRAY}"),
    (GaeConfig, "alarm_window", 0.5, "alarm_window is 0.5: Input should be a valid integer"),
    (GaeConfig, "check_every", None, "check_every is None: Input should be a valid integer"),
    (GaeConfig, "step_before_check", None, "step_before_check() is None: Input should be a valid integer"),
    (GaeConfig, "alarm_reads", None, "alarm_reads() is None: Input should be a valid boolean"),
    (GaeConfig, "needs_old_logprobs", None, "needs_old_logprobs is None: Input should be a valid boolean"),
    (GaeConfig, "value_settings", 3, "value_settings is 3: expected a mapping of settings, got int"),
    (GaeConfig, "values_final_states", None, "values_final_states is None: Input should be a valid boolean"),
]  # fmt: skip
ATTRIBUTES: list[tuple[type[ComponentConfig], str]] = [
    (BackendConfig, "exact_mass"),
    (LabelerConfig, "scores_responses"),
    (RewardConfig, "saves_model"),
    (AlgorithmConfig, "responds"),
    (TrackerConfig, "rewinds"),
]


def slot_of(base: type[ComponentConfig]) -> str:
    return next(slot for slot, kind in BASES.items() if issubclass(base, kind))


@pytest.mark.parametrize(("base", "name", "value", "message"), WRONG, ids=[f"{b.__name__}-{n}" for b, n, *_ in WRONG])
@pytest.mark.usefixtures("installed")
def test_a_wrong_value_names_the_component_its_distribution_and_version(
    base: type[ComponentConfig], name: str, value: object, message: str
) -> None:
    config = make(base, name, lambda: value)
    with pytest.raises(PluginError) as caught:
        read(config, name)
    assert str(caught.value).startswith(f"{slot_of(base)} {OWNER}: {message}")


def divide() -> object:
    return 1 / 0


@pytest.mark.parametrize(("base", "name"), dict.fromkeys((base, name) for base, name, *_ in WRONG))
@pytest.mark.usefixtures("installed")
def test_an_error_in_the_code_of_a_config_is_one_line(base: type[ComponentConfig], name: str) -> None:
    config = make(base, name, divide)
    with pytest.raises(PluginError) as caught:
        read(config, name)
    brackets = "" if isinstance(inspect.getattr_static(base, name), property) else "()"
    line = inspect.getsourcelines(divide)[1] + 1
    reason = f"ZeroDivisionError: division by zero ({__file__}, line {line})"
    assert str(caught.value) == f"{slot_of(base)} {OWNER}: {name}{brackets} failed: {reason}"


@pytest.mark.parametrize("error", [DataError("the prompts have no preamble"), KeyboardInterrupt()], ids=type)
def test_errors_for_users_and_interrupts_are_passed_on(error: BaseException) -> None:
    def fail() -> object:
        raise error

    with pytest.raises(type(error)) as caught:
        read(make(LabelerConfig, "check_prompts", fail), "check_prompts")
    assert caught.value is error


LOAD = ModelLoad("gpt2", "judge", responses=2)


@pytest.mark.parametrize(
    ("base", "name", "value", "expected"),
    [
        (LabelerConfig, "preferred_chunk_size", np.int64(32), 32),
        (LabelerConfig, "preferred_chunk_size", torch.tensor(32), 32),
        (StrategyConfig, "longest_answer", np.array(32), 32),
        (RewardConfig, "needs_baseline", np.bool_(False), False),
        (RewardConfig, "needs_baseline", torch.tensor(True), True),
        (MetricConfig, "names", np.array(["a", "b"]), ["a", "b"]),
        (MetricConfig, "names", ("a", "b"), ("a", "b")),
        (MetricConfig, "names", (name for name in "ab"), ["a", "b"]),
        (LabelerConfig, "unused_settings", {"a", "b"}, frozenset("ab")),
        (LabelerConfig, "unused_settings", ["a", "b"], frozenset("ab")),
        (LabelerConfig, "loads", (LOAD, LOAD), (LOAD, LOAD)),
        (LabelerConfig, "loads", iter([LOAD]), [LOAD]),
        (LabelerConfig, "loads", [ModelLoad("gpt2", "judge", responses=np.int64(2))], [LOAD]),  # type: ignore[arg-type]
        (TaskConfig, "suggested_judges", [{"kind": "length"}], [{"kind": "length"}]),
        (GaeConfig, "step_shape", [np.int64(8), 2], (8, 2)),
        (GaeConfig, "value_settings", None, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_of_every_form_are_converted(
    base: type[ComponentConfig], name: str, value: object, expected: object
) -> None:
    found = read(make(base, name, lambda: value), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("base", "name"), ATTRIBUTES)
def test_a_class_attribute_is_validated_when_its_class_is_defined(base: type[ComponentConfig], name: str) -> None:
    assert getattr(define(base, name, np.bool_(True)), name) is True
    with pytest.raises(PluginError, match=rf"^MadeConfig: {name} is 'no': Input should be a valid boolean$"):
        define(base, name, "no")
    # It is read from the class, where a property is not computed.
    with pytest.raises(PluginError, match=rf"^MadeConfig: {name}: it cannot be written as JSON: <property"):
        define(base, name, property(lambda self: True))


def test_a_class_attribute_may_stand_for_a_property_but_not_for_a_method() -> None:
    class Right(AlgorithmConfig):
        needs_reward: ClassVar[bool] = False

    assert Right(kind="acme/x").needs_reward is False
    with pytest.raises(PluginError, match=r"^Wrong: needs_reward is 'no': Input should be a valid boolean$"):

        class Wrong(AlgorithmConfig):
            needs_reward: ClassVar[Any] = "no"

    with pytest.raises(PluginError, match=r"^NoMethod: loads is \[\] instead of a method$"):

        class NoMethod(AlgorithmConfig):
            loads: ClassVar[list[ModelLoad]] = []  # type: ignore[assignment]


@pytest.mark.filterwarnings("ignore:Field name")
def test_a_setting_cannot_have_the_name_of_a_member() -> None:
    with pytest.raises(PluginError, match=r"^Named: a setting cannot be named 'names', which MetricConfig defines$"):

        class Named(MetricConfig):
            names: list[str] = ["a"]  # noqa: RUF012


class Mixed:
    """A class that is no config."""

    @property
    def names(self) -> Any:
        return [*super().names, "more"] if self.wanted else None  # type: ignore[misc, attr-defined]


class MixedConfig(Mixed, MetricConfig):
    """A metric."""

    wanted: bool = True


@pytest.mark.usefixtures("installed")
def test_members_of_a_class_that_is_no_config_are_validated() -> None:
    assert MixedConfig(kind="acme/x").names == ["x", "more"]
    with pytest.raises(PluginError, match=rf"^metric {OWNER}: names is None"):
        _ = MixedConfig(kind="acme/x", wanted=False).names

    class Inherited(MixedConfig):
        """Another metric."""

    assert "names" not in vars(Inherited), "it is validated twice"
    assert Inherited(kind="acme/x").names == ["x", "more"]


class Other:
    """A class whose attributes are of unusual kinds."""

    @staticmethod
    def loads(policy: str) -> Any:
        return [ModelLoad(policy, "judge")]

    @cached_property
    def unused_settings(self) -> Any:
        """One of the settings."""
        return {"a"}


class InnerConfig(Other, LabelerConfig):
    """A labeler."""


class OuterConfig(LabelerConfig):
    """A labeler with another one inside."""

    inner: LabelerSlot

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the models of the inner one, and one more."""
        return [*super().loads(policy), LOAD]


def test_unusual_methods_and_those_of_the_base_class_work() -> None:
    config = OuterConfig(kind="acme/x", inner=InnerConfig(kind="acme/inner"))
    assert config.loads("p") == [ModelLoad("p", "judge"), LOAD]
    assert config.inner.unused_settings == {"a"}
    assert inspect.getdoc(type(config).loads) == "List the models of the inner one, and one more."
    assert inspect.getdoc(type(config.inner).unused_settings) == "One of the settings."
    again = pickle.loads(pickle.dumps(config))
    assert again == config == config.model_copy(deep=True)
    assert again.loads("p") == config.loads("p")
    assert OuterConfig.model_json_schema()["properties"].keys() == {"kind", "inner"}


@pytest.mark.usefixtures("installed")
def test_an_error_names_the_inner_component_only() -> None:
    inner = make(LabelerConfig, "loads", lambda: None)
    with pytest.raises(PluginError) as caught:
        OuterConfig(kind="acme/outer", inner=inner).loads("p")
    assert str(caught.value) == f"labeler {OWNER}: loads() is None: Input should be a valid array"


@pytest.mark.parametrize(
    ("kind", "source"),
    [("length", r"rlaif-framework \S+"), ("gone/x", "rlaif-gone"), ("local/x", __file__)],
)
def test_the_source_of_every_component_is_named(kind: str, source: str) -> None:
    config = make(LabelerConfig, "title", lambda: None).model_copy(update={"kind": kind})
    with pytest.raises(PluginError, match=f"^labeler '{kind}' of {source}: title is None"):
        _ = config.title


def test_every_member_that_can_be_overridden_has_a_type_and_is_tested() -> None:
    bases: list[Any] = [*BASES.values(), GaeConfig]
    found = {(part, name) for base in bases for name, part in find_members(define(base, "__doc__", "")).items()}
    for base, name in found:
        assert find_form(base, name) not in (Any, object), f"{base.__name__}.{name} needs the type of its values"
    assert {name for _, name in found} == {name for _, name, *_ in (*WRONG, *ATTRIBUTES)}


def test_the_members_of_every_config_of_the_package_are_validated() -> None:
    manager = PluginManager.load_builtins()
    overridden = set()
    for config in [component.config for slot in SLOTS for component, _ in manager.components(slot)]:
        for name, base in find_members(config).items():
            owner = next(part for part in config.__mro__ if name in vars(part))
            member = vars(owner)[name]
            if owner is not base and not isinstance(member, bool):
                overridden.add(name)
                function: Any = member.fget if isinstance(member, property) else member
                assert function.__code__.co_filename == config_returns.__file__, f"{config.__name__}.{name}"
    assert overridden >= {"loads", "unused_settings", "missing_field", "needs_preferences", "step_shape"}


# The command line

PLUGIN = """
from typing import Any, Literal
from rlaif_framework import Component, LabelerConfig, RewardConfig, hookimpl

class XConfig(LabelerConfig):
    kind: Literal["acme/x"] = "acme/x"
LABELER
class RConfig(RewardConfig):
    kind: Literal["acme/r"] = "acme/r"
REWARD
@hookimpl
def rlaif_labelers():
    yield Component("acme/x", XConfig, "rlaif_plugins.labelers.length:LengthLabeler")

@hookimpl
def rlaif_reward_models():
    yield Component("acme/r", RConfig, "rlaif_plugins.rewards.length:LengthReward")
"""
PLAN = {
    "task": "tldr",
    "sft": None,
    "arms": {"a": {"feedback": {"kind": "ai", "labeler": "acme/x"}, "reward": "acme/r", "algorithm": "reinforce"}},
    "evaluate": None,
}
TRAINED = "needs_preferences = property(lambda self: True)"
TITLES = {"labeler": "labeler 'acme/x' of rlaif-acme 1.0: ", "reward": "reward 'acme/r' of rlaif-acme 1.0: "}


@pytest.mark.parametrize(
    ("command", "slot", "member", "message"),
    [
        ("check", "reward", "needs_preferences = property(lambda self: None)", "needs_preferences is None: Input"),
        ("check", "reward", "needs_preferences = property(lambda self: {}['x'])", "needs_preferences failed: Key"),
        ("check", "labeler", "def model_post_init(self, c): {}['x']", "its settings cannot be read: KeyError: 'x' ("),
        ("check", "labeler", "def check_prompts(self, p): return 'x'", "check_prompts() is 'x': Input should be null"),
        ("plan", "labeler", "def loads(self, policy): pass", f"loads() is None: {ARRAY}"),
        ("plan", "labeler", "def loads(self): pass", "loads() failed: TypeError: XConfig.loads() takes 1 positional"),
        ("plan", "labeler", "unused_settings = property(lambda self: 'votes')", f"unused_settings is 'votes': {ARRAY}"),
        ("plan", "labeler", "own_code = property(lambda self: ['x.py'])", "own_code: 0 is 'x.py': 'x.py' is not"),
        ("plan", "labeler", "def missing_field(self, c): return c.labels", "missing_field() failed: AttributeError"),
    ],
)  # fmt: skip
def test_the_command_line_ends_with_one_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    site: Site,
    tiny_model: Path,
    command: str,
    slot: str,
    member: str,
    message: str,
) -> None:
    members = {"labeler": "", "reward": TRAINED, slot: member}
    code = PLUGIN.replace("LABELER", f"    {members['labeler']}").replace("REWARD", f"    {members['reward']}")
    site.install("rlaif-acme", code)
    spec = site.folder / "spec.json"
    spec.write_text(json.dumps({**PLAN, "policy": {"model": str(tiny_model), "dtype": "fp32"}}))
    store = ["--store", str(site.folder / "store")] if command == "plan" else []
    assert call(monkeypatch, command, str(spec), *store) == 2
    captured = capsys.readouterr()
    assert f"{TITLES[slot]}{message}" in captured.err
    assert captured.err.startswith("rlaif: ")
    assert "Traceback" not in captured.err


def test_a_plugin_with_a_wrong_class_attribute_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site
) -> None:
    code = PLUGIN.replace("LABELER", "    scores_responses = 'no'").replace("REWARD", "")
    site.install("rlaif-acme", code)
    assert call(monkeypatch, "components") == 0
    reason = "XConfig: scores_responses is 'no': Input should be a valid boolean"
    assert f"plugin 'acme' (rlaif-acme 1.0) failed to load: {reason}\n" in capsys.readouterr().err


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rlaif", *argv])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)
