"""House rules that a reader relies on: every file has a room, imports go down only, nothing is pickled."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "crayon_sdk"

# A room is a folder or a module directly under crayon_sdk. It may import from the layers above its own line in this
# list only; rooms that share a line do not know each other. What is inside a room is the room's own affair.
LAYERS = (
    ("errors", "functional"),
    ("_base",),
    ("data", "answers"),
    ("models",),
    ("show",),
    ("explain",),
    ("results", "annotate"),
    ("correct",),
    ("workspace", "paper"),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
CONSOLE = {"cli", "__main__"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
every_module = pytest.mark.parametrize("module", MODULES)


def room_of(module: str) -> str:
    return module.removesuffix(".py").split("/")[0]


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), filename=module)


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Every dotted name a module imports, wherever in the file, with its line.

    ``from a.b import c`` counts as ``a.b.c``: whether c is a module is decided by the reader of it.
    """
    folder = ["crayon_sdk", *module.split("/")[:-1]]
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_rooms_are_the_ones_in_the_list():
    found = {room_of(module) for module in MODULES}
    assert found == set(LAYER_OF), f"LAYERS in {Path(__file__).name} and the folders differ: {found ^ set(LAYER_OF)}"


@every_module
def test_imports_go_down_only(module):
    room = room_of(module)
    wrong = []
    for line, name in imports(module):
        target = name.split(".")[1] if name.startswith("crayon_sdk.") else ""
        if target in LAYER_OF and target != room and LAYER_OF[target] >= LAYER_OF[room]:
            wrong.append(f"line {line}: {name} is not below {room!r} in LAYERS")
        elif target and target not in LAYER_OF and name != "crayon_sdk.__version__":
            wrong.append(f"line {line}: {name} is no room; import it from where it is defined")
    assert not wrong, f"crayon_sdk/{module}: {wrong}"


@pytest.mark.parametrize("room", [path.parent.name for path in sorted(PACKAGE.glob("*/__init__.py"))])
def test_every_room_says_what_lives_there(room):
    assert len(ast.get_docstring(parse(f"{room}/__init__.py")) or "") > 60


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) == "functional"])
def test_functional_needs_torch_only(module):
    allowed = {"torch", "crayon_sdk", *sys.stdlib_module_names}
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(module)
        if name.split(".")[0] not in allowed
        or (name.startswith("crayon_sdk") and not name.startswith("crayon_sdk.functional"))
    ]
    assert not wrong, f"crayon_sdk/{module} may import torch and its own package, but imports {wrong}"


@every_module
def test_errors_are_raised_not_asserted(module):
    lines = [node.lineno for node in ast.walk(parse(module)) if isinstance(node, ast.Assert)]
    assert not lines, f"crayon_sdk/{module} asserts on lines {lines}; raise a CrayonError instead"


@every_module
def test_only_the_console_prints(module):
    if room_of(module) in CONSOLE:
        return
    calls = [node for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines, f"crayon_sdk/{module} prints on lines {lines}; use logging"


@every_module
def test_nothing_is_pickled(module):
    wrong = [f"line {line}: {name}" for line, name in imports(module) if name.split(".")[0] in PICKLES]
    wrong += [f"line {line}: {name}" for line, name in imports(module) if name in {"torch.save", "torch.load"}]
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            # Accelerate's own checkpoints are pickles too.
            if name in {"torch.save", "torch.load"} or name.endswith(
                ("accelerator.save_state", "accelerator.load_state")
            ):
                wrong.append(f"line {node.lineno}: {name}")
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value)
            not in {
                "False",
                "self.allow_pickle",  # what the user said by name, passed on
            }
        ):
            wrong.append(f"line {node.value.lineno}: allow_pickle")
    assert not wrong, f"crayon_sdk/{module} uses pickle: {wrong}; write safetensors or JSON"
