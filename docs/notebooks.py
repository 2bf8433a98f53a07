"""Runs the notebooks of examples/ and writes them, with their tables and pictures, as pages into docs/notebooks.

python docs/notebooks.py [NAME]     some minutes; tests/test_notebooks.py compares the pages with the notebooks

The notebooks are kept without outputs, so that a change of them can be read.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = tuple(sorted((ROOT / "examples").glob("*.ipynb")))
PAGES = ROOT / "docs" / "notebooks"


def run(book: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder.

    Args:
        book: The notebook.
        folder: Where it works.

    Returns:
        It with its outputs.
    """
    return NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def page_of(path: Path) -> Path:
    """The page of a notebook."""
    return PAGES / f"{path.stem}.md"


def as_page(book: nbformat.NotebookNode, path: Path) -> str:
    """A notebook that ran, as Markdown; writes its pictures beside the page."""
    parts: list[str] = []
    for number, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            parts += _shown(output, path, number, cell.metadata.get("alt", ""))
    where = f"This page is the notebook `examples/{path.name}`, as it ran."
    return parts[0] + "\n\n" + "\n\n".join([where, *parts[1:]]) + "\n"


def _shown(output: nbformat.NotebookNode, path: Path, number: int, alt: str) -> list[str]:
    if output.output_type == "stream":  # what goes to stderr is progress
        return [f"```text\n{output.text.rstrip()}\n```"] if output.name == "stdout" else []
    data = output.get("data", {})
    if "image/png" in data:
        picture = PAGES / f"{path.stem}-{number}.png"
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as shown:
            shown.convert("RGB").quantize(128).save(picture, optimize=True)  # a fourth of the bytes
        return [f"![{alt}]({picture.name})"]
    if "text/html" in data:
        return [re.sub(r"<style>.*?</style>|\n\s*(?=\n)", "", data["text/html"], flags=re.S).strip()]
    return [f"```text\n{data['text/plain']}\n```"] if "text/plain" in data else []


def main() -> None:
    """Run all of them, or the one that is named, and write the pages."""
    PAGES.mkdir(exist_ok=True)
    for path in NOTEBOOKS if len(sys.argv) == 1 else (ROOT / "examples" / f"{sys.argv[1]}.ipynb",):
        with tempfile.TemporaryDirectory() as folder:
            page_of(path).write_text(
                as_page(run(nbformat.read(path, as_version=4), Path(folder)), path), encoding="utf-8"
            )


if __name__ == "__main__":
    main()
