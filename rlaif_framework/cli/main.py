"""The `rlaif` command: its subcommands, and how errors are reported."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rlaif_framework.cli.annotate import annotate
from rlaif_framework.cli.artefacts import gc, lineage
from rlaif_framework.cli.check_judge import check_judge
from rlaif_framework.cli.compare import compare
from rlaif_framework.cli.finished_runs import report, runs
from rlaif_framework.cli.label import label
from rlaif_framework.cli.listings import catalogue, components, plugins, schema, show
from rlaif_framework.cli.new_plugin import new_plugin
from rlaif_framework.cli.plugin_commands import PluginGroup
from rlaif_framework.cli.runs import check, plan, run
from rlaif_framework.cli.setup import check_arguments, prepare_process
from rlaif_framework.cli.try_policies import try_policies
from rlaif_framework.errors import PluginError, RlaifError, describe_missing
from rlaif_framework.terminal import escape_controls


def _print_version(wanted: bool) -> None:
    if wanted:
        from rlaif_framework.plugins.versions import DISTRIBUTION, framework_version

        print(f"{DISTRIBUTION} {framework_version()}")
        raise typer.Exit


app = typer.Typer(
    name="rlaif",
    cls=PluginGroup,
    help="Reinforcement learning from AI feedback: label, train a reward model, improve a policy, evaluate each step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # `main` reports errors
    rich_markup_mode=None,  # brackets in help texts are not markup
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)


@app.callback()
def prepare(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Read the options before the command."""


def _summarise(command: Callable[..., None]) -> str:
    """Return the first sentence of a command's help, for lists: typer would cut the text to one line."""
    paragraph = " ".join((inspect.getdoc(command) or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".") + "."


def _refuse_exit(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command in which an exit that a plugin asks for is an error; with code 0, it would look finished."""

    @wraps(command)
    def run_command(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # rich ends so when nobody reads the output
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f"sys.exit({error.code!r}) was called before the command had finished ({place.filename}, line "
                f"{place.lineno}); plugins must raise an error instead"
            ) from error

    return run_command


COMMANDS = (
    *(run, label, check_judge, annotate, plan, check),
    *(runs, report, compare, try_policies, lineage, gc),
    *(schema, catalogue, plugins, components, show, new_plugin),
)
for command in COMMANDS:
    # The word `try` cannot be the name of a function.
    name = "try" if command is try_policies else None
    app.command(name, short_help=_summarise(command))(_refuse_exit(command))


def main() -> None:
    """Run the command line. An error that a user can fix is printed as one message, with exit code 2."""
    prepare_process()
    try:
        check_arguments(sys.argv[1:])
        try:
            app()
        finally:
            sys.stdout.flush()  # here, since Python ignores errors when it flushes at exit
    except RlaifError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        _fail(describe_missing(error.name or str(error)), 2)
    except OSError as error:
        _fail(_describe_os_error(error), 2)


def _describe_os_error(error: OSError) -> str:
    from rlaif_framework.pipeline.environment import is_disk_full

    if is_disk_full(error):
        place = error.filename or "while writing"
        return (
            f"the disk is full, or a quota or file-size limit is reached ({place}); free some space or raise the "
            "limit, and rerun the same command"
        )
    if error.filename is None:
        return _describe_missing_place() or str(error)
    remedy = ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "; change its permissions, or choose another folder (--out, --store, or the variable RLAIF_CACHE)"
    return f"cannot use {error.filename}: {error.strerror or error}{remedy}"


def _describe_missing_place() -> str | None:
    """Name what is missing if the system's error does not: the current folder, or the file of certificates."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder has been deleted; change to another one"
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates and not Path(certificates).exists():
        return f"the variable SSL_CERT_FILE names {certificates}, which does not exist; correct or unset it"
    return None


def _fail(message: str, code: int) -> NoReturn:
    print(f"rlaif: {escape_controls(message)}", file=sys.stderr)
    sys.stderr.flush()
    # Users need only the message. RLAIF_DEBUG=1 adds the traceback, for bug reports.
    if os.environ.get("RLAIF_DEBUG") and sys.exc_info()[0] is not None:
        print(escape_controls(traceback.format_exc()), file=sys.stderr, end="")
    sys.exit(code)
