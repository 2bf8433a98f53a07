"""The documentation is checked like code: its examples compile, its build is strict, its pages are complete."""

from __future__ import annotations

import html
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest

import crayon_sdk

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.is_file())
FENCE = re.compile(r"^(?P<indent>[ \t]*)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.M | re.S)
DIRECTIVE = re.compile(r"^::: (crayon_sdk[\w.]*)$", re.M)


def python_blocks() -> list[pytest.param]:
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for fence in FENCE.finditer(text):
            language = re.match(r"[\w+-]*", fence["info"].strip())[0]
            if language in {"python", "py"}:
                line = text.count("\n", 0, fence.start()) + 1
                blocks.append(pytest.param(fence["body"], id=f"{page.relative_to(ROOT)}:{line}"))
    return blocks


@pytest.mark.parametrize("code", python_blocks())
def test_python_block_compiles(code):
    compile(textwrap.dedent(code), "<documentation>", "exec")


@pytest.fixture(scope="module")
def project():
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_site_builds_strictly(site):
    assert (site / "index.html").is_file()


def test_site_needs_no_network_to_be_read(site):
    resource = re.compile(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*rel=\"?stylesheet[^>]*//")
    pages = list(site.rglob("*.html"))
    assert pages
    assert not [page.name for page in pages if resource.search(page.read_text(encoding="utf-8"))]


def test_equations_are_rendered(site):
    method = (site / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 10
    assert "arithmatex" not in method


def test_the_page_of_the_workspace_shows_all_that_can_be_called(site):
    page = (site / "reference" / "workspace.html").read_text(encoding="utf-8")
    public = [name for name in vars(crayon_sdk.Workspace) if not name.startswith("_")]
    assert len(public) > 30
    for name in public:
        entry = page.partition(f'id="crayon_sdk.workspace.workspace.Workspace.{name}"')[2].partition('<h3 id="')[0]
        assert f">{name}<" in entry, f"Workspace.{name} is not on its page"
        what = getattr(crayon_sdk.Workspace, name)
        sentence = (inspect.getdoc(what) or "").partition("\n")[0]
        assert re.sub(r"\W+", " ", sentence)[:30] in re.sub(r"\W+", " ", re.sub(r"<[^>]+>", "", html.unescape(entry)))
        if inspect.isfunction(what):
            for parameter in list(inspect.signature(what).parameters)[1:]:
                assert f">{parameter}<" in entry, f"Workspace.{name} is shown without {parameter}"


def test_every_public_module_has_a_reference_page():
    documented = set()
    for page in (ROOT / "docs" / "reference").rglob("*.md"):
        documented.update(DIRECTIVE.findall(page.read_text(encoding="utf-8")))
    public = {f"crayon_sdk.{module}" for module in [*crayon_sdk._MODULE_OF.values(), *crayon_sdk._SUBMODULES]}
    functional = (ROOT / "crayon_sdk" / "functional").glob("[!_]*.py")
    public |= {f"crayon_sdk.functional.{path.stem}" for path in functional}
    assert public <= documented, f"add a page with '::: MODULE' for {sorted(public - documented)} to docs/reference"


def test_the_architecture_names_modules_that_there_are():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "crayon_sdk"
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+(?:\.js)?)`", page)
    assert len(named) > 30
    for name in named:
        assert (package / (name if name.endswith(".js") else f"{name}.py")).is_file(), f"there is no {name}"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert not {room for room in rooms if not re.search(rf"\b{room}\b", page)}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [
        page.name for page in (ROOT / "docs").rglob("*.md") if str(page.relative_to(ROOT / "docs")) not in navigation
    ]
    assert not missing


def test_addresses_are_written_the_same_everywhere(project):
    urls = project["project"]["urls"]
    assert urls["Changelog"].startswith(urls["Repository"])
    for page, repository, documentation in (
        ("CITATION.cff", "repository-code", "url"),
        ("mkdocs.yml", "repo_url", "site_url"),
    ):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert {f"{repository}: {urls['Repository']}", f"{documentation}: {urls['Documentation']}"} <= set(lines), page


def test_an_index_shows_the_readme_with_absolute_links_to_files_that_exist(project):
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        shown = re.sub(rule["pattern"], rule["replacement"], shown)
    repository = project["project"]["urls"]["Repository"]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", shown)
    assert any(picture for picture, _ in links)
    for picture, link in links:
        assert link.startswith("https://")
        if link.startswith(repository):
            kind, path = ("raw" if picture else "blob"), link.removeprefix(repository).partition("#")[0]
            assert path.startswith(f"/{kind}/main/")
            assert (ROOT / path.removeprefix(f"/{kind}/main/")).exists()


def test_the_schema_of_answers_takes_what_is_written_and_refuses_the_rest(site, tmp_path):
    validator = pytest.importorskip("jsonschema_rs").validator_for(
        json.loads((site / "schemas/answer.json").read_text())
    )
    answers = [
        crayon_sdk.ImageAnswer(id="a.jpg", answer="no", annotator="ann", time="2026-01-31T12:00:00Z"),
        crayon_sdk.NeuronAnswer(neuron=3, patch=0, answer="yes", annotator="ann"),
        crayon_sdk.SpotAnswer(id="a.jpg", answer="unsure", annotator="ben", extra={"column": "text"}),
    ]
    crayon_sdk.AnnotationSet(answers).save(tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert all(validator.is_valid(line) for line in lines)
    assert not validator.is_valid({**lines[0], "answer": "perhaps"})
    assert not validator.is_valid({**lines[0], "colour": "red"})
    assert (site / "schemas" / "workspace.json").is_file()
    assert (site / "schemas" / "record.json").is_file()


def test_commands_have_their_reference(site):
    page = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for text in ("crayon correct", "crayon answer import", "--min-images-per-class", "--list-settings"):
        assert text in page
    assert "Sentinel" not in page  # what mkdocs-click makes of a missing default in its tables
