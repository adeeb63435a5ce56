"""Subcommands of `rlaif` that plugins offer."""

from __future__ import annotations

from dataclasses import dataclass

BUILTIN_COMMANDS = (
    "run",
    "label",
    "check-judge",
    "annotate",
    "plan",
    "check",
    "runs",
    "report",
    "compare",
    "try",
    "lineage",
    "gc",
    "schema",
    "catalogue",
    "plugins",
    "components",
    "show",
    "new-plugin",
)
"""Names of the framework's own commands, which no plugin can take."""


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand of `rlaif` that a plugin offers."""

    name: str
    """The namespace of the plugin (`acme`), or a name in it (`acme/compare`)."""
    help: str
    """One line for `rlaif --help`."""
    target: str
    """`module:attribute` of a function with typer's annotations, or of a `typer.Typer` with subcommands of its own. It
    is imported when the command is called."""
