"""Publishing over real HTTP: the unpatched client in processes of their own, and everything that goes wrong."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import signal
import sys
import traceback
from pathlib import Path

import pytest
from helpers_hub import Fault, Hub, Person, Repository, assert_whole, files_in, serving
from helpers_hub_client import PUSHES, environment_for, push_all, run, start

import crayon_sdk
from crayon_sdk._base.hub import checked_repo_id, local_files, retried
from crayon_sdk._base.publishing import HubOptions, find_target
from crayon_sdk._base.settings import settings_in
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.cli import app
from crayon_sdk.errors import CrayonError, HubError, SettingsError
from crayon_sdk.results.correction import Correction
from crayon_sdk.workspace.shipping import Shipping
from crayon_sdk.workspace.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")

ENDPOINTS = ("whoami", "create", "validate-yaml", "info", "tree", "preupload", "batch", "upload", "verify", "commit")
CARD = "---\nlicense: mit\n---\n# A model\n"


def a_folder(place, fill=b"w", *, card=True):
    """Files such as those of a correction; what is in them does not matter here."""
    (place / "pictures").mkdir(parents=True)
    (place / "model.safetensors").write_bytes(fill * 50_000)
    (place / "config.json").write_bytes(b'{"fill": "%s"}' % fill)
    (place / "pictures" / "maps.png").write_bytes(fill * 100)
    if card:
        (place / "README.md").write_text(CARD)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return a_folder(tmp_path_factory.mktemp("published") / "model")


def job(folder, repo_id="ann/birds", token="hf_mine", **settings):
    return {"folder": str(folder), "repo_id": repo_id, "token": token, **settings}


def new_commits(hub: Hub, name: str = "ann/birds", branch: str = "main") -> list[str]:
    return [commit.oid for commit in hub.repositories[name].history(branch) if commit.parent]


@pytest.mark.parametrize("large", [True, False], ids=["lfs", "default transport"])
def test_one_commit_with_everything_and_none_the_second_time(folder, tmp_path, large):
    with serving(lfs=large) as hub:
        (first,), _ = push_all([job(folder, commit_message="Birds")], hub.endpoint, tmp_path / "1", xet=not large)
        asked = list(hub.asked)
        (second,), _ = push_all([job(folder)], hub.endpoint, tmp_path / "2", xet=not large)
        (bare,), _ = push_all([job(folder, "birds")], hub.endpoint, tmp_path / "3", xet=not large)
    repository = hub.repositories["ann/birds"]
    assert first["changed"]
    assert first["url"] == f"{hub.endpoint}/ann/birds"
    assert dict(first["files"]) == {path: len(content) for path, content in files_in(folder).items()}
    assert new_commits(hub) == [first["commit"]]
    assert repository.main.title == "Birds"
    assert repository.main.files.items() >= files_in(folder).items()
    assert ".gitattributes" in repository.main.files
    assert ("batch" in asked) == large
    assert asked.index("whoami") < asked.index("create") < asked.index("validate_yaml") < asked.index("preupload")
    assert (second["changed"], second["commit"]) == (False, first["commit"])
    assert (bare["changed"], bare["repo_id"]) == (False, "ann/birds")
    assert repository.private is False


def test_without_a_card(tmp_path):
    folder = a_folder(tmp_path / "model", card=False)
    with serving() as hub:
        (found,), _ = push_all([job(folder, private=True)], hub.endpoint, tmp_path)
    assert found["changed"]
    assert hub.repositories["ann/birds"].private
    assert "validate_yaml" not in hub.asked


def test_large_files_in_parts(folder, tmp_path):
    with serving() as hub:
        hub.part_size = 20_000
        (found,), _ = push_all([job(folder)], hub.endpoint, tmp_path)
    assert found["changed"]
    assert hub.asked.count("upload") == 3
    assert_whole(hub.repositories["ann/birds"], files_in(folder))


def test_next_model_replaces_what_belongs_to_the_last_one_and_leaves_the_rest(folder, tmp_path):
    old = files_in(a_folder(tmp_path / "old", b"o")) | {
        "pytorch_model.bin": b"pickle",
        "crayon.json": b"{}",
        "notes.md": b"theirs",
    }
    with serving({"ann/birds": Repository({"main": old})}) as hub:
        (found,), _ = push_all(
            [job(folder, replaces=["pytorch_model.bin", "crayon.json", "config.json"])], hub.endpoint, tmp_path
        )
    assert sorted(found["removed"]) == ["crayon.json", "pytorch_model.bin"]
    main = hub.repositories["ann/birds"].main
    assert main.files == files_in(folder) | {"notes.md": b"theirs"}
    assert len(new_commits(hub)) == 1


def test_branch(folder, tmp_path):
    with serving({"ann/birds": Repository({"main": {"notes.md": b"theirs"}})}) as hub:
        (first,), _ = push_all([job(folder, revision="better")], hub.endpoint, tmp_path / "1")
        (again,), _ = push_all([job(folder, revision="better")], hub.endpoint, tmp_path / "2")
    repository = hub.repositories["ann/birds"]
    assert (first["changed"], again["changed"]) == (True, False)
    assert repository.main.files == {"notes.md": b"theirs"}
    assert repository.find("better").files == files_in(folder) | {"notes.md": b"theirs"}


def test_pull_request_is_opened_once(folder, tmp_path):
    """To somebody else's repository; the answer to the first try is lost, and the second run finds it open."""
    with serving({"bob/birds": Repository({"main": {"notes.md": b"theirs"}})}) as hub:
        hub.faults = [Fault("commit", "cut-after", times=1)]
        asked = job(folder, "bob/birds", create_pr=True)
        (first,), _ = push_all([asked], hub.endpoint, tmp_path / "1")
        (again,), _ = push_all([asked], hub.endpoint, tmp_path / "2")
    repository = hub.repositories["bob/birds"]
    assert first["url"] == again["url"] == f"{hub.endpoint}/bob/birds/discussions/1"
    assert (first["changed"], again["changed"]) == (True, False)
    assert [request.author for request in repository.requests] == ["ann"]
    assert repository.main.files == {"notes.md": b"theirs"}
    assert repository.find("refs/pr/1").files.items() >= files_in(folder).items()
    assert_whole(repository, files_in(folder), branch="refs/pr/1")


def test_who_may_not(folder, tmp_path):
    """Refused before anything is sent, each with what to do; the token is in no output, debug logs included."""
    repositories = {
        "ann/there": Repository({"main": {}}),
        "bob/birds": Repository({"main": {}}),
        "bob/secret": Repository({"main": {}}, private=True),
        "lab/birds": Repository({"main": {}}),
    }
    jobs = [
        job(folder, token="hf_wrong"),
        job(folder, token=""),
        job(folder, token="hf_readonly"),
        job(folder, "ann/there", token="hf_readonly"),
        job(folder, "bob/birds"),
        job(folder, "bob/secret", create_pr=True),
        job(folder, "bob/none", create_pr=True),
        job(folder, "ann/there", private=True),
        job(folder, "lab/birds"),
    ]
    with serving(repositories) as hub:
        found, everything = push_all(jobs, hub.endpoint, tmp_path)
    messages = [each.get("message", "") for each in found]
    assert [each.get("error") for each in found] == ["HubAccessError"] * 7 + ["SettingsError", None]
    assert "does not know the token that was found (401). Log in again with `hf auth login`" in messages[0]
    assert "no token of the Hub was found: log in with `hf auth login`, or set HF_TOKEN" in messages[1]
    assert "the token of 'ann' that was found may only read" in messages[2]
    assert "may only read" in messages[3]
    assert "'bob/birds' belongs to 'bob', and the token to 'ann' (also in 'lab')" in messages[4]
    assert "create_pr=True" in messages[4]
    assert messages[5].startswith("there is no repository 'bob/secret' to propose a change of, or it is private")
    assert messages[6].startswith("there is no repository 'bob/none' to propose a change of, or it is private")
    assert "exists and is public, but private was asked for; nothing was sent" in messages[7]
    assert not hub.repositories["ann/there"].main.files
    assert "ann/birds" not in hub.repositories
    assert hub.repositories["lab/birds"].main.files == files_in(folder)
    for token in ("hf_wrong", "hf_readonly", "hf_mine"):
        assert token in {seen for _, seen in hub.seen}
        assert token not in everything
        assert token not in str(found)


def run_cases(hub: Hub, folder, place, cases):
    """Push at the same time, each as somebody else, to whom something else goes wrong; then, without faults, again."""
    jobs = []
    for number, (endpoint, what, times) in enumerate(cases):
        name = f"p{number}"
        hub.tokens[f"hf_secret{number}"] = Person(name)
        headers = {"Retry-After": "1"} if what == 429 and number % 2 else {}
        hub.faults.append(Fault(endpoint, what, times, name, headers))
        jobs.append(job(folder, f"{name}/birds", f"hf_secret{number}"))
    found, everything = push_all(jobs, hub.endpoint, place / "1")
    assert "hf_secret" not in everything
    for name, repository in hub.repositories.items():
        assert_whole(repository, files_in(folder))
        assert len(repository.commits) <= 2, name
    hub.faults.clear()
    again, _ = push_all(jobs, hub.endpoint, place / "2")
    for name in hub.repositories:
        assert len(new_commits(hub, name)) == 1
        assert hub.repositories[name].main.files.items() >= files_in(folder).items()
    return found, again


PASSING = [(endpoint, what, 2) for endpoint in ENDPOINTS for what in (429, 500, 503, "cut")]
PASSING += [("upload", "slow", 1), ("preupload", "slow", 1), ("commit", "slow", 1)]
LOST = [(endpoint, "cut-after", 1) for endpoint in reversed(ENDPOINTS)]
REFUSALS = [(endpoint, what, 10**6) for endpoint in ENDPOINTS for what in (403, 401, 404, 409, 412)]
every_case_is_slow = pytest.param(slice(None), marks=pytest.mark.slow, id="all")


@pytest.mark.parametrize("part", [pytest.param(slice(None, None, 3), id="some"), every_case_is_slow])
def test_faults_that_pass(folder, tmp_path, part):
    """Too many requests, the Hub's own trouble, broken connections, lost answers, at every endpoint: one commit."""
    cases = [*PASSING[part], *(LOST if part.step is None else LOST[::4])]
    with serving() as hub:
        found, again = run_cases(hub, folder, tmp_path, cases)
    for case, first, second in zip(cases, found, again, strict=True):
        assert first.get("changed") is True, (case, first)
        assert second.get("changed") is False, (case, second)


@pytest.mark.parametrize("part", [pytest.param(slice(None, None, 3), id="some"), every_case_is_slow])
def test_refusals_at_every_endpoint(folder, tmp_path, part):
    """Whatever the Hub refuses is an error of ours, main is untouched, and the next run completes it."""
    with serving() as hub:
        found, again = run_cases(hub, folder, tmp_path, REFUSALS[part])
    for (endpoint, what, _), first, second in zip(REFUSALS[part], found, again, strict=True):
        assert first.get("error") in ("HubError", "HubAccessError", "HubConflictError"), (endpoint, what, first)
        if what in (401, 403):
            assert first["error"] == "HubAccessError", (endpoint, what, first)
        assert len(first["message"]) > 40
        assert "changed" in second, (endpoint, what, second)


@pytest.mark.slow
def test_faults_that_stay(folder, tmp_path):
    """Tried again with growing waits, then given up with what to do; main is untouched."""
    cases = [(endpoint, what, 10**6) for endpoint in ENDPOINTS for what in (429, 500, 503, "cut")]
    with serving() as hub:
        found, again = run_cases(hub, folder, tmp_path, cases)
    for case, first, second in zip(cases, found, again, strict=True):
        assert first.get("error") == "HubError", (case, first)
        assert any(word in first["message"] for word in ("run it again", "Run it again")), (case, first)
        assert "changed" in second, (case, second)


def test_bad_card_is_refused_before_anything_is_uploaded(folder, tmp_path):
    with serving() as hub:
        hub.yaml_errors = ['"license" must be one of: mit, ...']
        (found,), _ = push_all([job(folder)], hub.endpoint, tmp_path)
    assert found["error"] == "HubError"
    assert '"license" must be one of' in found["message"]
    assert "preupload" not in hub.asked
    assert not new_commits(hub)


def test_what_arrived_is_compared(folder, tmp_path):
    with serving() as hub:
        hub.faults = [Fault("commit", "corrupt", times=1)]
        (found,), _ = push_all([job(folder)], hub.endpoint, tmp_path / "1")
        assert found["error"] == "HubError"
        assert "there are not what was sent (missing, or their hashes differ). Run it again" in found["message"]
        (healed,), _ = push_all([job(folder)], hub.endpoint, tmp_path / "2")
    assert healed["changed"]
    assert hub.repositories["ann/birds"].main.files.items() >= files_in(folder).items()


@pytest.mark.parametrize("endpoint", ["upload", "commit"])
def test_killed_in_the_middle_and_run_again(folder, tmp_path, endpoint):
    (tmp_path / "out").mkdir()
    old = {"README.md": b"old", "model.safetensors": b"old"}
    with serving({"ann/birds": Repository({"main": old})}) as hub:
        hub.faults = [Fault(endpoint, "hang", times=1)]
        arguments = [f'[{{"folder": "{folder}", "repo_id": "ann/birds", "token": "hf_mine"}}]', str(tmp_path / "out")]
        # The child that pushes belongs to the group of its parent.
        group = "import os; os.setsid()\n" + PUSHES
        process = start(group, arguments, environment_for(hub.endpoint, tmp_path / "home"))
        assert hub.reached.wait(60)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        hub.go.set()
        assert hub.repositories["ann/birds"].main.files == old
        (found,), _ = push_all([job(folder)], hub.endpoint, tmp_path / "2")
    assert found["changed"]
    assert hub.repositories["ann/birds"].main.files == files_in(folder)
    assert_whole(hub.repositories["ann/birds"], files_in(folder), old)


def test_at_the_same_time(folder, tmp_path):
    """Of several pushes at once none overwrites another: each is on top of what it saw, or says that it is not."""
    folders = [folder, *(a_folder(tmp_path / str(number), b"%d" % number) for number in range(5))]
    with serving() as hub:
        found, _ = push_all([job(each) for each in folders], hub.endpoint, tmp_path)
    done = [each["commit"] for each in found if "error" not in each]
    assert done
    assert sorted(new_commits(hub)) == sorted(done)
    assert {each["error"] for each in found if "error" in each} <= {"HubConflictError"}
    assert_whole(hub.repositories["ann/birds"], *map(files_in, folders))


STALE = """
import sys
from pathlib import Path
from crayon_sdk.errors import HubConflictError
from crayon_sdk._base.publishing import find_target, publish
mine, theirs = map(Path, sys.argv[1:3])
target = find_target("ann/birds")
publish(theirs, find_target("ann/birds"))
try:
    publish(mine, target)
except HubConflictError as error:
    print(error)
print(publish(theirs, target).changed)
"""


def test_stale_parent(folder, tmp_path):
    theirs = a_folder(tmp_path / "theirs", b"t")
    with serving({"ann/birds": Repository({"main": {"notes.md": b""}})}) as hub:
        out, _ = run(
            STALE, [str(folder), str(theirs)], environment_for(hub.endpoint, tmp_path / "home", token="hf_mine")
        )
    message, changed = out.splitlines()
    assert "was changed by somebody else meanwhile; nothing of theirs was overwritten" in message
    assert "then run it again to put yours on top" in message
    assert changed == "True"  # the same files: as when the answer to a push was lost
    assert len(hub.repositories["ann/birds"].commits) == 2
    assert hub.repositories["ann/birds"].main.files == files_in(theirs) | {"notes.md": b""}


def test_dry_run_sends_nothing(folder, tmp_path):
    with serving() as hub:
        (found,), _ = push_all([job(folder, dry_run=True, token="")], hub.endpoint, tmp_path)
    assert found["dry_run"]
    assert not found["changed"]
    assert dict(found["files"])["model.safetensors"] == 50_000
    assert not hub.asked


@pytest.mark.parametrize("name", ["", "a/b/c", "me/../you", "me/ name", "me/näme", 3, "https://hf.co/me/x", "x" * 200])
def test_names_that_cannot_be(name):
    with pytest.raises(SettingsError, match="expected a repository such as 'me/birds-resnet50', got"):
        checked_repo_id(name)


def test_settings_that_cannot_be():
    with pytest.raises(SettingsError, match="a pull request goes to main"):
        find_target("me/birds", create_pr=True, revision="better")
    with pytest.raises(SettingsError, match="must not be empty"):
        find_target("me/birds", commit_message=" ")
    with pytest.raises(SettingsError, match="must not be empty"):
        find_target("me/birds", revision="")


OPTIONS = ("private", "create_pr", "revision", "commit_message", "dry_run", "token")
PUBLIC = {
    AnnotationSet.push_to_hub: ("self", "repo_id"),
    Correction.push_to_hub: ("self", "repo_id", "card"),
    Workspace.push: ("self", "name", "repo_id", "card_images", "card"),
    find_target: ("repo_id", "kind"),
}


@pytest.mark.parametrize("function", PUBLIC)
def test_what_publishes_takes_the_same_keywords_and_says_so(function):
    known, parameters = settings_in(HubOptions), inspect.signature(function).parameters
    assert tuple(known) == OPTIONS
    assert tuple(parameters) == (*PUBLIC[function], *OPTIONS)
    documented = inspect.getdoc(function)
    assert "**hub" not in documented
    for name, setting in known.items():
        parameter = parameters[name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is setting.default
        assert f"\n    {name}: {setting.text}\n" in documented


def test_the_shell_has_them_too():
    for path in (("push",), ("answer", "push")):
        found = app
        for word in path:
            found = found.commands[word]
        options = {each.name: each for each in found.params if each.name in OPTIONS}
        assert set(options) == set(OPTIONS) - {"token"}
        for name, option in options.items():
            assert (option.help, option.default) == (
                settings_in(HubOptions)[name].text,
                settings_in(HubOptions)[name].default,
            )


def test_they_are_declared_in_one_place():
    found = []
    for path in Path(crayon_sdk.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.append((path.name, node.target.id))
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found += [(path.name, each.arg) for each in (*node.args.args, *node.args.kwonlyargs)]
    for name in ("create_pr", "commit_message"):  # the others are also facts of what is there, or was read
        assert [path for path, declared in found if declared == name] == ["publishing.py"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"privat": True}, r"there is no keyword of \w+ called 'privat'; did you mean 'private'\?"),
        ({"xyz": 1}, r"called 'xyz'; known: .*commit_message, create_pr, dry_run, .*private, .*revision, token"),
        ({"private": "no"}, "expected private to be true or false, got 'no'"),
        ({"create_pr": None}, "expected create_pr to be true or false, got None"),
        ({"revision": 3}, "expected revision to be text, got 3"),
        ({"token": "hf_secret", "private": "no"}, "token= is not taken"),
    ],
)
def test_other_keywords_and_values_are_refused_before_any_work(given, message):
    nothing = AnnotationSet()  # whatever is looked at first is refused otherwise
    for push in (nothing.push_to_hub, functools.partial(Shipping.push, None, "both"), find_target):
        with pytest.raises(SettingsError, match=message) as caught:
            push("me/birds", **given)
        assert "hf_secret" not in "".join(traceback.format_exception(caught.value))


def test_token_that_a_library_puts_into_an_error_is_taken_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def call():
        raise ValueError("Illegal header value b'Bearer hf_secret'")

    with pytest.raises(HubError, match="asking: Illegal header value b'Bearer <token>'") as caught:
        retried(call, "asking")
    assert "hf_secret" not in "".join(traceback.format_exception(caught.value))


def test_links_are_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "in" / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CrayonError, match="is a link"):
        local_files(tmp_path / "in")
