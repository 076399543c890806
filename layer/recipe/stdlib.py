"""Which modules of the standard library go into the layer, and whether they are all that the sidecar imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from layer.recipe.steps import LAYER, BuildError

LIST_FILE = LAYER / "stdlib.txt"


def wanted(library: Path, text: str | None = None) -> dict[str, Path]:
    """The modules of the list: full name (NAME.__init__ for a package) -> source file.

    Raises:
        BuildError: the list names a module that the library does not have.
    """
    found: dict[str, Path] = {}
    for line in (LIST_FILE.read_text() if text is None else text).splitlines():
        name = line.split("#", 1)[0].strip()
        if not name:
            continue
        place = name.replace(".", "/")
        files = sorted(library.glob(f"{place}.py"))
        if not files:
            raise BuildError(f"{LIST_FILE.name} names {name}, which this CPython does not have")
        for file in files:
            found[".".join(file.relative_to(library).with_suffix("").parts)] = file
    return found


def imports(source: str) -> Iterator[str]:
    """All modules a piece of Python imports absolutely, inside functions too, but not under `if TYPE_CHECKING:`."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        waiting += ast.iter_child_nodes(node)


def imported_by(package: Path) -> dict[str, str]:
    """Every module outside the package that one of its files imports -> the file, for messages.

    Raises:
        BuildError: a file is not valid Python.
    """
    found: dict[str, str] = {}
    for file in sorted(package.rglob("*.py")):
        name = str(file.relative_to(package.parent))
        try:
            for module in imports(file.read_text()):
                if module.split(".")[0] != package.name:
                    found.setdefault(module, name)
        except SyntaxError as error:
            raise BuildError(f"{name}:{error.lineno}: {error.msg}") from error
    return found
