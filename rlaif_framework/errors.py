"""Errors that a user can fix. A message states what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec

PIP_NAMES = {
    "PIL": "pillow",
    "google": "protobuf",
    "rlaif_framework": "rlaif-framework",
    "rouge_score": "rouge-score",
    "re2": "google-re2",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Names of distributions by the name of their module, where the two differ."""

EXTRAS = {
    "mlflow": "mlflow",
    "starlette": "annotate",
    "trackio": "trackio",
    "uvicorn": "annotate",
    "wandb": "wandb",
}
"""The extra of this distribution that installs a module."""


class RlaifError(Exception):
    """Base of all errors that a user can fix. The command line prints the message only, and exits with code 2."""


class SpecError(RlaifError):
    """A spec file or a command-line option is not valid."""


class DataError(RlaifError):
    """A data file is missing or malformed, or lacks something that is needed."""


class ModelError(RlaifError):
    """A model cannot be found or loaded, or is of the wrong kind."""


class HubError(RlaifError):
    """A model or data set cannot be loaded from the Hugging Face Hub."""


class PluginError(RlaifError):
    """A plugin cannot be loaded, or a component is unknown or defined twice."""


class TrainingError(RlaifError):
    """Training failed, e.g. with a loss that is not finite. The last checkpoint is kept."""


class MissingPackageError(RlaifError):
    """A package is not installed. The message contains the command that installs it."""

    @property
    def is_optional(self) -> bool:
        """True if the package belongs to an extra of this distribution, which only some users want."""
        cause = self.__cause__
        return isinstance(cause, ModuleNotFoundError) and (cause.name or "").partition(".")[0] in EXTRAS


def shorten_name(name: str) -> str:
    """Return a name that a user has given as an error shows it, at most 80 characters long."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known name, or all known names."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}."


def name_type(value: object) -> str:
    """Return the name of the type of a value of a spec; None is `null`, as it is written."""
    return "null" if value is None else type(value).__name__


def describe_missing(module: str) -> str:
    """Describe a module that cannot be imported: its package, and the command that installs it."""
    top = module.partition(".")[0]
    package = PIP_NAMES.get(top, top)
    # The package is installed and only the submodule is missing: its version is too old.
    if top != module and find_spec(top) is not None:
        return f"the package '{package}' has no module '{module}'; upgrade it: pip install -U {package}"
    install = f"'rlaif-framework[{EXTRAS[top]}]'" if top in EXTRAS else package
    return f"the package '{package}' is not installed; install it: pip install {install}"
