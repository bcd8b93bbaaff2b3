"""Imports go down only: the floors of the architecture, read from the syntax tree of every file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "sind_hf"
HUB_FILES = ("configuration_sind", "modeling_sind", "image_processing_sind", "pipeline_sind", "losses")
# Bottom to top; rooms of one floor do not know each other. Scoring is what training reports and the commands share.
FLOORS: tuple[tuple[str, ...], ...] = (
    HUB_FILES,
    ("bundled", "metrics", "files"),
    ("calibration", "evaluate_modules", "distributed", "fusion", "registration"),
    ("conversion", "onnx", "run_record"),
    ("checkpoints",),
    ("data", "metrics_torch"),
    ("scoring",),
    ("hub",),
    ("training",),
    ("experiments",),
    ("app",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    """`data.manifest` -> `data`."""
    return module.split(".")[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (relative level, module) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level and node.module is None:
            yield from ((node.level, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def own_imports(file: str) -> Iterator[str]:
    """Yield the modules of the package, without its name, that a file of it imports."""
    parents = Path(file).parts[:-1]
    for level, module in imported(PACKAGE / file):
        if level:
            above = parents[: len(parents) - (level - 1)]
            yield ".".join((*above, module))
        elif module == "sind_hf" or module.startswith("sind_hf."):
            yield module.removeprefix("sind_hf").lstrip(".")


def test_every_file_has_a_floor() -> None:
    rooms = {room_of(file.removesuffix(".py").replace("/", ".")) for file in FILES} - {"__init__"}
    assert rooms <= set(LEVEL), f"name the floor of {sorted(rooms - set(LEVEL))}"
    assert set(HUB_FILES) <= rooms


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_go_down_only(file: str) -> None:
    room = room_of(file.removesuffix(".py").replace("/", "."))
    for module in own_imports(file):
        below = room_of(module)
        if below == "":
            # The package's own names are above the Hub files.
            assert LEVEL[room] > LEVEL["losses"], f"{file} imports the package that imports it"
            continue
        allowed = below == room or LEVEL[below] < LEVEL[room] or (room in HUB_FILES and below in HUB_FILES)
        assert allowed, f"{file} ({room}) imports {module}, which is not below it"


@pytest.mark.parametrize("name", HUB_FILES)
def test_hub_files_import_each_other_and_the_declared_libraries_only(name: str) -> None:
    """They travel alone: `from .sibling import ...` is all that the copier of transformers follows."""
    # transformers needs huggingface_hub, which needs httpx, which needs httpcore.
    libraries = {"torch", "numpy", "PIL", "transformers", "httpx", "httpcore"}
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    for level, module in imported(PACKAGE / f"{name}.py"):
        if level:
            assert level == 1 and module in HUB_FILES, f"{name}.py imports {'.' * level}{module}"
        else:
            top = module.split(".")[0]
            assert top in libraries or top in sys.stdlib_module_names, f"{name}.py imports {module}"
    for node in ast.walk(tree):  # `from . import sibling` is not followed
        assert not (isinstance(node, ast.ImportFrom) and node.level and node.module is None)


def test_hub_files_have_no_circle() -> None:
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for module in own_imports(f"{name}.py"):
            visit(module, (*path, name))
        order.append(name)

    for name in HUB_FILES:
        visit(name, ())
    # Every Hub file is reached from the model, so that saving a model copies all that its repository needs.
    order.clear()
    visit("modeling_sind", ())
    assert set(order) == set(HUB_FILES)
