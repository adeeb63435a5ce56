"""Find what a finished run made, in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.errors import DataError, ModelError, SpecError, suggest
from rlaif_framework.files import user_path
from rlaif_framework.pipeline.run_folder import RECORD
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.spec.loading import load_spec
from rlaif_framework.spec.model import Arm, Spec
from rlaif_framework.store import MANIFEST

SFT = "sft"
"""The baseline, which can be named like an arm."""


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run with its spec, and the components that the spec names."""

    folder: Path
    spec: Spec
    manager: PluginManager

    @classmethod
    def read(cls, folder: Path, manager: PluginManager, trust_remote_code: bool) -> FinishedRun:
        """Read the spec in the folder of a run.

        Raises:
            SpecError: The folder is not that of a run, or its spec is not valid.
            ModelError: The spec trusts the code of a model, and the caller does not.
        """
        if not (folder / RECORD).is_file():
            raise SpecError(f"{folder} is not the folder of a run: it has no {RECORD}")
        spec = load_spec(folder / "spec.yaml", (), manager)
        if not trust_remote_code and any(_find_trust(spec.model_dump(mode="json"))):
            raise ModelError(
                f"the spec of {folder} lets models run their own code, which can do everything that you can; read the "
                "code, then pass trust_remote_code=True"
            )
        return cls(folder, spec, manager)

    def create_context(self) -> Context:
        """Create the context that the run had."""
        return Context.from_spec(self.spec, self.manager)

    def choose_arm(self, arm: str | None, baseline: bool = False) -> str:
        """Return the name of an arm; None is for the only one.

        Raises:
            SpecError: There is no such arm, or there are several.
        """
        names = [*self.spec.arms, *([SFT] if baseline else [])]
        if arm is None and len(self.spec.arms) == 1:
            return next(iter(self.spec.arms))
        if arm is None:
            raise SpecError(f"{self.folder} has {len(self.spec.arms)} arms; name one: {', '.join(names) or 'none'}")
        if arm not in names:
            raise SpecError(f"{self.folder} has no arm named '{arm}'; {suggest(arm, names)}")
        return arm

    def arm(self, name: str) -> Arm | None:
        """Return the settings of an arm; None for the baseline."""
        return self.spec.arms.get(name)

    def find(self, name: str) -> Path:
        """Return the folder of an artefact, such as `rlaif/policy`.

        Raises:
            DataError: The run has none of this name, or has not finished it.
        """
        if not self.has(name):
            raise DataError(f"{self.folder} has no '{name}'; finish the run, or choose another arm")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Return True if the run has finished an artefact."""
        return (self.folder / name / MANIFEST).is_file()


def find_run(where: str | Path, part: str) -> tuple[Path, str | None] | None:
    """Return the folder of the run that a path belongs to, and its arm if the path is that of an arm's artefact.

    Args:
        where: The folder of a run, or of an artefact in it.
        part: The kind of artefact, such as `policy`.

    Returns:
        None if the path belongs to no run.
    """
    path = user_path(str(where))
    if (path / RECORD).is_file():
        return path, None
    if (path.parent / RECORD).is_file() and path.name == SFT:
        return path.parent, SFT
    # Artefacts of earlier rounds are loaded as plain models: the settings of the run are those of the last one.
    if path.name == part and (path.parent.parent / RECORD).is_file():
        return path.parent.parent, path.parent.name
    return None


def _find_trust(value: Any) -> Iterator[bool]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [bool(inner)] if key == "trust_remote_code" else _find_trust(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _find_trust(inner)
