"""Write the reference pages and the JSON Schema from the code.

Run `python docs/generate.py` after a change of a config, a hook or a public name. With `--check`, write nothing, list
the stale files (drawings included) and exit with 1 if there are any.
"""

from __future__ import annotations

import ast
import datetime
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rlaif_framework import Config, PluginManager, Spec
from rlaif_framework.cli.schemas import SCHEMAS, build_schema
from rlaif_framework.contracts.protocols import PROTOCOLS
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.component import SLOTS, Slot
from rlaif_framework.plugins.configs import BASES
from rlaif_framework.plugins.slots import SlotType
from rlaif_framework.spec.families import FamilyKeys
from rlaif_registry import NOTICE, read_catalogue

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "specs/schema.json"
ENTRY = ROOT / "registry/rlaif_registry/catalogue/rlaif-framework.toml"
NOTE = "<!-- Written by docs/generate.py; do not edit. -->"
TEMPLATES = ROOT / "rlaif_framework/cli/plugin_templates"
KIND_PAGES: dict[Slot, str] = {
    "task": "tasks",
    "backend": "backends",
    "strategy": "strategies",
    "labeler": "labelers",
    "reward": "rewards",
    "algorithm": "algorithms",
    "metric": "metrics",
    "tracker": "trackers",
}
"""The page for authors of each kind of component."""
INTERFACES = {
    "Protocols": ("contracts/protocols.py", ()),
    "Settings": ("plugins/component.py", ("Component", "ComponentConfig", "ModelLoad")),
    "Settings by kind": ("plugins/configs.py", ()),
    "Context": ("assembly/context.py", ()),
    "Stage": ("contracts/stage.py", ()),
    "Runs": ("contracts/lifecycle.py", ()),
    "Tracked runs": ("contracts/tracking.py", ()),
    "Panels of the report": ("contracts/panels.py", ()),
    "Prompts, comparisons and preferences": ("records/preferences.py", ()),
    "Requests and answers": ("records/requests.py", ()),
    "Annotations": ("records/annotation.py", ()),
    "Ballots": ("records/ballots.py", ()),
    "Samples": ("records/samples.py", ()),
    "Policy gradients": ("rl/policy_gradient.py", ("PolicyGradient",)),
    "Experience of a policy gradient": ("rl/experience.py", ("Experience",)),
}
"""Sections of the page of interfaces: a module, and its classes; all public ones if none are named."""
PLAIN = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    object: "anything",
    Any: "anything",
    Path: "a path",
    datetime.date: "a date",
}
LONG = 60


def main() -> None:
    """Write the generated files that are not up to date, or list them."""
    os.environ["RLAIF_PLUGINS"] = ""  # the built-ins only, whatever is installed here
    manager = PluginManager.load()
    files = {**build_pages(manager), **build_schemas(manager), ENTRY: describe_builtins(manager)}
    stale = {
        path: text for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if "--check" in sys.argv[1:]:
        names = [str(path.relative_to(ROOT)) for path in stale] + find_stale_drawings()
        raise SystemExit(f"not up to date: {', '.join(names)}; run: make generate" if names else 0)
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def is_fresh(path: Path, text: str) -> bool:
    """Return True if a file exists and holds this text."""
    return path.exists() and path.read_text(encoding="utf-8") == text


def find_stale_drawings() -> list[str]:
    """Return the names of drawings whose Mermaid source has changed since they were rendered."""
    sys.path.insert(0, str(ROOT / "docs/diagrams"))
    from render import find_stale

    return [f"docs/diagrams/{source.name} (python docs/diagrams/render.py)" for source in find_stale()]


def build_pages(manager: PluginManager) -> dict[Path, str]:
    """Return the text of each generated page by its path."""
    hooks = ROOT / "docs/plugins/hooks.md"
    return {
        ROOT / "docs/reference/spec.md": describe_spec(),
        ROOT / "docs/reference/components.md": describe_components(manager),
        ROOT / "docs/reference/api.md": describe_api(),
        ROOT / "docs/reference/interfaces.md": describe_interfaces(),
        ROOT / "docs/reference/catalogue.md": describe_catalogue(),
        hooks: replace_block(hooks.read_text(encoding="utf-8"), "hooks", describe_hooks(manager)),
        **{ROOT / f"docs/plugins/{name}.md": fill_kind_page(slot, name) for slot, name in KIND_PAGES.items()},
    }


def build_schemas(manager: PluginManager) -> dict[Path, str]:
    """Return what `rlaif schema NAME` prints for each name, by its path; editors read the files."""
    found = {name: build_schema(name, manager if name == "spec" else None) for name in SCHEMAS}
    paths = {name: SCHEMA if name == "spec" else SCHEMA.with_name("schemas") / f"{name}.json" for name in SCHEMAS}
    return {paths[name]: json.dumps(found[name], indent=1, ensure_ascii=False) + "\n" for name in SCHEMAS}


# Keys of a spec


def describe_spec() -> str:
    """Write a section with a table of keys for each part of a spec."""
    lines = [
        "# Spec keys",
        "",
        NOTE,
        "",
        "Every key of a spec, with its type, default and meaning. NAME stands for a name of your choice. A key whose",
        "type is a slot takes one of the [components](components.md). The [guide](../spec.md) shows them in use.",
    ]
    seen: dict[type[BaseModel], str] = {}
    for path, model in _walk_models("", Spec):
        title = path or "The spec"
        lines += ["", f"## {title}", "", _docstring(model), ""]
        if model in seen:
            lines.append(f"Same keys as [{seen[model]}](#{_slug(seen[model])}).")
        else:
            lines += describe_fields(model)
            seen[model] = title
    lines += ["", "## Families of runs", "", _docstring(FamilyKeys), "", *describe_fields(FamilyKeys)]
    return "\n".join(lines) + "\n"


def _walk_models(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, hint in _hints(model).items():
        inner = f"{path}.{name}" if path else name
        nested = list(_nested_models(hint))
        for suffix, found in nested:
            kind = found.model_fields.get("kind")
            label = f" ({kind.default})" if kind is not None and len(nested) > 1 else ""
            yield from _walk_models(f"{inner}{suffix}{label}", found)


def _nested_models(hint: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if _slot(hint) is not None:
        return
    if isinstance(hint, type) and issubclass(hint, Config):
        yield "", hint
        return
    suffix = ".NAME" if get_origin(hint) is dict else ""
    for part in get_args(hint):
        for inner, model in _nested_models(part):
            yield suffix + inner, model


def describe_fields(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> list[str]:
    """Write a Markdown table of a model's fields, then the defaults that are too long for it."""
    rows, texts = [], []
    hints = _hints(model)
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        default = _default(field)
        if len(default) > LONG and not field.is_required():
            texts += ["", f"Default of `{name}`:", "", "```text", str(field.default).rstrip("\n"), "```"]
            default = "see below"
        meaning = " ".join((field.description or "Selects one of them.").split())
        first, *others = describe_type(hints[name]).split(" or ", 1)  # bounds are those of the first alternative
        kind = " or ".join([first + _bounds(field), *others])
        rows.append(f"| `{name}` | {kind} | {default} | {_cell(meaning)} |")
    if not rows:
        return ["No settings."]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows, *texts]


def describe_type(hint: Any) -> str:
    """Describe a type as the author of a spec would."""
    slot = _slot(hint)
    if slot is not None:
        return f"slot: [{slot}](components.md#{slot})"
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if any(isinstance(m, FieldInfo) and any(hasattr(x, "pattern") for x in m.metadata) for m in args[1:]):
            return "name"
        return describe_type(args[0])
    if origin is Literal:
        return _either([f"`{value}`" for value in args])
    if origin in (Union, UnionType):
        return _either(list(dict.fromkeys(map(describe_type, args))))
    if origin is list:
        return f"list of {describe_type(args[0])}"
    if origin is tuple:
        return f"[{', '.join(map(describe_type, args))}]"
    if origin is dict:
        return f"mapping of {describe_type(args[0])} to {describe_type(args[1])}"
    if hint is NoneType:
        return "`null`"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "mapping"
    return PLAIN[hint]


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _hints(model: type[BaseModel]) -> dict[str, Any]:
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def _slot(hint: Any) -> str | None:
    marks = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, SlotType)]
    return marks[0].name if marks else None


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{signs[k]} {getattr(m, k)}" for m in field.metadata for k in signs if hasattr(m, k)]
    return f", {' and '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, dict) and set(value) == {"kind"}:
        return f"`{value['kind']}`"
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"


def _docstring(item: object) -> str:
    return inspect.cleandoc(item.__doc__ or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _slug(title: str) -> str:
    """Return the anchor of a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


# Components


def describe_components(manager: PluginManager) -> str:
    """Write a section for each slot, with the settings of each component that fits."""
    lines = [
        "# Components",
        "",
        NOTE,
        "",
        "The built-in components by kind, with their settings. `rlaif components` lists those installed on a machine,",
        "third-party ones included, and `rlaif show KIND NAME` prints one of these tables.",
    ]
    for slot in SLOTS:
        lines += ["", f"## {slot}", "", _docstring(PROTOCOLS[slot]).partition("\n")[0]]
        for component, plugin in manager.components(slot):
            lines += ["", f"### {slot}: {component.name}", "", _docstring(component.config)]
            lines += ["", f"In plugin `{plugin.name}`, class `{component.target.partition(':')[2]}`.", ""]
            lines += describe_fields(component.config, leave_out=("kind",))
    return "\n".join(lines) + "\n"


# Catalogue


def describe_builtins(manager: PluginManager) -> str:
    """Write the entry of the built-ins in the catalogue: its head as it is, and the components that there are."""
    head = ENTRY.read_text(encoding="utf-8").partition("[components]")[0]
    lines = [f"{slot} = {json.dumps(manager.names(slot))}" for slot in SLOTS]
    return f"{head}[components]\n" + "\n".join(lines) + "\n"


def describe_catalogue() -> str:
    """Write a section for each entry of the catalogue."""
    lines = [
        "# Catalogue",
        "",
        NOTE,
        "",
        f"The plugins in the catalogue, which `rlaif catalogue` searches. **{NOTICE}**",
        "[Publishing](../plugins/publishing.md#the-catalogue) describes how to add one.",
    ]
    for entry in read_catalogue():
        lines += ["", f"## {entry.distribution}", "", f"{entry.summary}. Status: {entry.status}.", ""]
        if entry.namespace:  # the built-ins are installed
            lines += ["```text", f"pip install {entry.distribution}", "```", ""]
        lines += [f"Requires `{entry.requires}`. Homepage: <{entry.homepage}>", ""]
        lines += ["| kind | components |", "|---|---|"]
        lines += [f"| {kind} | {', '.join(f'`{n}`' for n in names)} |" for kind, names in entry.components.items()]
    return "\n".join(lines) + "\n"


# Hooks


def list_hooks() -> dict[str, Callable[..., Any]]:
    """Return every hook by its name, in the order of `hookspecs.py`."""
    return {n: f for n, f in vars(hookspecs).items() if n.startswith("rlaif_") and inspect.isfunction(f)}


def describe_hooks(manager: PluginManager) -> str:
    """Write a section for each hook: signature, meaning, version and the built-ins that implement it."""
    lines = []
    for name, function in list_hooks().items():
        text, _, since = _docstring(function).replace("\n", " ").rpartition(" Added in ")
        users = [f"`rlaif_plugins.{p.name}`" for p in manager.plugins if name in p.hooks]
        signature = str(inspect.signature(function)).replace("'", "")
        lines += [f"### {name}", "", "```python", f"def {name}{signature}: ...", "```", "", text, ""]
        lines += [f"Added in {since.rstrip('.')}. Built-in plugins that use it: {', '.join(users) or 'none'}.", ""]
    return "\n".join(lines)


def replace_block(page: str, name: str, block: str) -> str:
    """Replace the text between the two marks of a name in a page."""
    begin, end = f"<!-- generated:{name} -->", f"<!-- end of generated:{name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{block}{end}{after}"


# Interfaces and pages for authors


def describe_interfaces() -> str:
    """Write the protocols, base configs and records that plugins use, as their signatures and docstrings."""
    lines = [
        "# Interfaces",
        "",
        NOTE,
        "",
        "What plugins implement and receive, as signatures with their docstrings. [Hooks](../plugins/hooks.md) has the",
        "functions that a plugin's module implements. The [API](api.md) lists all public names, and the packages that",
        "they are imported from.",
    ]
    for title, (path, names) in INTERFACES.items():
        lines += ["", f"## {title}", "", *_summarise(f"rlaif_framework/{path}")]
        for name, stub in read_interfaces(path, names).items():
            lines += ["", f"### {name}", "", "```python", stub, "```"]
    return "\n".join(lines) + "\n"


def read_interfaces(path: str, names: Sequence[str]) -> dict[str, str]:
    """Return the named classes of a module of the framework, or all public ones, without code, by name."""
    found = read_stubs(ROOT / "rlaif_framework" / path)
    return {
        name: stub
        for name, (kind, stub) in found.items()
        if kind is ast.ClassDef and (name in names if names else not name.startswith("_"))
    }


def read_stubs(path: Path) -> dict[str, tuple[type[ast.AST], str]]:
    """Return what a module defines, without the code of functions: the type of syntax and the text, by name."""
    source = path.read_text(encoding="utf-8")
    lines, body = source.splitlines(), ast.parse(source).body
    found: dict[str, tuple[type[ast.AST], str]] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = type(node), _cut_bodies(lines, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            last = after if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else node
            text = "\n".join(lines[node.lineno - 1 : last.end_lineno])
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found[ast.unparse(target)] = type(node), text
    return found


def _cut_bodies(lines: Sequence[str], node: ast.ClassDef | ast.FunctionDef) -> str:
    """Return the source of a class or function with the docstrings of public functions, and without their code."""
    dropped: set[int] = set()
    for item in [node] if isinstance(node, ast.FunctionDef) else node.body:
        if isinstance(item, ast.AnnAssign) and ast.unparse(item.target).startswith("_"):
            dropped |= set(range(item.lineno, (item.end_lineno or 0) + 1))
        elif isinstance(item, ast.FunctionDef):
            first, last = _first_line(item), item.end_lineno or 0
            if item.name.startswith("_"):
                dropped |= set(range(first, last + 1))
            elif ast.get_docstring(item) is not None:
                dropped |= set(range((item.body[0].end_lineno or 0) + 1, last + 1))
    kept = [lines[n - 1] for n in range(_first_line(node), (node.end_lineno or 0) + 1) if n not in dropped]
    text = "\n".join(line for n, line in enumerate(kept) if line.strip() or (n and kept[n - 1].strip()))
    return text.rstrip()


def _first_line(node: ast.ClassDef | ast.FunctionDef) -> int:
    """Return the line of a definition or of its first decorator."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def fill_kind_page(slot: Slot, name: str) -> str:
    """Fill in a page for authors: the interface, the component that `rlaif new-plugin` writes, and its tests."""
    page = (ROOT / f"docs/plugins/{name}.md").read_text(encoding="utf-8")
    protocols = read_interfaces("contracts/protocols.py", [PROTOCOLS[slot].__name__])
    bases = read_interfaces("plugins/configs.py", [BASES[slot].__name__])
    blocks = {
        "interface": _fence("python", *protocols.values()) + _fence("python", *bases.values()),
        "example": describe_example(slot),
        "tests": _fence("python", _read(TEMPLATES / slot / "test.py")),
        "conformance": describe_conformance(slot),
    }
    for mark, block in blocks.items():
        page = replace_block(page, mark, block)
    return page


def describe_example(slot: Slot) -> str:
    """Write the files that `rlaif new-plugin acme` puts into the package, and how the component is used."""
    files = sorted(p for p in (TEMPLATES / slot).iterdir() if p.name not in ("plugin.py", "test.py", "usage.yaml"))
    lines = ["`src/rlaif_acme/__init__.py`:\n\n", _fence("python", _read(TEMPLATES / slot / "plugin.py"))]
    for file in (file for file in files if file.is_file()):
        text = _read(file)
        if file.suffix == ".jsonl":
            text = text.partition("\n")[0]
            lines += [f"`src/rlaif_acme/{file.name}` has one row for each text, such as:\n\n", _fence("json", text)]
        else:
            language = {".py": "python", ".yaml": "yaml"}[file.suffix]
            lines += [f"`src/rlaif_acme/{file.name}`:\n\n", _fence(language, text)]
    return "".join([*lines, "In a spec:\n\n", _fence("yaml", _read(TEMPLATES / slot / "usage.yaml"))])


def describe_conformance(slot: Slot) -> str:
    """Write a table of the standard tests of a kind, from their docstrings."""
    rows = []
    for module in ("component", KIND_PAGES[slot]):
        tree = ast.parse(_read(ROOT / f"rlaif_framework/testing/{module}.py"))
        for node in (item for kind in tree.body if isinstance(kind, ast.ClassDef) for item in kind.body):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                meaning = " ".join((ast.get_docstring(node) or "").split()).removeprefix("Check ").removeprefix("that ")
                rows.append(f"| {node.name.removeprefix('test_').replace('_', ' ')} | {_cell(meaning)} |\n")
    return "".join(["| test | what is checked |\n", "|---|---|\n", *rows, "\n"])


def _fence(language: str, *texts: str) -> str:
    return "".join(f"```{language}\n{text}\n```\n\n" for text in texts)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip()


# API


def describe_api() -> str:
    """Write a section for each package with public names: signatures and docstrings, or links to the interfaces."""
    shown = {f"rlaif_framework/{path}": read_interfaces(path, names) for path, names in INTERFACES.values()}
    lines = [
        "# API",
        "",
        NOTE,
        "",
        "The root package has the names that most plugins need. Its subpackages, such as `rlaif_framework.rl`, have",
        "more, for plugins that train or sample. Names that are not listed here may change without notice. A name is",
        "imported when it is first used, so importing a package does not import torch.",
    ]
    for package in list_packages():
        lines += ["", f"## {package}", "", *_summarise(package.replace(".", "/") + "/__init__.py")]
        for module, names in public_names(package).items():
            lines += ["", f"### {module}", "", *_summarise(f"{module.replace('.', '/')}.py")]
            path = f"{module.replace('.', '/')}.py"
            stubs = read_stubs(ROOT / path)
            for name in names:
                lines += ["", f"#### `{package}.{name}`", ""]
                if name in shown.get(path, ()):
                    lines.append(f"See [interfaces](interfaces.md#{name.lower()}).")
                else:
                    lines += ["```python", stubs[name][1], "```"]
    return "\n".join(lines) + "\n"


def _summarise(source: str) -> list[str]:
    """Return the first paragraph of a module's docstring."""
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n\n")[0].splitlines()


def public_names(package: str) -> dict[str, list[str]]:
    """Return a package's public names by the module that defines them, read from its `__init__.pyi`."""
    stub = ROOT / package.replace(".", "/") / "__init__.pyi"
    found: dict[str, list[str]] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found.setdefault(f"{package}.{node.module}", []).extend(alias.asname or alias.name for alias in node.names)
    return {module: sorted(names) for module, names in sorted(found.items())}


def list_packages() -> list[str]:
    """Return the packages that have public names: the root, then its subpackages."""
    stubs = sorted((ROOT / "rlaif_framework").rglob("__init__.pyi"))
    return [".".join(stub.parent.relative_to(ROOT).parts) for stub in stubs]


if __name__ == "__main__":
    main()
