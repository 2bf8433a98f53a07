"""What the documentation needs beyond its plugins: equations without scripts, and a page for every module.

`pymdownx.arithmatex` finds the equations (and leaves code alone); here their LaTeX becomes MathML while the site is
built, so that reading it needs no script and no network. An equation that cannot be read is a warning, which stops a
strict build.

The modules of the public surface have pages of their own in `docs/reference`, methods in `docs/methods`. Every other
module gets one here, so that no cross-reference between docstrings leads nowhere.
"""

from __future__ import annotations

import html
import json
import logging
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

log = logging.getLogger("mkdocs.hooks.crayon")

# Inline: <span class="arithmatex">\(...\)</span>; on its own lines: <div class="arithmatex">\[...\]</div>
EQUATION = re.compile(r'<(?P<tag>span|div) class="arithmatex">\s*\\[(\[](?P<latex>.*?)\\[)\]]\s*</(?P=tag)>', re.DOTALL)


def pages_inside(config: MkDocsConfig) -> dict[str, str]:
    """Path of a page for every module that no page shows."""
    root = Path(config.config_file_path).parent
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (root / "docs").rglob("*.md"))
    pages = {}
    for path in sorted((root / "crayon_sdk").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "crayon_sdk" and parts[-1] != "__main__" and not re.search(rf"^::: {re.escape(name)}$", shown, re.M):
            pages[name] = f"reference/inside/{name.removeprefix('crayon_sdk.')}.md"
    return pages


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """Put the generated pages at the end of the navigation."""
    entries = [{name.removeprefix("crayon_sdk."): path} for name, path in pages_inside(config).items()]
    if entries and config.nav is not None:
        config.nav.append({"Inside": entries})
    return config


def schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas of the files, made from the classes that check them."""
    from pydantic import TypeAdapter

    from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
    from crayon_sdk.results.correction import CorrectionRecord
    from crayon_sdk.workspace.manifest import Manifest

    kinds = {"answer": ImageAnswer | NeuronAnswer | SpotAnswer, "record": CorrectionRecord, "workspace": Manifest}
    found = {name: TypeAdapter(kind).json_schema() for name, kind in kinds.items()}
    for kind in found["answer"]["$defs"].values():  # pairs in memory, an object in the file
        kind["properties"]["extra"] = {"type": "object", "additionalProperties": {"type": "string"}}
    return found


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Generate the schemas, and the pages of the modules that have none."""
    for name, schema in schemas().items():
        files.append(File.generated(config, f"schemas/{name}.json", content=json.dumps(schema, indent=2)))
    for name, path in pages_inside(config).items():
        files.append(File.generated(config, path, content=f"::: {name}\n"))
    return files


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace every equation of a rendered page."""

    def to_mathml(equation: re.Match[str]) -> str:
        latex = html.unescape(equation["latex"]).strip()
        display = "block" if equation["tag"] == "div" else "inline"
        try:
            shown = str(convert(latex, display=display))
        except Exception as error:
            log.warning("%s: cannot turn %r into MathML: %s", page.file.src_uri, latex, error)
            return equation[0]
        # In a box of its own, which can be narrower than the equation.
        return f'<div class="equation">{shown}</div>' if display == "block" else shown

    return EQUATION.sub(to_mathml, content)


def on_post_page(output: str, **_: Any) -> str:
    """Name the search for those who hear the page; the theme leaves its dialog without a name."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that says there is none."""
    return on_post_page(output_content)
