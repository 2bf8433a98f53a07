"""House rules that a reader relies on: imports go down only, nothing is pickled."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "crayon_sdk"

# A room is a module or a sub-package directly under crayon_sdk. It may import from the layers
# above its own line in this list only; rooms that share a line do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("names",),
    ("errors",),
    ("classes",),
    ("files", "progress", "showing", "style"),
    ("hub", "checkpoint_files"),
    ("publishing", "fetching"),
    # answers: no torch up to here
    ("relevance", "answer_files"),
    ("records", "aggregation"),
    ("answer_repository", "answer_table"),
    ("annotations",),
    ("crowd_files",),
    ("formats",),
    # the method on tensors
    ("functional",),
    # pictures and models
    ("preprocessing", "devices", "layouts", "torchvision_models"),
    ("sources", "pixels", "torch_items", "wrapping"),
    ("samples", "tables"),
    ("hf_items",),
    ("data", "final_layers"),
    # pictures under maps
    ("overlays", "sheets"),
    ("gallery",),
    ("models",),
    ("loading", "maps", "timm_config"),
    # explain, answer
    ("patches", "inference", "conversion"),
    ("questions",),
    ("selection",),
    ("explainer", "simulation", "resume", "settings", "guidance"),
    ("counterfactuals",),
    # correct, check, ship
    ("training", "presets", "evaluation", "changes", "onnx_export", "loading_back"),
    ("pictures", "comparison"),
    ("facts", "consistency"),
    ("plots", "exhibits", "card"),
    ("report",),
    ("presenting",),
    ("checkpoint",),
    ("fitting",),
    ("corrector", "pruner"),
    # show
    ("demo_pictures",),
    ("demo_model",),
    ("demo",),
    # the folder and the shell
    ("locking", "naming", "recipes", "manifest"),
    ("ledger", "inspection", "crowd"),
    ("holdings",),
    ("answering",),
    ("reporting",),
    ("shipping",),
    ("workspace",),
    ("options", "doctor", "annotate"),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
CONSOLE = {"cli", "demo", "__main__"}
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


@every_module
def test_room_is_in_the_list(module):
    assert room_of(module) in LAYER_OF, (
        f"crayon_sdk/{module} belongs to no layer: add {room_of(module)!r} to LAYERS in {Path(__file__).name}, "
        "above everything that imports it and below everything it imports"
    )


def test_no_room_is_listed_twice():
    rooms = [room for layer in LAYERS for room in layer]
    assert len(rooms) == len(set(rooms))


@every_module
def test_imports_go_down_only(module):
    room = room_of(module)
    wrong = []
    for line, name in imports(module):
        parts = name.split(".")
        if parts[0] != "crayon_sdk" or parts[1:] == ["__version__"]:
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if target == room and "/" in module:
            continue
        if (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file():
            if LAYER_OF.get(target, -1) >= LAYER_OF.get(room, len(LAYERS)):
                wrong.append(f"line {line}: {name} is not below {room!r} in LAYERS")
        else:
            wrong.append(f"line {line}: {name} is no module of the package; import it from where it is defined")
    assert not wrong, f"crayon_sdk/{module}: {wrong}"


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
