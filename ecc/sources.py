"""Which source files of this library a script depends on."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def imported(script: Path, package: Path) -> list[str]:
    """Files of `package` that `script` imports, directly or through others, sorted.

    Whole rooms: who imports one module of a subpackage depends on all of them, because registries
    load them by name. What is imported for type checking alone does not count.
    """
    found: set[Path] = {package / "__init__.py"}
    ahead = [script]
    while ahead:
        for room in _rooms(ahead.pop(), package):
            new = _files(room) - found
            found |= new
            ahead.extend(new)
    return sorted(map(str, found))


@cache
def _rooms(file: Path, package: Path) -> frozenset[Path]:
    """Modules and subpackages of `package` that a file imports, as paths without suffix."""
    parts = (name.split(".") for name in _names(ast.parse(file.read_text())))
    return frozenset(
        package / name[1] for name in parts if name[0] == package.name and len(name) > 1
    )


@cache
def _files(room: Path) -> frozenset[Path]:
    module = room.with_suffix(".py")
    return frozenset([module] if module.is_file() else room.glob("*.py"))


def _names(node: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported below a node; a.b for `from a import b`."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
