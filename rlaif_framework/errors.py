"""What can go wrong for a user: each error says what, where and what next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec

PIP_NAMES = {
    "PIL": "pillow",
    "google": "protobuf",
    "rlaif_framework": "rlaif-framework",
    "rouge_score": "rouge-score",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Distributions by the names they are imported by, where the two differ."""


class RlaifError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback and exits with 2."""


class SpecError(RlaifError):
    """A spec file, or a value set on the command line, is not valid."""


class DataError(RlaifError):
    """A data file is missing, malformed or does not hold what its task needs."""


class ModelError(RlaifError):
    """A model cannot be found or is not a model of the kind asked for."""


class PluginError(RlaifError):
    """A plugin cannot be loaded, or a component is unknown or named twice."""


class TrainingError(RlaifError):
    """Training went wrong (a loss or reward that is not finite); the last checkpoint is kept."""


class MissingPackageError(RlaifError):
    """An optional package is not installed; the message holds the command that installs it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Phrase what an unknown name may have meant, as a sentence: the nearest known name, or all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}."


def describe_missing(module: str) -> str:
    """Say which package a module that cannot be imported belongs to, with the command that installs it."""
    top = module.partition(".")[0]
    package = PIP_NAMES.get(top, top)
    if top != module and find_spec(top) is not None:
        return (
            f"the package '{package}' has no module '{module}'; install a version that fits: pip install -U {package}"
        )
    return f"the package '{package}' is not installed; install it: pip install {package}"
