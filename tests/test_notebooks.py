"""The notebooks of examples/ run, on less, and their pages show what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

import notebooks  # noqa: E402 - docs/notebooks.py

LESS = {"scale=0.4": "scale=0.05", "epochs=10": "epochs=1", "epochs=8": "epochs=1"}
every = pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert [path.stem for path in notebooks.NOTEBOOKS] == ["explain_answer_correct", "transfer_and_publish"]


@every
def test_a_notebook_is_kept_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The cells of each notebook as they ran, on less and one after the other: half of the time is to load torch."""
    book, found = nbformat.v4.new_notebook(), {}
    for path in notebooks.NOTEBOOKS:
        folder = tmp_path_factory.mktemp(path.stem)
        found[path] = nbformat.read(path, as_version=4).cells
        for cell in found[path]:
            for old, new in LESS.items():
                cell.source = cell.source.replace(old, new)
        fresh = nbformat.v4.new_code_cell(f"%reset -f\n%cd {folder}")  # without the names of the one before
        book.cells += [fresh, *found[path]]
    notebooks.run(book, tmp_path_factory.getbasetemp())
    return found


@every
def test_a_notebook_runs(path, ran):
    last = [cell.outputs[-1] for cell in ran[path] if cell.cell_type == "code" and cell.outputs]
    assert not [output for output in last if output.output_type == "error"]
    shown = {kind for output in last for kind in output.get("data", {})}
    assert "text/html" in shown  # results show themselves as tables


@every
def test_the_page_of_a_notebook_has_its_cells_and_pictures(path):
    page = notebooks.page_of(path).read_text(encoding="utf-8")
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.source in page, "python docs/notebooks.py"
    for alt, picture in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page):
        assert alt
        assert (notebooks.PAGES / picture).is_file()
