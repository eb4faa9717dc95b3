"""The floors: imports run down only, torch stays in its rooms, and starting costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

PACKAGE = Path(__file__).parents[1] / "costmodel"

#: From the top of the house to the bottom; a room may import from its own floor and from those below.
FLOORS = (
    {"__main__"},
    {"__init__", "cli"},
    {"pytest_plugin"},
    {"testing"},
    {"studies", "budgets", "choices"},
    {"generation", "sweeps"},
    {"api"},
    {"presented"},
    {"report"},
    {"explain", "comparison", "claims", "reconcile", "remedies"},
    {"validate"},
    {"analysis"},
    {
        "cache",
        "executed",
        "timing",
        "costing",
        "issuing",
        "rows",
        "traced",
        "traces",
        "trace",
        "measure",
        "receptive_field",
    },
    {"engines"},
    {"host"},
    {"memory"},
    {"kernels", "optimizer", "quantization"},
    {"hardware", "formulas", "nodes", "graph", "graph_json", "sources", "zoo"},
    {"cost", "tensor", "domain", "devices", "execution", "onnx_reader"},
    {"units", "symbols"},
    {"errors", "version"},
)
LEVEL = {room: level for level, rooms in enumerate(reversed(FLOORS)) for room in rooms}

TORCH_ROOMS = {"trace", "sources", "onnx_reader", "zoo", "measure"}
TORCH = {"torch", "torchvision", "timm", "transformers"}
LATE = {"torch", "torchvision", "timm", "transformers", "sympy", "networkx", "matplotlib"}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first name below costmodel: a module, or a package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(node: ast.AST, *, late: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether inside a function) of every import that runs; those for type checkers never do."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        inside = late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute, so that one can see which floor they reach"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from ((name, inside) for name in names)
        yield from imports(child, late=inside)


def imports_of(path: Path) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def target_room(dotted: str) -> str | None:
    """The room that an import of costmodel reaches; None for other packages."""
    first, *rest = dotted.split(".")
    if first != "costmodel":
        return None
    return rest[0] if rest and rest[0] in LEVEL else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL, f"{room} stands on no floor: give it one in FLOORS"
    for dotted, _ in imports_of(path):
        target = target_room(dotted)
        assert target is None or LEVEL[target] <= LEVEL[room], f"{room} reaches up to {dotted}"


def test_rooms_of_a_floor_do_not_go_in_circles() -> None:
    reached = {room: set() for room in LEVEL}
    for path in FILES:
        for dotted, _ in imports_of(path):
            if target := target_room(dotted):
                reached[room_of(path)].add(target)
    for room, targets in reached.items():
        for target in targets - {room}:
            assert room not in reached[target], f"{room} and {target} import each other"


def module_of(path: Path, package: Path) -> str:
    """``costmodel.report`` for its ``__init__.py``, ``costmodel.report.rows`` for ``rows.py``."""
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def circles(files: dict[str, Path]) -> list[set[str]]:
    """Modules that import one another in a circle, imports inside functions included."""
    graph = networkx.DiGraph()
    for module, path in files.items():
        for dotted, _ in imports_of(path):
            target = dotted if dotted in files else dotted.rpartition(".")[0]
            if target in files and target != module:
                graph.add_edge(module, target)
    return [found for found in networkx.strongly_connected_components(graph) if len(found) > 1]


def test_no_two_modules_import_each_other_not_even_late() -> None:
    assert circles({module_of(path, PACKAGE): path for path in FILES}) == []


def test_scripts_and_their_pages_do_not_go_in_circles() -> None:
    scripts = PACKAGE.parent / "benchmarks"
    assert circles({path.stem: path for path in scripts.glob("*.py")}) == []


def test_a_circle_through_a_late_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from b import x\n")
    (tmp_path / "b.py").write_text("def f():\n    import a\n")
    (tmp_path / "c.py").write_text("import a\n")
    assert circles({path.stem: path for path in tmp_path.glob("*.py")}) == [{"a", "b"}]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_stays_in_its_rooms(path: Path) -> None:
    for dotted, late in imports_of(path):
        library = dotted.split(".")[0]
        if library in TORCH:
            assert room_of(path) in TORCH_ROOMS, f"{path.name} imports {library}"
        if library in LATE:
            assert late or room_of(path) in {"onnx_reader", "zoo", "trace", "measure"}, (
                f"{path.name} imports {library} at its top"
            )


def test_the_walk_sees_imports_inside_functions_and_not_those_for_type_checkers() -> None:
    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    from c import d\nclass K:\n    import e\n"
    )
    assert list(imports(tree)) == [("a", False), ("c.d", True), ("e", False)]


@pytest.mark.parametrize("module", ["costmodel", "costmodel.cli", "costmodel.sources", "costmodel.zoo"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {sorted(LATE)!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
