"""The subcommands of `rlaif` that plugins offer: found and imported when they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr

if TYPE_CHECKING:
    from rlaif_framework.plugins.command import Command
    from rlaif_framework.plugins.discovery import Plugin


class PluginGroup(TyperGroup):
    """The built-in commands, and those of plugins, which are loaded only if another command is called."""

    loaded = False
    """True if the commands of plugins have been added."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Say where the commands of plugins are listed: loading the plugins would take longer than all the rest."""
        from rlaif_framework.plugins.versions import has_plugins

        super().format_epilog(ctx, formatter)
        if has_plugins():
            formatter.write_paragraph()
            formatter.write_text("The installed plugins can add commands: 'rlaif components command' lists them.")

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command by its name; None if there is none."""
        if cmd_name not in self.commands:
            self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        from rlaif_framework.plugins.versions import has_plugins

        if not self.loaded and has_plugins():
            with stdout_to_stderr():
                offered = load_plugins(builtins=False).commands
            for name, (command, plugin) in sorted(offered.items()):
                self.add_command(_wrap(command, plugin), name)
        self.loaded = True


def _wrap(command: Command, plugin: Plugin) -> Any:
    """Create a command that imports its target when it is called, and passes all arguments on."""

    def call(context: typer.Context) -> None:
        result = _import_target(command, plugin).main(
            context.args, prog_name=f"rlaif {command.name}", standalone_mode=False
        )
        if isinstance(result, int) and result:  # of `typer.Exit`
            raise typer.Exit(result)

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    # `--help` is among the arguments that the target reads.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(command.name, help=command.help, context_settings=settings)(call)
    return typer.main.get_command(app)


def _import_target(command: Command, plugin: Plugin) -> Any:
    """Import the target of a command.

    Raises:
        RlaifError: It cannot be imported, or is neither a function nor a `typer.Typer`.
    """
    from rlaif_framework.errors import PluginError
    from rlaif_framework.plugins.targets import import_attribute

    where = f"command '{command.name}' of {plugin.distribution} {plugin.version}".strip()
    target = import_attribute(where, command.target)
    if not isinstance(target, typer.Typer):
        if not callable(target):
            raise PluginError(f"{where}: {command.target} is neither a function nor a typer.Typer")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(help=target.__doc__ or command.help)(target)
        target = app
    return typer.main.get_command(target)
