"""A Jinja sandbox that counts the work of templates: see `rlaif_framework.data.templates`.

Whatever repeats or multiplies work spends units before it is done: iterations, calls, operators, filters, tests, and
written text. What cannot be counted, such as most methods of values, cannot be used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateAssertionError, TemplateError, nodes, pass_context, pass_environment
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.tests import TESTS
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from rlaif_framework.data.template_meter import BITS, METER, STEP, TooMuchWork


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS: Mapping[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal "
        "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition "
        "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper zfill"
    ),
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count grouper index list"),  # of the pairs that `groupby` returns, too
}
"""Methods of values that templates may call."""

OBJECTS = (LoopContext, Macro, Cycler, Joiner)
"""Objects of Jinja whose public attributes templates may read."""

CONSTANT = _names("count d default first last length")
"""Filters whose work does not depend on the size of the value."""

SHALLOW = _names("batch items list map reject rejectattr reverse select selectattr slice")
"""Filters that do not look into the items of a list; functions that they call are counted for themselves."""

DEEP = _names(
    "abs capitalize center dictsort e escape float forceescape format groupby indent int join lower max min replace "
    "round safe sort string sum title tojson trim truncate unique upper urlencode wordcount"
)
"""All other filters that templates may use. The rest have too much work for their input, or random results."""

CHEAP_TESTS = _names(
    "boolean callable defined divisibleby even false filter float integer iterable mapping none number odd sameas "
    "sequence string test true undefined"
)
"""Tests whose work does not depend on the size of the value."""


class PlainNamespace(Namespace):
    """A namespace without names that begin with an underscore, which Python and Jinja give a meaning."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"  # not its values, which may hold each other


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot have the name '{name}'")


def _meter_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that spends the units of its input and of its result."""
    start = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja passes its context first

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        meter.spend(STEP)
        value, *given = (meter.hold(argument) for argument in args[start:])
        if name in SHALLOW:
            meter.measure(value)
        elif name not in CONSTANT:
            meter.weigh([value, given, kwargs])
        if name == "join":
            separator = kwargs.get("d", given[0] if given else "")
            meter.spend(len(value) * len(str(separator)))
        meter.foresee(name, value, tuple(given), kwargs)
        result = function(*args[:start], value, *given, **kwargs)
        if name not in CONSTANT:
            meter.measure(result)
        if isinstance(result, int) and result.bit_length() > BITS:  # of a long text of digits
            raise TooMuchWork
        return result

    return metered


def _meter_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        if name in CHEAP_TESTS:
            METER.get().spend(STEP)
        else:
            METER.get().weigh(args)
        return function(*args, **kwargs)

    return metered


@pass_environment
def _sum_numbers(environment: Environment, items: Iterable[Any], attribute: Any = None, start: float = 0) -> float:
    """Add numbers. Lists, which Python could add too, would be copied for each of them."""
    total = start
    for value in items if attribute is None else map(make_attrgetter(environment, attribute), items):
        if not isinstance(value, int | float):
            raise TypeError(f"the filter 'sum' adds numbers, got {type(value).__name__}")
        total += value
    return total


def _dump_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write a value as JSON, without the escapes for HTML that Jinja's own filter adds."""
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= 16):
        raise ValueError("the indentation of 'tojson' must be a number up to 16")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    meter, chunks = METER.get(), []
    for chunk in encoder.iterencode(value):
        meter.spend(len(chunk))
        chunks.append(chunk)
    return "".join(chunks)


def _raise_exception(message: Any) -> None:
    METER.get().weigh(message)
    raise TemplateError(str(message))


@pass_context  # Jinja then calls it when the template is rendered, and not when it is compiled
def _finalize(_context: Any, value: Any) -> Any:
    METER.get().weigh(value)
    if not isinstance(value, int | float | Sized | None):  # others would be written with their address in the memory
        raise TypeError(f"a value of type '{type(value).__name__}' cannot be written; use the filter 'list' or 'join'")
    return value


def _ask(name: str, argument: nodes.Node) -> nodes.Call:
    """Return the node of a call to a method of the environment."""
    call = nodes.Call(nodes.EnvironmentAttribute(name), [argument], [], None, None)
    call.set_lineno(argument.lineno)
    return call


class _CountWork(NodeTransformer):
    """Put calls that spend units into the tree of a template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _ask("count", node.iter)
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:
        self.generic_visit(node)
        written = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        spend = _ask("spend", nodes.Const(written, lineno=node.lineno))
        return [nodes.ExprStmt(spend, lineno=node.lineno), node] if written else [node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_ask("weigh", part) for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _ask("weigh", node.expr)
        for operand in node.ops:
            operand.expr = _ask("weigh", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _ask("measure", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _ask("measure", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _ask("measure", node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for item in node.items:
            item.key = _ask("weigh", item.key)
        return _ask("measure", node)

    def _refuse(self, node: nodes.Stmt) -> nodes.Node:
        raise TemplateAssertionError("a template cannot read other templates", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refuse


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates spend units of the current meter (`METER`) for all that they do."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, **settings: Any) -> None:
        # Not optimised: constants would be computed while the template is compiled.
        super().__init__(finalize=_finalize, optimized=False, **settings)
        self.globals = {
            "cycler": Cycler,
            "dict": dict,
            "joiner": Joiner,
            "namespace": PlainNamespace,
            "raise_exception": _raise_exception,
            "range": safe_range,
        }
        filters = FILTERS | {"tojson": _dump_json, "sum": _sum_numbers}
        self.filters = {
            name: _meter_filter(name, filters[name]) for name in (*CONSTANT, *SHALLOW, *DEEP) if name in filters
        }
        tests: dict[str, Any] = dict(TESTS)
        self.tests = {name: _meter_test(name, function) for name, function in tests.items()}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Generate code that counts work. This is the hook of Jinja for other ways to generate code."""
        return super()._generate(_CountWork().visit(source).set_environment(self), *args, **kwargs)

    # Methods that compiled templates call; see `_CountWork`.

    def spend(self, units: int) -> None:
        """Spend units."""
        METER.get().spend(units)

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """Count iterations."""
        return METER.get().count(items)

    def weigh(self, value: Any) -> Any:
        """Spend the units of a value with all that it contains."""
        METER.get().weigh(value)
        return value

    def measure(self, value: Any) -> Any:
        """Spend the units of a new list or text."""
        METER.get().measure(value)
        return value

    # Methods of Jinja.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return True for the methods of values and the attributes of Jinja's objects that templates may use."""
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return isinstance(obj, Namespace) or (isinstance(obj, OBJECTS) and not attr.startswith("_"))

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuse an attribute, also where a template only asks if it is defined."""
        raise SecurityError(f"a template cannot use '{attribute}' of a value of type '{type(obj).__name__}'")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item; filters ask for many, and a key is hashed or written with all that it contains."""
        METER.get().weigh(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a method `format` that reads no attributes that a template may not read, and counts its work."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None

        @wraps(safe)
        def metered(*args: Any, **kwargs: Any) -> str:
            METER.get().foresee("format", value.__self__, args, kwargs)
            return safe(*args, **kwargs)

        return metered

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function, a macro, or a method of a value."""
        meter = METER.get()
        meter.spend(STEP * (1 + len(args) + len(kwargs)))
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | list | tuple | LoopContext):
            args = tuple(meter.hold(value) for value in args)
            named = {name: value for name, value in kwargs.items() if not name.startswith("_")}
            meter.weigh([args, named] if isinstance(owner, LoopContext) else [owner, args, named])
            if __obj.__name__ == "join" and args:
                meter.spend(len(owner) * len(args[0]))
            meter.foresee(__obj.__name__, owner, args, named)
        elif isinstance(owner, dict):
            meter.weigh(args[:1])  # the key
        elif isinstance(__obj, LoopContext):  # a recursive loop over other items
            args = tuple(meter.count(items) for items in args)
        elif not isinstance(__obj, BlockReference | Macro) and owner is not __self:
            for value in args:  # which `dict` and `namespace` copy
                meter.measure(value)
        result = super().call(__context, __obj, *args, **kwargs)
        if not isinstance(__obj, BlockReference | Macro) and owner is not __self:
            meter.measure(result)
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute with two values."""
        meter = METER.get()
        meter.spend(STEP)
        if isinstance(left, int) and isinstance(right, int):
            times = max(right, 1) if operator == "**" else 1
            if left.bit_length() * times + right.bit_length() > BITS:
                raise TooMuchWork
        elif operator == "%" and isinstance(left, str):
            meter.foresee_format(left, right)
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, Sized) and isinstance(times, int):
                    meter.spend(len(value) * max(times, 0) * (1 if isinstance(value, str) else STEP))
        elif operator == "+":
            meter.measure(left)
            meter.measure(right)
        return super().call_binop(context, operator, left, right)
