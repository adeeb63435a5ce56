"""Build plugin managers, contexts and stages for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import PluginError
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.versions import framework_version
from rlaif_framework.progress import Progress
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.spec.loading import build_spec
from rlaif_framework.testing import recorded, tiny_task

TINY_MODEL = "testing:tiny-model"
"""In the settings of a conformance class, this text is replaced by the folder of the tiny model."""

POLICY: Mapping[str, Any] = {"dtype": "fp32", "lora": None, "max_prompt_tokens": 256, "max_new_tokens": 8}
"""Settings of the policy in tests, besides its model."""

DISTRIBUTION = "rlaif-testing"
"""Distribution that the components of this package belong to."""


def load_manager(installed: bool = True) -> PluginManager:
    """Load the built-in plugins, the task `testing/tiny`, the backend `testing/recorded`, and installed plugins.

    Args:
        installed: If False, installed plugins are left out, whatever is installed.
    """
    manager = PluginManager.load() if installed else PluginManager.load_builtins()
    for module in (tiny_task, recorded):
        add_plugin(manager, module, DISTRIBUTION)
    return manager


def add_plugin(manager: PluginManager, module: ModuleType, distribution: str) -> Plugin:
    """Register a module as a plugin of a distribution that is not installed.

    Args:
        manager: The manager to add it to.
        module: A module with hooks.
        distribution: Name of the distribution. A component `acme/x` must belong to `rlaif-acme`.

    Raises:
        PluginError: The plugin cannot be registered.
    """
    plugin = Plugin(module.__name__, distribution, framework_version(), module=module)
    manager.add(plugin)
    if plugin.error:
        raise PluginError(f"{plugin.title}: {plugin.error}")
    return plugin


def make_context(
    manager: PluginManager, model: Path, task: object = "testing/tiny", seed: int = 0, **policy: Any
) -> Context:
    """Create the context of a component.

    Args:
        manager: The components of all plugins.
        model: Folder of the policy's model.
        task: The task, as in a spec.
        seed: Seed of the run.
        policy: Settings of the policy that differ from `POLICY`.
    """
    settings = {**POLICY, "model": str(model), **policy}
    return Context.from_spec(build_spec({"task": task, "policy": settings, "seed": seed}, "test", manager), manager)


def make_stage(context: Context, folder: Path, name: str = "test", checkpoint_seconds: float = 1e9) -> Stage:
    """Create a stage outside a run; the same folder again resumes what was interrupted.

    Args:
        context: The context of the component that the stage runs.
        folder: Folder of the results. That of the checkpoints is beside it.
        name: Name of the stage, from which its random seeds are derived.
        checkpoint_seconds: Minimum time between two checkpoints: 0 for one after every step, and none by default.
    """
    checkpoint = folder.with_name(f"{folder.name}.checkpoint")
    for path in (folder, checkpoint):
        path.mkdir(parents=True, exist_ok=True)
    return Stage(name, folder, checkpoint, context.seed, context.accelerator, Progress(), checkpoint_seconds)


def list_responses(comparisons: Sequence[Comparison]) -> tuple[list[Prompt], list[str]]:
    """Return prompts and a response to each: those of comparisons, a reference, an empty one, a long one, and JSON."""
    prompts = [c.prompt for c in comparisons for _ in range(2)]
    texts = [text for c in comparisons for text in c.responses]
    first = prompts[0]
    more = [first.reference or "A sentence.", "", "very " * 50 + "long", '{"a": 1}']
    return [*prompts, *(first for _ in more)], [*texts, *more]


class Interrupted(BaseException):
    """Stands for a kill: no component catches it."""


def interrupt_after(stage: Stage, step: int) -> Stage:
    """Return a stage that is interrupted when it has logged the metrics of a step."""

    def report(number: int, metrics: Mapping[str, float]) -> None:
        if number == step:
            raise Interrupted

    return replace(stage, report_step=report)


def replace_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Replace the texts in settings, at any depth."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: replace_texts(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_texts(item, change) for item in value]
    return value
