"""Fixtures for the tests of plugins: `pytest_plugins = ["rlaif_framework.testing.fixtures"]` in `conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Task
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.testing.recorded import RecordedBackend, RecordedConfig
from rlaif_framework.testing.tiny_model import save_tiny_model
from rlaif_framework.testing.world import load_manager, make_context, make_stage


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with random weights, made in about a second: see `save_tiny_model`."""
    return save_tiny_model(tmp_path_factory.mktemp("rlaif") / "tiny-model")


@pytest.fixture
def plugin_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    """The built-in components, `testing/tiny` and `testing/recorded`, whatever is installed.

    Add your own with `rlaif_framework.testing.add_plugin`. Answers are cached in a temporary folder.
    """
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    return load_manager(installed=False)


@pytest.fixture
def tiny_context(plugin_manager: PluginManager, tiny_model: Path) -> Context:
    """The context of a run on the tiny model and the tiny task."""
    return make_context(plugin_manager, tiny_model)


@pytest.fixture
def tiny_task(tiny_context: Context) -> Task:
    """The task `testing/tiny`: short notes with summaries and comparisons."""
    return tiny_context.task


@pytest.fixture
def make_tiny_stage(tiny_context: Context, tmp_path: Path) -> Callable[[str], Stage]:
    """A function that creates a stage with a folder of this name; the same name again resumes."""
    return lambda name: make_stage(tiny_context, tmp_path / name)


@pytest.fixture
def recorded_backend() -> RecordedBackend:
    """A backend with canned answers, which remembers in `asked` what it was asked."""
    return RecordedBackend(RecordedConfig())
