"""What a release stands on: distributions, licences, workflows, and the public names against the last release."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import api
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow  # it downloads the build backend: a test of the default suite needs no network
def test_wheel_and_sdist_are_small_and_sound(tmp_path):
    run("build", "--outdir", tmp_path)
    wheel, sdist = next(tmp_path.glob("*.whl")), next(tmp_path.glob("*.tar.gz"))
    assert wheel.stat().st_size < 1_000_000
    run("twine", "check", "--strict", wheel, sdist)
    run("check_wheel_contents", wheel)
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in files} == {"crayon_sdk"}
    assert "crayon_sdk/py.typed" in files
    # The page to answer on is no Python: it must not be forgotten.
    assert any(name.endswith(".html") for name in files)


def test_a_public_name_that_changes_stands_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]
    before = api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    unnamed = [
        name
        for name in api.different(before, api.public())
        if not re.search(rf"\b{re.escape(name.removeprefix('crayon '))}\b", unreleased)
    ]
    assert not unnamed, (
        f"{sorted(unnamed)} differ from the last release (tests/api.txt), and no line under Unreleased in CHANGELOG.md "
        "names them"
    )


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (["a.f(x)"], ["a.f(x, *, y=1)"], {"f"}),
        (["a.B.f(x)", "a.g(x)"], ["a.g(x)"], {"f"}),
        (["a.LIMIT", "crayon save --old"], ["a.LIMIT"], {"crayon save --old"}),
    ],
)
def test_what_differs_is_called_by_its_name(before, after, names):
    assert api.different(before, after) == names


def test_the_version_stands_in_one_place(project):
    version = project["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    for path in (ROOT / "crayon_sdk").rglob("*.py"):
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), path


def names(*lists: list) -> set[str]:
    """Of packages, in lists of requirements."""
    return {re.match(r"[\w-]+", line)[0] for lines in lists for line in lines if isinstance(line, str)}


def of_users(project) -> set[str]:
    return names(project["project"]["dependencies"], *project["project"]["optional-dependencies"].values())


def test_users_install_no_tool_of_developers(project):
    assert not names(*project["dependency-groups"].values()) & of_users(project)


def test_every_dependency_has_its_licence_on_the_page(project):
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for name in of_users(project):
        assert re.search(rf"^\|[^|]*\b{name}\b", page, re.M), f"docs/licences.md has no row for {name}"


@pytest.fixture
def licences():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_licences_of_all_that_is_installed_fit(licences):
    pytest.importorskip("piplicenses")
    found = licences.licences()
    assert {"torch", "timm", "fsspec"} <= set(found)  # fsspec is one that huggingface_hub needs
    assert licences.unfit(found) == {}


def test_a_licence_that_does_not_fit_is_found(licences):
    found = {"a": "GPL-3.0-or-later", "b": "MIT", "c": "UNKNOWN", "d": "LGPL-3.0", "e": "Proprietary", "f": "MPL-2.0"}
    assert set(licences.unfit(found)) == {"a", "c", "e"}


def test_the_lock_names_no_place():
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    assert "//" not in lock
    assert "--index" not in lock
    assert lock.count("==") > 100
    assert all("--hash=sha256:" in part for part in re.split(r"^(?=[a-z])", lock, flags=re.M | re.I) if part)


def test_the_lock_has_all_that_is_asked_for(project):
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    groups = project["dependency-groups"]
    installed = [groups[each["include-group"]] for each in groups["dev"]]  # the others are for single jobs
    for name in of_users(project) | names(*installed):
        assert re.search(rf"^{name}==", lock, re.M | re.I), f"{name} is not in requirements-dev.lock: make lock"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_and_have_few_rights(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action} does not say which version it is"
    assert re.search(r"^permissions: \{\}$", text, re.M)
    assert "secrets." not in text
    assert set(re.findall(r"([\w-]+): write", text)) <= {"id-token"}


def test_one_action_has_one_pin():
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, commit in re.findall(r"uses: (\S+)@(\S+)", path.read_text(encoding="utf-8")):
            pins.setdefault(action, set()).add(commit)
    assert all(len(commits) == 1 for commits in pins.values())
