"""
The shape of the program, read from its syntax trees: who may import whom, who may do what.

A module may import what is in its own layer or below; layers side by side know nothing of each
other. The same walk sees to it that pure code stays pure, that the kernel is called and the screen
is written to in one place each, and that everything public says what it is.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import buttersink

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(buttersink.__file__).parent

LAYERS = [  # from top to bottom; those on one line are side by side; a dot stands for a package
    [r"buttersink", r"buttersink\.__main__"],
    [r"buttersink\.cli", r"buttersink\.utilities(\..*)?"],
    [
        r"buttersink\.console",
        r"buttersink\.sync",
        r"buttersink\.verifying",
        r"buttersink\.remote\.(command|server|holdings)",
    ],
    [r"buttersink\.drawing", r"buttersink\.sizing"],
    [r"buttersink\.wording"],
    [r"buttersink\.(report|verdict)"],
    [r"buttersink\.stores"],
    [
        r"buttersink\.stores\.btrfs(\..*)?",
        r"buttersink\.stores\.s3(\..*)?",
        r"buttersink\.stores\.ssh(\..*)?",
    ],
    [r"buttersink\.remote(\.(connection|hello|invocation|protocol|values))?"],
    [r"buttersink\.stores\.base"],
    [r"buttersink\.planner(\..*)?", r"buttersink\.kernel(\..*)?", r"buttersink\.stream(\..*)?"],
    [r"buttersink\.(catalogue|location|progress|workers)"],
    [r"buttersink\.errors", r"buttersink\.version"],
]
PURE = (
    r"buttersink\.((planner|stream)(\..*)?|catalogue|location|report|verdict|"
    r"remote\.(hello|holdings|invocation|protocol|values)|stores\.ssh\.diagnosis)"
)
OUTSIDE_WORLD = {"os", "subprocess", "socket", "fcntl", "ctypes", "io"}
BELOW_SYNC = (
    r"buttersink\.((stores|remote|planner|kernel|stream)(\..*)?"
    r"|catalogue|location|progress|workers|errors)"
)
WRITES_TO_THE_SCREEN = r"buttersink\.(cli|console|utilities\..*)"


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(TOP.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text("utf-8") for path in sorted(TOP.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}

each_module = pytest.mark.parametrize("module", TREES)


def imported(module: str) -> Iterator[str]:
    """Yield the modules that one imports, at its top, inside functions or for types alone."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} line {node.lineno}: imports are absolute"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in TREES else f"{node.module}"


def own(module: str) -> set[str]:
    """Return those of the program itself."""
    return {name for name in imported(module) if name.partition(".")[0] == "buttersink"}


def layer(module: str) -> tuple[int, str]:
    """Return how far down a module's layer is, and which of those side by side it is."""
    for depth, patterns in enumerate(LAYERS):
        for pattern in patterns:
            if re.fullmatch(pattern, module):
                return depth, pattern
    pytest.fail(f"{module} has no layer yet")


@each_module
def test_imports_point_down(module: str) -> None:
    mine = layer(module)
    wrong = [name for name in own(module) if layer(name) != mine and layer(name)[0] <= mine[0]]
    assert wrong == []


def test_imports_have_no_circle() -> None:
    """Those inside of functions and those for types alone are counted, too."""
    list(TopologicalSorter({module: own(module) for module in TREES}).static_order())


def test_the_rules_see_the_whole_program() -> None:
    assert {"buttersink.cli", "buttersink.stores.btrfs.store", "buttersink.stream"} <= TREES.keys()
    assert "buttersink.stores.btrfs.store" in own("buttersink.stores.btrfs")
    assert "buttersink.kernel.ioctl" in own("buttersink.stores.btrfs.store")


@pytest.mark.parametrize("module", [name for name in TREES if re.fullmatch(PURE, name)])
def test_what_is_pure_imports_nothing_of_the_outside_world(module: str) -> None:
    assert {name.partition(".")[0] for name in imported(module)} & OUTSIDE_WORLD == set()


@each_module
def test_the_kernel_is_called_in_one_place(module: str) -> None:
    calls = re.search(r"\bioctl\(", SOURCES[module])
    assert bool(calls) == (module == "buttersink.kernel.ioctl")


@pytest.mark.parametrize("module", [name for name in TREES if re.fullmatch(BELOW_SYNC, name)])
def test_below_sync_nobody_knows_of_dry_runs(module: str) -> None:
    """The report knows the word, since its document says what kind of run it tells of."""
    assert not re.search(r"dry.?run", SOURCES[module], re.IGNORECASE)


@each_module
def test_the_screen_is_written_to_in_few_places(module: str) -> None:
    if re.fullmatch(WRITES_TO_THE_SCREEN, module):
        return
    assert not any(_writes(node) for node in ast.walk(TREES[module]))


def _writes(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "print"
    return isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")


def test_the_command_itself_writes_only_its_version_and_what_comes_before_a_console() -> None:
    writers = [
        function.name
        for function in ast.walk(TREES["buttersink.cli"])
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("print", ".write"))
    ]
    assert set(writers) <= {"_command", "__call__"}


@each_module
def test_everything_public_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(TREES[module])
    silent = [name for name, node in _public(TREES[module]) if not ast.get_docstring(node)]
    assert silent == []


def _public(
    parent: ast.Module | ast.ClassDef,
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yield public functions and classes, and the public methods of public classes."""
    for node in parent.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in _public(node))
