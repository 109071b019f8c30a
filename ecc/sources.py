"""Which source files a script depends on: of this library, and of the user's own networks."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

MARK = ":"  # what tells a function of the user's from the name of an architecture


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


def own_network(architecture: str, folder: Path) -> list[str]:
    """Files of `folder` that `package.module:function` is made of, by their imports; sorted.

    None for the name of an architecture, and for a module that is installed elsewhere.
    """
    module, mark, _ = architecture.partition(MARK)
    found: set[Path] = set()
    ahead = [module] if mark else []
    while ahead:
        for file in _modules(ahead.pop(), folder) - found:
            found.add(file)
            package = file.relative_to(folder).parent.parts
            # What cannot be read is told of by the job that imports it.
            with suppress(SyntaxError, ValueError):
                ahead += _names(ast.parse(file.read_text()), package)
    return sorted(map(str, found))


def digest(files: Iterable[str | Path]) -> str:
    """Of the contents of files, in their order: where they are does not matter."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(_checksum(Path(file)))
    return whole.hexdigest()


def library() -> str:
    """Digest of this library, as far as a result may depend on it: nothing sees `evidence`."""
    package = Path(__file__).parent
    return digest(
        file
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package).parts[0] != "evidence"
    )


@cache
def _checksum(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _modules(name: str, folder: Path) -> set[Path]:
    """The files that importing a dotted name runs, those of its packages too."""
    parts = name.split(".")
    places = [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return {file for file in files if file.is_file()}


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


def _names(node: ast.AST, package: Sequence[str] = ()) -> Iterator[str]:
    """Dotted names of everything imported below a node; a.b for `from a import b`.

    `package` is that of the file, from which relative imports start.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) + 1 - node.level] if node.level else ()
        base = [*above, *([node.module] if node.module else [])]
        yield from (".".join([*base, alias.name]) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child, package)
