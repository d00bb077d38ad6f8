"""Which room may import which, and what every module and public name owes its reader."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ssdnet_jax

PACKAGE = Path(ssdnet_jax.__file__).parent
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "configs" not in p.parts)

# From the ground up. A room may import those named here, all of which stand above it.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "errors": set(),
    "text": set(),
    "importing": set(),
    "config": {"core", "errors"},
    "data": {"core", "errors", "text"},
    "config_files": {"config", "errors", "text"},
    "programs": {"core", "data"},
    "figures": {"data", "text"},
    "baselines": {"core", "data", "errors"},
    "evaluation": {"core", "data", "errors"},
    "methods": {"core", "errors", "config", "data", "programs", "baselines"},
    "runner": {
        *("core", "errors", "text", "config", "data", "figures", "baselines", "evaluation"),
        *("programs", "methods"),
    },
    "localize": {"core", "errors", "config", "data", "methods", "runner"},
    "experiments": {
        *("errors", "text", "config", "data", "config_files", "programs", "evaluation", "methods"),
        *("runner",),
    },
    "reports": {
        *("core", "errors", "text", "data", "figures", "evaluation", "methods", "experiments"),
    },
    "cli": {
        *("errors", "text", "config", "data", "config_files", "evaluation", "methods", "runner"),
        *("importing", "experiments", "reports"),
    },
    "__main__": {"cli"},
    "__init__": {
        *("core", "errors", "config", "data", "config_files", "methods", "runner", "localize"),
        *("importing",),
    },
}


def room_of(path: Path) -> str:
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else path.stem


def imported(path: Path) -> Iterator[str]:
    """Names of this package's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("ssdnet_jax."))


def test_the_table_has_every_room_and_no_arrow_in_it_runs_up():
    assert {room_of(path) for path in MODULES} == set(ROOMS)
    below: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= below, f"{room} may import {allowed - below}, which stand above it"
        below.add(room)


def test_a_room_imports_what_the_table_allows_and_the_table_allows_no_more():
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in MODULES:
        room = room_of(path)
        for name in imported(path):
            other = name.split(".")[1]
            if other != room:
                assert other in ROOMS[room], f"{path.relative_to(PACKAGE)} imports {name}"
                found[room].add(other)
    assert found == ROOMS


def module_name(path: Path) -> str:
    return ".".join(("ssdnet_jax", *path.relative_to(PACKAGE).with_suffix("").parts))


def test_no_modules_import_each_other_in_a_circle():
    files = {module_name(path) for path in MODULES}
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        if path.stem != "__init__":  # importing a package fills its registries
            targets = {n if n in files else n.rpartition(".")[0] for n in imported(path)}
            arrows[module_name(path)] = targets & files
    # Modules that import none of the rest can be taken away, until none is left.
    while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert not arrows, f"a circle within {sorted(arrows)}"


def test_core_reads_and_writes_nothing():
    for path in (PACKAGE / "core").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"open", "print", "input"}, path.name
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not modules & {"os", "sys", "io", "pathlib", "random", "time"}, path.name


def test_every_module_says_what_it_is_and_is_mapped_in_the_workspace_file():
    text = (Path(__file__).parents[1] / "WORKSPACE.md").read_text(encoding="utf-8")
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
        if path.name != "__init__.py":
            assert f"`{path.name}`" in text or f"/{path.name}`" in text, path


def test_public_functions_say_what_they_do():
    for name in ssdnet_jax.__all__:
        assert getattr(ssdnet_jax, name).__doc__ or name in ("AUTO", "PAPER"), name


def test_the_method_is_asked_for_by_name_in_the_registry_only():
    """Defaults of flags and texts apart: the name of a program, of a style, of a table's row."""
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
        for node in compared:
            words = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
            assert "ssdnet" not in words, f"{path.name}:{node.lineno}"
