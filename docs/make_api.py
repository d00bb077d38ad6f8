"""Writes docs/api.md from the docstrings of what `ssdnet_jax.__all__` names.

Command:
  python docs/make_api.py

Signatures and fields are taken from the source as they stand there, with their comments, so the
page does not depend on the versions of Python and JAX. `tests/docs/test_api_page.py` fails if it is
out of date.
"""

import ast
import inspect
import itertools
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of this repository, not an installed copy that may be older.
sys.path.insert(0, str(Path(__file__).parents[1]))

import ssdnet_jax

PAGE = Path(__file__).with_name("api.md")

INTRODUCTION = """\
# API

Everything that `ssdnet_jax` exports. Images are `(H, W, C)` or `(b, H, W, C)`, float32 in [0, 1];
keys are JAX keys and always explicit.

Other libraries for anomaly detection have other names for the same results:

| here | elsewhere, for example in Anomalib |
|---|---|
| `score_map` | `anomaly_map` |
| `score` | `pred_score` |
| `mask` | `pred_mask` |

`python docs/make_api.py` writes this page from the docstrings.
"""

WIDTH = 88  # characters: a longer signature has a line for each parameter
SECTIONS = ("Args", "Arguments", "Attributes", "Returns", "Raises", "Yields")
GROUPS = (
    "Images to results",
    "Pure functions and their values",
    "Configuration",
    "Files and weights",
    "Errors",
    "Other",
)


def group_of(name: str, value: Any) -> str:
    """The heading under which a public name stands."""
    home = getattr(value, "__module__", "") if callable(value) else type(value).__module__
    room = home.removeprefix("ssdnet_jax.").split(".")[0]
    if isinstance(value, type) and issubclass(value, Exception):
        return "Errors"
    if "config" in name.lower() or room in ("config", "config_files") or home.endswith(".config"):
        return "Configuration"
    if room == "core":
        return "Pure functions and their values"
    if room == "data" or name.startswith("load_"):
        return "Files and weights"
    if room in ("localize", "methods", "runner", "stages"):
        return "Images to results"
    return "Other"


def page() -> str:
    """The text of docs/api.md."""
    public = {name: getattr(ssdnet_jax, name) for name in ssdnet_jax.__all__}
    parts = [INTRODUCTION]
    for group in GROUPS:
        names = [name for name, value in public.items() if group_of(name, value) == group]
        if names:
            parts.append(f"## {group}\n")
            # Functions before classes, each from a to z.
            names.sort(key=lambda name: (not inspect.isfunction(public[name]), name.lower()))
            parts += [entry(name, public[name]) for name in names]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def entry(name: str, value: Any) -> str:
    """Heading, signature and docstring of one public name."""
    if inspect.ismodule(value):
        return module_entry(name, value)
    if isinstance(value, type):
        signature, doc = class_outline(value), inspect.getdoc(value)
        methods = "\n" + "".join(method_entries(value))
    elif node := definition(value):
        signature, doc, methods = function_signature(name, node), inspect.getdoc(value), ""
    else:
        signature, doc, methods = f"{name}: {type(value).__name__}", constant_doc(name), ""
    return f"### {name}\n\n```python\n{signature}\n```\n\n{markdown(doc or '')}\n{methods}"


def module_entry(name: str, module: types.ModuleType) -> str:
    """Docstring of a module, and what it defines in capitals."""
    constants = [each for each in vars(module) if each.isupper()]
    listed = ", ".join(f"`{each}`" for each in constants)
    return f"### {name}\n\nA module: {listed}.\n\n{markdown(inspect.getdoc(module) or '')}\n"


def definition(value: Any) -> ast.FunctionDef | ast.ClassDef | None:
    """The statement that defines a function (also one that `jax.jit` has wrapped) or a class."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))
        node = ast.parse(source).body[0]
    except (TypeError, OSError, SyntaxError):
        return None
    return node if isinstance(node, ast.FunctionDef | ast.ClassDef) else None


def function_signature(name: str, node: ast.FunctionDef, *, drop_first: bool = False) -> str:
    """`name(parameters) -> result` as in the source, one line a parameter if it is long."""
    arguments = node.args
    if drop_first:
        (arguments.posonlyargs or arguments.args).pop(0)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({ast.unparse(arguments)}){result}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in parameters(arguments)) + f"){result}"


def parameters(arguments: ast.arguments) -> Iterator[str]:
    """Each parameter with its annotation and default, and the marks `/` and `*` between them."""
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True), start=1):
        yield parameter(argument, default)
        if index == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg:
        yield "*" + ast.unparse(arguments.vararg)
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield parameter(argument, default)
    if arguments.kwarg:
        yield "**" + ast.unparse(arguments.kwarg)


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    """One parameter as in the source."""
    if default is None:
        return ast.unparse(argument)
    equals = " = " if argument.annotation else "="
    return f"{ast.unparse(argument)}{equals}{ast.unparse(default)}"


def class_outline(cls: type) -> str:
    """The class with its fields as in the source, their comments included."""
    node = definition(cls)
    if not isinstance(node, ast.ClassDef):
        return f"class {cls.__name__}"
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    head = f"class {node.name}"
    if node.bases:
        head += f"({', '.join(ast.unparse(base) for base in node.bases)})"
    fields: list[str] = []
    for statement in node.body:
        name = assigned_name(statement)
        if name is None or name.startswith("_"):
            continue
        end = statement.end_lineno or statement.lineno
        # Lines of comment right below a field belong to it.
        while end < len(lines) and lines[end].lstrip().startswith("#"):
            end += 1
        fields += lines[statement.lineno - 1 : end]
    return "\n".join([f"{head}:", *fields]) if fields else head


def assigned_name(statement: ast.stmt) -> str | None:
    """The name that an assignment, or the declaration of a field, gives a value."""
    match statement:
        case ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]):
            return name
    return None


def method_entries(cls: type) -> Iterator[str]:
    """A line for each public method and property that the class itself defines."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not inspect.isfunction(function) or function.__module__ != cls.__module__:
            continue
        node = definition(function)
        if not isinstance(node, ast.FunctionDef):
            continue
        if isinstance(value, property):
            signature = name + (f": {ast.unparse(node.returns)}" if node.returns else "")
        else:
            bound = not isinstance(value, staticmethod)
            signature = function_signature(name, node, drop_first=bound)
        first = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        yield f"- `{' '.join(signature.split())}`: {first}\n"


def constant_doc(name: str) -> str:
    """The docstring below the assignment that makes a public constant."""
    modules = [module for path, module in sys.modules.items() if path.startswith("ssdnet_jax.")]
    for module in modules:
        for statement, following in itertools.pairwise(ast.parse(inspect.getsource(module)).body):
            match following:
                case ast.Expr(ast.Constant(str(doc))):
                    if assigned_name(statement) == name:
                        return inspect.cleandoc(doc)
    return ""


def markdown(doc: str) -> str:
    """A Google-style docstring as Markdown: its sections become lists."""
    lines = doc.splitlines()
    out: list[str] = []
    index = 0
    while index < len(lines):
        title = lines[index].removesuffix(":")
        if lines[index].endswith(":") and title in SECTIONS:
            start = index = index + 1
            while index < len(lines) and (not lines[index].strip() or lines[index].startswith(" ")):
                index += 1
            items = textwrap.dedent("\n".join(lines[start:index])).strip("\n")
            out += [f"**{title}**", "", section(items), ""]
        else:
            out.append(lines[index])
            index += 1
    return "\n".join(out).strip() + "\n"


def section(text: str) -> str:
    """The items `name: meaning` of a section as a list; other text as it is."""
    items: list[str] = []
    for line in text.splitlines():
        item = re.match(r"(\*{0,2}\w[\w., *]*): (.*)", line)
        if item:
            items.append(f"- `{item[1]}`: {item[2]}")
        elif items and line.strip():
            items.append(f"  {line.strip()}")
        else:
            items.append(line)
    return "\n".join(items)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
