import ast
from pathlib import Path

import pytest

import ssdnet_jax

PACKAGE = Path(ssdnet_jax.__file__).parent
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "configs" not in p.parts)


def imported(path):
    """Names of this package's modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("ssdnet_jax")}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda p: p.name)
def test_core_imports_only_core(path):
    assert all(name.startswith("ssdnet_jax.core") for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_the_mains(path):
    mains = ("ssdnet_jax.cli.ssdnet", "ssdnet_jax.__main__")
    if path.name != "__main__.py":
        assert not any(name.startswith(mains) for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 430


def test_every_module_is_mapped_in_the_workspace_file():
    workspace = Path(__file__).parents[1] / "WORKSPACE.md"
    text = workspace.read_text(encoding="utf-8")
    for path in MODULES:
        if path.name != "__init__.py":
            assert f"`{path.name}`" in text or f"/{path.name}`" in text, path


def test_public_functions_say_what_they_do():
    for name in ssdnet_jax.__all__:
        assert getattr(ssdnet_jax, name).__doc__, name
