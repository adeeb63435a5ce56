"""Targets are checked against their protocols: methods, signatures, and what their configs promise."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from rlaif_framework import (
    AlgorithmConfig,
    Component,
    Labeler,
    LabelerConfig,
    MissingPackageError,
    PluginError,
    PluginManager,
    RewardConfig,
    TrackerConfig,
)
from rlaif_framework.plugins.component import SLOTS, ComponentConfig, Slot
from rlaif_framework.plugins.targets import check_target, import_target
from rlaif_plugins.labelers.annotated import AnnotationLabeler


class Plain:
    def __init__(self, config: Any, context: Any) -> None: ...

    def label(self, comparisons: Any) -> Any: ...


class OtherNames(Plain):
    def label(self, rows: Any, *, verbose: bool = False) -> Any: ...


class Variadic(Plain):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def label(self, *args: Any) -> Any: ...


class TooFew(Plain):
    def label(self) -> Any: ...  # type: ignore[override]


class TooMany(Plain):
    def label(self, comparisons: Any, batch: int) -> Any: ...  # type: ignore[override]


class KeywordOnly(Plain):
    def label(self, *, comparisons: Any) -> Any: ...  # type: ignore[override]


class Static(Plain):
    @staticmethod
    def label(comparisons: Any) -> Any: ...


class Async(Plain):
    async def label(self, comparisons: Any) -> Any: ...


class NotCallable(Plain):
    label = "text"  # type: ignore[assignment]


class Inherited(Labeler):
    def __init__(self, config: Any, context: Any) -> None: ...


class NoContext(Plain):
    def __init__(self, config: Any) -> None: ...


def check(target: object, slot: Slot = "labeler", config: type[ComponentConfig] = LabelerConfig) -> None:
    check_target(f"{slot} 'acme/x'", target, Component("acme/x", config, "rlaif_acme:X"), slot)


@pytest.mark.parametrize("target", [Plain, OtherNames, Variadic])
def test_a_class_that_can_be_called_as_the_protocol_says_is_accepted(target: type[Any]) -> None:
    check(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (TooFew, "cannot be called as label(comparisons)"),
        (TooMany, "cannot be called as label(comparisons)"),
        (KeywordOnly, "cannot be called as label(comparisons)"),
        (Static, "cannot be called as label(comparisons)"),
        (Async, "has an async label(); it must be a plain method"),
        (NotCallable, "lacks label()"),
        (Inherited, "lacks label()"),
        (NoContext, "cannot be called as Class(config, context)"),
        (object, "lacks label(), cannot be called as Class(config, context)"),
        (lambda config, context: None, "is a function, not a class"),
        (None, "is a NoneType, not a class"),
    ],
)
def test_faults_of_a_target_are_named(target: object, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        check(target)
    assert str(caught.value) == f"labeler 'acme/x': rlaif_acme:X {message}"


def test_a_labeler_that_promises_scores_has_the_method() -> None:
    class Scoring(LabelerConfig):
        """Promises scores."""

        scores_responses: ClassVar[bool] = True

    with pytest.raises(PluginError, match=r"labeler 'acme/x': rlaif_acme:X lacks score\(\)$"):
        check(AnnotationLabeler, config=Scoring)


def test_an_algorithm_that_promises_to_respond_has_the_method() -> None:
    class Responding(AlgorithmConfig):
        """Promises responses."""

        responds: ClassVar[bool] = True

    class Improves:
        def __init__(self, config: Any, context: Any) -> None: ...

        def improve(self, initial: Any, guidance: Any, prompts: Any, stage: Any) -> None: ...

    check(Improves, "algorithm", AlgorithmConfig)
    with pytest.raises(PluginError, match=r"algorithm 'acme/x': rlaif_acme:X lacks respond\(\)$"):
        check(Improves, "algorithm", Responding)


def test_all_missing_methods_are_named_together() -> None:
    with pytest.raises(PluginError, match=r"reward 'acme/x': rlaif_acme:X lacks fit, load\(\)$"):
        check(Plain, "reward", RewardConfig)


@pytest.mark.parametrize("slot", SLOTS)
def test_every_builtin_target_satisfies_its_protocol(manager: PluginManager, slot: Slot) -> None:
    assert manager.components(slot)
    for component, _ in manager.components(slot):
        try:
            import_target(component, slot)
        except MissingPackageError as error:
            if not error.is_optional:
                raise


class Tracks:
    def __init__(self, config: Any, context: Any) -> None: ...

    def run_started(self, run: Any) -> None: ...

    def step_logged(self, step: Any, number: Any, metrics: Any) -> None: ...

    def run_finished(self, error: Any) -> None: ...


class TracksTables(Tracks):
    def table_logged(self, table: Any) -> None: ...


class Rewinds(TrackerConfig):
    """Promises to remove steps."""

    rewinds: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("target", "config", "message"),
    [
        (Tracks, TrackerConfig, None),
        (TracksTables, TrackerConfig, "cannot be called as table_logged(step, table)"),
        (Tracks, Rewinds, "lacks stage_started, stage_finished()"),
        (Plain, TrackerConfig, "lacks run_started, step_logged, run_finished()"),
    ],
    ids=["tracker", "table", "rewind", "labeler"],
)
def test_a_tracker_has_the_methods_that_it_needs_and_can_be_called(
    target: type[Any], config: type[TrackerConfig], message: str | None
) -> None:
    if message is None:
        check(target, "tracker", config)
        return
    with pytest.raises(PluginError) as caught:
        check(target, "tracker", config)
    assert str(caught.value) == f"tracker 'acme/x': rlaif_acme:X {message}"
