"""Compile and render the templates of specs, tasks and models in a sandbox, with a bound on their work.

Templates may come from strangers. They read the values they are given and nothing else, change nothing, and end: the
work of rendering is counted in units, which do not depend on the machine, and a template that needs more than
`LIMIT` is an error. One unit is a character that is read or written; an iteration, a call, or an item of a list is
`STEP` units.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from rlaif_framework.data.template_meter import METER, Meter, TooMuchWork
from rlaif_framework.data.template_sandbox import Sandbox
from rlaif_framework.errors import SpecError

LIMIT = 3_000_000
"""Units of work that rendering a template may take, besides those for the values it is given."""

PER_CHARACTER = 50
"""Units of work for each character of the values: a template may read them about as many times."""

LONGEST = 500_000
"""Maximum number of characters of a template."""


class TemplateFault(SpecError):
    """A template that is invalid, fails, or takes too much work. `reason` does not name the template."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class Generation(Extension):
    """The tag `generation` of chat templates, which marks the assistant's tokens and changes nothing."""

    tags = {"generation"}  # noqa: RUF012  (the name and form that Jinja reads)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the statements inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_STRICT = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
"""For templates of specs and tasks: an unknown name is an error, instead of an empty text."""

_CHAT = Sandbox(
    undefined=Undefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
)
"""For chat templates of models, with the settings of transformers."""


class Template:
    """A compiled template.

    Args:
        name: Name for errors, such as `task.template`.
        source: The template.
        chat: True for the chat template of a model: names that are not given are then empty, as in transformers.

    Raises:
        TemplateFault: The template is invalid.
    """

    def __init__(self, name: str, source: str, chat: bool = False) -> None:
        self.name = name
        if len(source) > LONGEST:
            raise self._fault(None, f"the template is longer than {LONGEST:,} characters")
        with self._explain_errors(), _measure(LIMIT), warnings.catch_warnings():
            # Of Python's compiler, about operations that will fail, such as an item of a number.
            warnings.simplefilter("ignore", SyntaxWarning)
            sandbox = _CHAT if chat else _STRICT
            self._compiled = sandbox.from_string(source)
            tree = sandbox.parse(source)
            self.texts = _join_texts(tree)
            """The texts that the template contains, also in expressions, separated by null characters."""
            # Jinja's own function for this computes constants, without a bound on the work.
            loaded = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
            self.names = frozenset(loaded - sandbox.globals.keys())
            """The names that the template reads: those of values, and of its own variables."""

    def render(self, **values: Any) -> str:
        """Render the template with the given values: texts, numbers, and lists and mappings of these.

        Raises:
            TemplateFault: It fails or takes too much work.
        """
        size = Meter(sys.maxsize).weigh(values)
        with self._explain_errors(), _measure(LIMIT + PER_CHARACTER * size):
            text = self._compiled.render(values)
            text.encode()  # a lone surrogate, which a template can write as an escape, could not be saved
        return text

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the operations of a template raise is a fault of the template
            raise self._fault(_find_line(error), _describe(error)) from error

    def _fault(self, line: int | None, reason: str) -> TemplateFault:
        if line is None:
            return TemplateFault(f"{self.name}: {reason}", reason)
        return TemplateFault(f"{self.name}, line {line}: {reason}", f"line {line}: {reason}")


@contextmanager
def _measure(units: int) -> Iterator[None]:
    token = METER.set(Meter(units))
    try:
        yield
    finally:
        METER.reset(token)


def _join_texts(tree: nodes.Template) -> str:
    constants = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join([*(node.data for node in tree.find_all(nodes.TemplateData)), *constants])


def _find_line(error: Exception) -> int | None:
    """Return the line of the template in which an error was raised."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    # Jinja puts lines of the template into the traceback.
    lines = [n for frame, n in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "<template>"]
    return lines[-1] if lines else None


def _describe(error: Exception) -> str:
    if isinstance(error, TooMuchWork):
        return "the template takes too much work; its loops, texts or numbers are too large"
    if isinstance(error, UnicodeError):
        return "the result has half of a surrogate pair, which is not a character"
    if isinstance(error, RecursionError):
        return "the template or its values are nested too deeply"
    return shorten(str(error), 500, placeholder=" ...") or type(error).__name__
