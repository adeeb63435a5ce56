"""The instructions on the page: a file, or the criteria of a task's annotator prompts."""

from __future__ import annotations

from pathlib import Path

from rlaif_framework.annotation.runs import is_run
from rlaif_framework.assembly.context import Context
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import read_regular
from rlaif_framework.plugins.configs import TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.progress import Progress

GENERAL = """Read the prompt and both responses, and choose the one that is better overall.

Answer **tie** if they are equally good, **both bad** if neither is acceptable, and **cannot judge** if you do not know
enough about the subject. Do not let the length, the formatting or the position of a response decide by itself."""

LARGEST = 2**20
"""Maximum size of a file of instructions in bytes."""


def read_instructions(path: Path) -> str:
    """Read a file of instructions in Markdown.

    Raises:
        DataError: It is missing, too large, or not text.
    """
    try:
        return read_regular(path, LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--instructions {path}: cannot be read: {error}") from error


def find_instructions(place: Path, task: TaskConfig | None, manager: PluginManager, progress: Progress) -> str:
    """Return the criteria of a task, or of that of a run; general ones if there is none or it cannot be used.

    Args:
        place: The pairs or the run.
        task: The task that the user has chosen.
        manager: Provides the tasks.
        progress: Where to print why the general ones are used.
    """
    if task is not None:
        return _describe_task(task, manager, progress)
    if not is_run(place):
        return GENERAL
    try:
        stated = read_mapping(place / "spec.yaml", "spec").get("task")
        return _describe_task(narrow("task", stated, manager), manager, progress)
    except (RlaifError, ValueError) as error:  # e.g. the data of the task are elsewhere now
        progress.print(f"instructions: general ones, since the task of the run cannot be used: {error}")
        return GENERAL


def _describe_task(task: TaskConfig, manager: PluginManager, progress: Progress) -> str:
    prompts = Context(task, None, 0, manager).task.annotator_prompts()
    if prompts.prefer == "worse":
        progress.print(
            f"instructions: general ones, since the prompts of task '{task.kind}' ask for the worse response; "
            "use --instructions FILE for your own"
        )
        return GENERAL
    criteria = prompts.preambles.get("detailed") or next(iter(prompts.preambles.values()), "")
    return f"{criteria}\n\n{GENERAL}"
