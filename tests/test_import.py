"""The face of the package: cheap to import, and exactly the names it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_workspace import save_model

import crayon_sdk
from crayon_sdk import AnnotationSet, NeuronAnswer, Workspace
from crayon_sdk.errors import CrayonError
from crayon_sdk.workspace.manifest import DataSource, ModelSource

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "timm", "captum", "accelerate", "matplotlib", "pydantic", "numpy", "huggingface_hub")
WITHOUT_TORCH = (
    "crayon_sdk.errors",
    "crayon_sdk._base.files",
    "crayon_sdk.answers.annotations",
    "crayon_sdk.data.dataset",
    "crayon_sdk.data.tables",
    "crayon_sdk.workspace.holdings",
    "crayon_sdk.workspace.inputs",
    "crayon_sdk.workspace.answering",
    "crayon_sdk.cli",
    "crayon_sdk.paper.fetch",
    "crayon_sdk.paper.tables",
    "crayon_sdk.paper.datasets.backgrounds",
    "crayon_sdk.paper.datasets.biased_celeba",
    "crayon_sdk.paper.datasets.waterbirds",
)


def in_fresh_python(code: str) -> str:
    """Run code where nothing was imported yet, and return what it printed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_heavy():
    loaded = in_fresh_python("import sys, crayon_sdk; dir(crayon_sdk); print(*sys.modules)").split()
    assert "crayon_sdk" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_light_modules_load_neither_torch_nor_matplotlib(module):
    loaded = in_fresh_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not {"torch", "matplotlib"} & set(loaded)


def without_torch(*arguments: object) -> str:
    """What a command prints, run where nothing was imported yet; it must not have loaded torch."""
    code = (
        f"import sys; sys.argv = {['crayon', *map(str, arguments)]!r}\n"
        "from crayon_sdk.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    )
    shown, _, loaded = in_fresh_python(code).rpartition("\n")
    assert "crayon_sdk.workspace.manifest" in loaded.split()
    assert not {"torch", "matplotlib"} & set(loaded.split())
    return shown


def test_to_look_at_answers_loads_no_torch():
    folder = ROOT / "tests" / "workspace" / "fixtures" / "version_before"
    assert '"answers": 32' in without_torch("answer", "show", "--json", "-w", folder)


@pytest.mark.parametrize("table", [True, False], ids=["table", "folders"])
def test_to_take_answers_in_and_out_loads_no_torch(tmp_path, picture_folder, table):
    """The pictures are listed for it, and compared with those of before, which needs none of their pixels."""
    model = ModelSource(source=str(save_model(tmp_path / "model")))
    data = {"csv": str(picture_folder / "metadata.csv")} if table else {"folder": str(picture_folder / "images")}
    workspace = Workspace.create(tmp_path / "ws", model, DataSource(**data))
    answers = AnnotationSet.from_dict(
        dict.fromkeys(workspace.dataset().ids, "yes"), annotator="ann", model=workspace.model.fingerprint
    )
    if table:  # how many neurons there are is read off the patches
        workspace.explain(sheet=0)
        for neuron in range(workspace.model.num_neurons):
            answers.add(NeuronAnswer(neuron=neuron, patch=0, answer="no", annotator="ann"))
    answers.save(tmp_path / "answers.jsonl")
    where, count = ("--json", "-w", workspace.folder), len(answers)
    taken = without_torch("answer", "import", tmp_path / "answers.jsonl", *where)
    assert json.loads(taken) == {"new": count, "known": 0, "answers": count}
    again = without_torch("answer", "import", tmp_path / "answers.jsonl", *where)
    assert json.loads(again) == {"new": 0, "known": count, "answers": count}
    assert json.loads(without_torch("answer", "show", *where))["image"]["answers"] == len(workspace.dataset())
    for kind in ("jsonl", "csv", "published", *(["published-neurons"] if table else [])):
        out, count = tmp_path / f"out.{kind}", len(workspace.answers())
        assert json.loads(without_torch("answer", "export", out, "--format", kind, *where))["answers"] == count
        assert json.loads(without_torch("answer", "import", out, *where))["answers"] >= count
    assert "me/answers" in without_torch("answer", "push", "me/answers", "--dry-run", *where)


def test_dir_shows_the_public_names():
    code = "import crayon_sdk, crayon_sdk._base.files; print(*[n for n in dir(crayon_sdk) if not n.startswith('__')])"
    assert in_fresh_python(code).split() == crayon_sdk.__all__


def test_all_is_sorted_and_without_repeats():
    assert crayon_sdk.__all__ == sorted(set(crayon_sdk.__all__))


def test_all_is_what_the_lazy_table_knows():
    assert {*crayon_sdk._MODULE_OF, *crayon_sdk._SUBMODULES} == set(crayon_sdk.__all__)


@pytest.mark.parametrize("name", crayon_sdk.__all__)
def test_public_name_resolves(name):
    value = getattr(crayon_sdk, name)
    assert (value.__name__ if name in crayon_sdk._SUBMODULES else value.__module__).startswith("crayon_sdk.")
    assert getattr(crayon_sdk, name) is value


def test_unknown_name_lists_the_public_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'Explaner'; public names are .*Explainer"):
        _ = crayon_sdk.Explaner


def test_errors_have_one_ancestor():
    errors = [getattr(crayon_sdk.errors, name) for name in crayon_sdk.errors.__all__]
    assert all(issubclass(error, CrayonError) for error in errors)


def test_version_is_a_version():
    assert crayon_sdk.__version__[0].isdigit()
