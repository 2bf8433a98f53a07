"""The app over real HTTP, as a process: answers, people, restarts, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra annotate")

from fastapi import HTTPException
from helpers_browser import apps
from helpers_workspace import crayon, new_workspace, save_model
from PIL import Image

from crayon_sdk.annotate.access import HEADERS, MAX_BODY, Access
from crayon_sdk.annotate.desk import Desk
from crayon_sdk.annotate.server import Round, _Guard
from crayon_sdk.annotate.store import AnswerStore, Given
from crayon_sdk.annotate.tasks import make_tasks
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import SpotAnswer
from crayon_sdk.data.generated import generate
from crayon_sdk.errors import OutputError, SettingsError, WorkspaceBusyError, install_extra
from crayon_sdk.explain.asking import suggest
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.serving import STORE, _listening, annotate, export
from crayon_sdk.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory, picture_folder):
    """A workspace with maps and patches; nobody may change it."""
    root = tmp_path_factory.mktemp("annotate")
    workspace = new_workspace(root / "ws", picture_folder, save_model(root / "m"))
    workspace.explain(sheet=0)
    return root


def copy_of(place, folder):
    shutil.copytree(place, folder, dirs_exist_ok=True)
    return folder / "ws"


@pytest.fixture(scope="module")
def app(place, tmp_path_factory):
    """One that asks everything twice, without tokens."""
    with apps() as start:
        yield start(copy_of(place, tmp_path_factory.mktemp("app")), "--votes", 2, "--kind", "image")


@pytest.fixture
def start():
    with apps() as starting:
        yield starting


def tasks_for(app, person, count=96, **more):
    status, found = app.call("/api/tasks", {"person": person, "count": count, **more})
    assert status == 200
    return found


def answer(app, person, *clicks, **more):
    body = [{"uid": uid, "task": task, "answer": word, "seconds": 0.7} for uid, task, word in clicks]
    return app.call("/api/answers", {"person": person, "answers": body, **more})


def test_from_question_to_file(place, tmp_path, start):
    """The whole way of one person, a crash in the middle included."""
    app = start(copy_of(place, tmp_path), "--limit", 5, "--kind", "image")
    assert app.call("/api/session")[1] | {"title": ""} == {
        "title": "",
        "kinds": {"image": 5},
        "ahead": 8,
        "votes": 1,
        "person": None,
        "owner": True,
    }
    asked = tasks_for(app, "ann")["tasks"]
    assert len(asked) == 5
    ids = [task["id"] for task in asked]
    status, kept = answer(app, "ann", ("uid-00000", ids[0], "yes"), ("uid-00001", ids[1], "no"))
    assert (status, kept["kept"]) == (200, ["uid-00000", "uid-00001"])
    assert kept["progress"] == {"image": {"answered": 2, "left": 3}}
    app.process.kill()
    app.process.wait()
    app.start()
    assert (
        answer(app, "ann", ("uid-00001", ids[1], "no"))[1]["progress"]["image"]["answered"] == 2
    )  # the page sends again what it can
    status, undone = app.call("/api/undo", {"person": "ann"})
    assert (undone["undone"], undone["task"]["id"], undone["task"]["answer"]) == ("uid-00001", ids[1], "no")
    assert answer(app, "ann", ("uid-00002", ids[1], "unsure"), ("uid-00003", ids[2], "yes"))[0] == 200
    assert app.call("/api/owner/export", {})[1] == {"new": 2}
    app.call("/api/undo", {"person": "ann", "uid": "uid-00003"})  # after it was exported
    assert tasks_for(app, "ben")["progress"]["image"]["left"] == 3
    assert app.stop() == 0
    found = AnnotationSet.load(tmp_path / "ws" / "answers.jsonl")
    assert [(each.annotator, each.answer, each.source) for each in found] == [
        ("ann", "yes", "annotate"),
        ("ann", "unsure", "annotate"),
    ]
    workspace = Workspace(tmp_path / "ws")
    assert {each.model for each in found} == {workspace.manifest.model_fingerprint}
    assert all(each.time and each.seconds == 0.7 and "highlight" in each.question for each in found)
    assert crayon("annotate", "--export-only", "--json", "-w", tmp_path / "ws").stdout.strip() == '{\n  "new": 0\n}'


def test_two_people_answer_the_same_pictures(app):
    first, second = tasks_for(app, "eva", 2)["tasks"], tasks_for(app, "fay", 2)["tasks"]
    assert [task["id"] for task in first] == [task["id"] for task in second]
    third = tasks_for(app, "gil", 2)["tasks"]
    assert not {task["id"] for task in first} & {task["id"] for task in third}  # two have them in hand
    task = first[0]["id"]
    assert answer(app, "eva", ("eva-00001", task, "yes"))[0] == 200
    assert answer(app, "fay", ("fay-00001", task, "no"))[0] == 200
    assert task not in {each["id"] for each in tasks_for(app, "eva", 2)["tasks"]}
    summary = app.call("/api/owner")[1]
    assert (summary["kinds"]["image"]["done"], summary["disagreements"], summary["votes"]) == (1, 1, 2)
    assert summary["shown"][0]["said"] == {"eva": "yes", "fay": "no"}
    assert summary["agreement"]["image"]["percent"] == 0.0
    for person in ("eva", "fay"):
        app.call("/api/undo", {"person": person})


def test_pictures_are_jpeg_and_names_stay_secret(app):
    found = tasks_for(app, "pia", 1)
    (task,) = found["tasks"]
    assert set(task) == {"id", "kind", "question", "pictures"}
    assert ".jpg" not in json.dumps(found)
    sizes = {}
    for panel in ("original", "overlaid", "red", "orange"):
        for size in ("large", "small"):
            status, raw = app.call(f"/api/pictures/{task['id']}/0/{panel}?size={size}")
            assert (status, raw[:3]) == (200, b"\xff\xd8\xff")
            path = app.folder / "picture.jpg"
            path.write_bytes(raw)
            with Image.open(path) as picture:
                sizes[size] = picture.size
    assert sizes == {"large": (480, 480), "small": (240, 240)}


@pytest.mark.parametrize(
    "path",
    [
        "/../workspace.json",
        "/static/app.js",
        "/app.js/../../store.py",
        "/%2e%2e/workspace.json",
        "/api/pictures/../../../etc/passwd",
        "/api/pictures/aaaaaaaaaaaaaaaaaaaa/0/original",
        "/api/pictures/..%2f..%2fetc%2fpasswd/0/original",
        "/api/pictures/aaaaaaaaaaaaaaaaaaaa/0/..%2foriginal",
        "/docs",
        "/redoc",
    ],
)
def test_what_is_not_there(app, path):
    status, raw = app.call(path)
    assert status in (404, 422)
    assert b"fingerprint" not in (raw if isinstance(raw, bytes) else json.dumps(raw).encode())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/join", {"person": ""}),
        ("/api/join", {"person": "  \n "}),
        ("/api/join", {"person": "a\u0000b"}),
        ("/api/join", {"person": "x" * 61}),
        ("/api/join", {"person": ["ann"]}),
        ("/api/join", []),
        ("/api/tasks", {"person": "ann", "count": -1}),
        ("/api/tasks", {"person": "ann", "count": 10**9}),
        ("/api/tasks", {"person": "ann", "count": 1, "held": ["../x"]}),
        ("/api/answers", {"person": "ann", "answers": []}),
        ("/api/answers", {"person": "ann", "answers": [{"uid": "uid-00000", "task": "t", "answer": "yes"}]}),
        ("/api/answers", {"person": "ann", "answers": [{"uid": "'; DROP", "task": "a" * 20, "answer": "yes"}]}),
        ("/api/answers", {"person": "ann", "answers": [{"uid": "uid-00000", "task": "a" * 20, "answer": "maybe"}]}),
        ("/api/undo", {"person": "ann", "uid": "x" * 1000}),
    ],
)
def test_what_is_refused_changes_nothing(app, path, body):
    before = app.call("/api/owner")[1]["answers"]
    assert app.call(path, body)[0] == 422
    assert app.call("/api/owner")[1]["answers"] == before


@pytest.mark.parametrize("path", ["join", "tasks", "release", "answers", "undo"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"person": "\\ud800"}',
        b'{"person": "ann", "\\ud800": 1}',
        b'{"person": "ann", "count": NaN}',
        b'{"person": "ann", "count": 1e999, "held": [NaN], "tasks": [Infinity], "uid": -Infinity}',
        b'{"person": "ann", "count": ' + b"9" * 5000 + b"}",
        b'{"person": "ann", "answers": [{"uid": "uid-00000", "task": "TASK", "answer": "yes", "seconds": NaN}]}',
        b'{"person": "ann", "answers": [{"uid": "uid-00000", "task": "TASK", "answer": "yes", "seconds": 1e999}]}',
        b'{"person": "ann", "answers": [{"uid": "uid-00000", "task": "TASK", "answer": "\\udfff"}]}',
        b'{"person": "ann", "source": "\\ud800", "tasks": ["\\ud800"], "uid": "\\ud800"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"{",
        b"NaN",
        b'"\\ud800"',
    ],
)
def test_bodies_that_are_no_json_of_ours(app, path, body):
    before = app.call("/api/owner")[1]["answers"]
    status, found = app.call(f"/api/{path}", body.replace(b"TASK", b"a" * 20))
    assert 400 <= status < 500
    assert isinstance(found["detail"], str)
    assert found["detail"]
    assert app.call("/api/owner")[1]["answers"] == before
    assert "Traceback" not in app.said()


def test_what_is_acknowledged_is_stored(app):
    """A number that is used again: for another task, by another person, with another answer."""
    first, second = (task["id"] for task in tasks_for(app, "ula", 2)["tasks"])
    status, found = answer(app, "ula", ("same-0001", first, "yes"), ("same-0001", second, "no"))
    assert (status, found["kept"], found["progress"]["image"]["answered"]) == (200, ["same-0001"] * 2, 2)
    found = answer(app, "uwe", ("same-0001", first, "no"))[1]
    assert (found["kept"], found["progress"]["image"]["answered"]) == (["same-0001"], 1)
    found = answer(app, "uwe", ("same-0001", first, "yes"))[1]
    assert (found["kept"], found["changed"]) == ([], ["same-0001"])
    people = {each["person"]: each for each in app.call("/api/owner")[1]["people"]}
    assert [(people[name]["answers"], people[name]["yes"]) for name in ("ula", "uwe")] == [(2, 0.5), (1, 0.0)]
    assert app.call("/api/undo", {"person": "ula", "uid": "same-0001"})[1]["task"]["id"] == second
    for person in ("ula", "uwe"):
        app.call("/api/undo", {"person": person})


def test_answers_about_what_is_not_asked_are_said_and_the_others_kept(app):
    task = tasks_for(app, "una", 1)["tasks"][0]["id"]
    status, found = answer(app, "una", ("una-00001", "a" * 20, "yes"), ("una-00002", task, "yes"))
    assert (status, found["unknown"], found["kept"]) == (200, ["una-00001"], ["una-00002"])
    app.call("/api/undo", {"person": "una"})


def test_headers_and_other_pages(app):
    from urllib.request import urlopen

    for path in ("", "owner", "app.css", "api/session", "app.js", "queue.js", "common.js", "owner.js", "icon.svg"):
        with urlopen(app.url + path) as response:
            assert {name: response.headers[name] for name in HEADERS} == HEADERS
            assert response.headers["Cache-Control"] in ("no-store", "no-cache")
            text = response.read().decode()
            # No other address than its own, no script and no style in the page itself.
            assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
            assert "<style" not in text
            assert "style=" not in text
    assert app.call("/api/join", {"person": "ann"}, Origin="http://evil.example")[0] == 403
    assert app.call("/api/session", Host="evil.example")[0] == 400
    assert app.call("/api/session", Host="evil.example@127.0.0.1")[0] == 400
    assert app.call("/api/join", {"person": "x" * 300_000})[0] == 413


def test_the_owner_exports_while_the_workspace_is_in_use(app):
    from crayon_sdk._base.files import locked

    task = tasks_for(app, "kim", 1)["tasks"][0]["id"]
    answer(app, "kim", ("kim-00001", task, "yes"))
    with locked(app.folder, doing="something long"):
        status, found = app.call("/api/owner/export", {})
    assert (status, "in use" in found["detail"]) == (409, True)
    assert app.call("/api/owner/export", {})[0] == 200
    app.call("/api/undo", {"person": "kim"})


def test_one_app_at_a_time(app):
    with pytest.raises(WorkspaceBusyError, match="annotate"):
        export(Workspace(app.folder))


def test_with_tokens(place, tmp_path, start):
    app = start(copy_of(place, tmp_path), "--require-token", "--people", "ann", "--people", "b<i>n", "--verbose")
    tokens = {name: link.partition("?token=")[2] for name, link in app.links["answer"].items()}
    owner = app.owner_url.partition("?token=")[2]
    assert len({*tokens.values(), owner}) == 3
    _nothing_is_read_without_a_token(app, tokens["ann"])
    picture = "/api/pictures/" + "a" * 20 + "/0/original"
    for path in ("/api/session", "/api/owner", picture, "/?token=wrong", "/openapi.json"):
        assert app.call(path)[0] == 401
        assert app.call(path, token="wrong")[0] == 401
    assert app.call("/api/session", token=tokens["ann"])[1]["person"] == "ann"
    assert app.call("/api/join", {"person": "ben"}, token=tokens["ann"])[0] == 403
    assert app.call("/api/join", {"person": "b<i>n"}, token=tokens["b<i>n"])[0] == 200
    assert app.call("/api/owner", token=tokens["ann"])[0] == 403
    assert app.call("/api/owner", token=owner)[0] == 200
    _link_becomes_cookie(app, tokens["ann"])
    app.process.send_signal(signal.SIGTERM)
    assert app.process.wait(60) == 0
    again = start(tmp_path / "ws", "--require-token", "--people", "ann", log=tmp_path / "again.log")
    assert again.links["answer"]["ann"].partition("?token=")[2] == tokens["ann"]  # links outlive a restart
    assert again.call("/api/session", token=tokens["b<i>n"])[0] == 401  # not asked any more
    again.stop()
    for secret in (*tokens.values(), owner):
        assert secret not in app.said() + again.said()
        assert secret not in (tmp_path / "ws" / "workspace.json").read_text()


def _nothing_is_read_without_a_token(app, token):
    """Refused by the head of the request alone; with a token, by what it says of its length."""
    paths = [path for path, about in app.call("/openapi.json", token=token)[1]["paths"].items() if "post" in about]
    assert len(paths) == 6
    for path in (*paths, "/nowhere", "/"):
        assert _status(app, path, "Content-Length: 200000") == (405 if path == "/" else 401)
        assert _status(app, path, "Content-Length: 10", "Transfer-Encoding: chunked") == 411
        known = f"Authorization: Bearer {token}"
        assert _status(app, path, known, "Content-Length: 10", "Transfer-Encoding: chunked") == 411
        assert _status(app, path, known, "Transfer-Encoding: chunked") == 411
        assert _status(app, path, known, "Content-Length: 300000") == 413
    before = _memory(app)
    for heads in (["Content-Length: 10"], [], [f"Authorization: Bearer {token}"]):
        _status(app, "/api/join", *heads, "Transfer-Encoding: chunked", megabytes=64)
    assert _memory(app) - before < 32


def _status(app, path, *heads, megabytes=0):
    """Of a request whose body never comes, or comes in chunks without an end."""
    host, _, port = app.url.split("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json", *heads]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
        with contextlib.suppress(OSError):  # it may hang up
            for _ in range(megabytes):
                connection.sendall(chunk)
        with contextlib.suppress(ConnectionResetError):
            return int(connection.recv(4096).split()[1])


def _memory(app):
    """Of the process of the app, in MB."""
    pages = int(Path(f"/proc/{app.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _link_becomes_cookie(app, token):
    from http.client import HTTPConnection

    host = app.url.split("/")[2]
    connection = HTTPConnection(host)
    connection.request("GET", f"/?token={token}")
    response = connection.getresponse()
    response.read()
    cookie = response.headers["Set-Cookie"]
    assert (response.status, response.headers["Location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    connection.request("GET", "/api/session", headers={"Cookie": cookie.partition(";")[0]})
    assert json.loads(connection.getresponse().read())["person"] == "ann"
    connection.close()


def test_more_bytes_than_were_announced(tmp_path):
    """Whatever server stands before the app: it counts for itself."""
    read = []

    async def reads_all(scope, receive, send):
        while True:
            read.append(len((await receive())["body"]))

    async def endless():
        return {"type": "http.request", "body": b"x" * 2**16, "more_body": True}

    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/api/join", "headers": headers, "query_string": b""}
    with pytest.raises(HTTPException, match="413"):
        asyncio.run(_Guard(reads_all, Access(required=False), "cookie")(scope, endless, None))
    assert sum(read) <= MAX_BODY


def test_answers_do_not_wait_for_the_other_side():
    """TCP_NODELAY on what is accepted, set as uvicorn's loop does it: by the protocol of the listener."""

    async def accepted(listener):
        found = asyncio.get_running_loop().create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                own = transport.get_extra_info("socket")
                found.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        server = await asyncio.get_running_loop().create_server(Server, sock=listener)
        _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        delay = await asyncio.wait_for(found, 60)
        writer.close()
        server.close()
        return delay

    for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
        with _listening(host, 0) as listener:
            assert asyncio.run(accepted(listener)) != 0


def test_pictures_then_neurons(place, tmp_path, start):
    """Both without being told to, with counts of each, and the command that makes use of them."""
    app = start(copy_of(place, tmp_path), "--limit", 3)
    assert app.links["tasks"] == app.links["open"] == {"image": 3, "neuron": 3}
    assert app.call("/api/session")[1]["kinds"] == {"image": 3, "neuron": 3}
    found = tasks_for(app, "ann", 4)
    assert [task["kind"] for task in found["tasks"]] == ["image", "image", "image", "neuron"]
    image, neuron = found["tasks"][0]["id"], found["tasks"][3]["id"]
    assert app.call(f"/api/pictures/{neuron}/0/patch")[0] == app.call(f"/api/pictures/{image}/0/orange")[0] == 200
    kept = answer(app, "ann", ("uid-00000", image, "yes"), ("uid-00001", neuron, "no"))[1]
    assert kept["progress"] == {"image": {"answered": 1, "left": 2}, "neuron": {"answered": 1, "left": 2}}
    assert answer(app, "ben", ("uid-00000", neuron, "no"))[0] == 200
    assert app.call("/api/undo", {"person": "ben"})[1]["progress"]["neuron"] == {"answered": 0, "left": 2}
    assert app.call("/api/release", {"person": "ben", "tasks": [image, neuron, "f" * 20]})[0] == 200
    summary = app.call("/api/owner")[1]
    assert summary["kinds"] == {"image": {"tasks": 3, "done": 1}, "neuron": {"tasks": 3, "done": 1}}
    assert app.stop() == 0
    found = AnnotationSet.load(tmp_path / "ws" / "answers.jsonl")
    assert (len(found.image_answers), len(found.neuron_answers) >= 1) == (1, True)
    assert "Answered so far: 1 of 8 pictures and 1 of " in app.said()
    assert f"Next: crayon correct -w {tmp_path / 'ws'} --method both" in app.said()


def test_spots_of_the_same_pictures(place, tmp_path, start):
    """Two people; who answered about highlights before is asked about spots all the same."""
    folder = copy_of(place, tmp_path)
    assert crayon("annotate", "-w", folder, "--kind", "spots").exit_code == 2
    app = start(folder, "--kind", "spot", "--order", "typical", "--limit", 3, "--votes", 2)
    assert app.links["tasks"] == app.links["open"] == {"spot": 3}
    first, second = tasks_for(app, "ann", 2)["tasks"]
    assert {first["kind"], second["kind"]} == {"spot"}
    assert app.call(f"/api/pictures/{first['id']}/0/orange")[0] == 200
    assert app.call(f"/api/pictures/{first['id']}/0/patch")[0] == 404
    answer(app, "ann", ("uid-00000", first["id"], "yes"), ("uid-00001", second["id"], "no"))
    answer(app, "ben", ("uid-00000", first["id"], "no"), ("uid-00001", second["id"], "no"))
    summary = app.call("/api/owner")[1]
    assert summary["kinds"] == {"spot": {"tasks": 3, "done": 2}}
    assert (summary["agreement"]["spot"]["percent"], list(summary["agreement"])) == (50.0, ["spot"])
    assert app.stop() == 0
    found = AnnotationSet.load(folder / "answers.jsonl")
    assert [each.kind for each in found] == ["spot"] * 4
    assert Counter(found.spot_relevance().values()) == {"mixed": 1, "irrelevant": 1}
    assert "and 2 of 8 spots" in app.said()
    again = start(
        folder, "--kind", "spot", "--order", "typical", "--limit", 3, "--votes", 2, log=tmp_path / "again.log"
    )
    assert again.links["open"] == {"spot": 1}
    again.stop()
    images = start(folder, "--kind", "image", "--limit", 3, log=tmp_path / "images.log")
    assert images.links["open"] == {"image": 3}


def test_neurons_together(place, tmp_path, start):
    app = start(copy_of(place, tmp_path), "--kind", "neuron", "--group-patches", "--limit", "3")
    asked = tasks_for(app, "ann")["tasks"]
    assert {task["kind"] for task in asked} == {"neuron"}
    task = asked[0]
    for number in range(task["pictures"]):
        assert app.call(f"/api/pictures/{task['id']}/{number}/patch")[0] == 200
    assert app.call(f"/api/pictures/{task['id']}/{task['pictures']}/patch")[0] == 404
    assert app.call(f"/api/pictures/{task['id']}/0/original")[0] == 404
    answer(app, "ann", ("uid-00000", task["id"], "no"))
    app.stop()
    found = AnnotationSet.load(tmp_path / "ws" / "answers.jsonl").neuron_answers
    assert len(found) == task["pictures"]
    assert {each.neuron for each in found} == {found[0].neuron}
    # What was answered is not asked once more, whoever starts the app again.
    again = start(tmp_path / "ws", "--kind", "neuron", "--group-patches", "--limit", "3", log=tmp_path / "again.log")
    assert task["id"] not in {each["id"] for each in tasks_for(again, "ben")["tasks"]}
    again.stop()


def test_settings_out_of_range(place):
    workspace = Workspace(place / "ws")
    questions = ({"question": "{label.__class__.__mro__}"}, {"question": "{name}"}, {"kind": "neurons"})
    for wrong in (
        *questions,
        {"votes": 0},
        {"limit": 0},
        {"hold": 0.0},
        {"port": 70000},
        {"people": ["a\nb"]},
        {"people": [""]},
    ):
        with pytest.raises(SettingsError, match="expected"):
            annotate(workspace, **wrong)
    assert not (place / "ws" / STORE).exists()


def test_a_port_that_is_taken(place, tmp_path):
    workspace = Workspace(copy_of(place, tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match="choose another --port"):
            annotate(workspace, port=taken.getsockname()[1])


def test_without_the_extra(place, tmp_path):
    folder = copy_of(place, tmp_path)
    script = "import sys; sys.modules['uvicorn'] = None; from crayon_sdk.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "annotate", "-w", folder], capture_output=True, text=True, check=False
    )
    assert (done.returncode, install_extra("annotate") in " ".join(done.stderr.split())) == (2, True)


def test_answers_about_an_earlier_model_stay_in_the_store(place, tmp_path):
    folder = copy_of(place, tmp_path)
    store = AnswerStore(folder / STORE)
    from test_store import click

    store.add([click("u1", "t1")])  # about a picture called t1, which this workspace does not have
    store.close()
    from crayon_sdk.errors import MismatchError

    with pytest.raises(MismatchError, match="t1"):
        export(Workspace(folder))


# --- chosen anew while people answer ---


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A workspace with some seventy spots to ask about; nobody may change it."""
    root = tmp_path_factory.mktemp("many")
    table = generate("box", root / "pictures", size=64, scale=0.1)
    model = ModelSource(source=str(save_model(root / "m")))
    workspace = Workspace.create(root / "ws", model, DataSource(csv=str(table)))
    workspace.explain(sheet=0)
    return root


def settled(app):
    """What follows from all answers so far."""
    end = time.monotonic() + 60
    while True:
        found = app.call("/api/tasks", {"person": "nobody", "count": 0})[1]
        if found["current"]:
            return found["foresight"]["spot"]
        assert time.monotonic() < end
        time.sleep(0.01)


class Asked:
    """Somebody who asks for one task after the other, and answers."""

    def __init__(self, app, person):
        self.app, self.person, self.seen, self.given = app, person, [], 0

    def next(self):
        found = tasks_for(self.app, self.person, 1)["tasks"]
        self.seen += [task["id"] for task in found]
        return self.seen[-1] if found else None

    def say(self, word):
        self.given += 1
        return answer(self.app, self.person, (f"{self.person}-{self.given:05}", self.seen[-1], word))[1]


def expected(workspace, tasks, said, count=99):
    """Ids of the tasks in the order that is chosen with these answers, task -> word."""
    by_id = {task.id: task for task in tasks}
    records = [SpotAnswer(id=by_id[task].sample, answer=word, annotator="x") for task, word in said.items()]
    asked = suggest(
        workspace.maps(),
        AnnotationSet(records),
        workspace.answering.outlook,
        count=count,
        method="active",
        kind="spot",
    )
    of = {task.sample: task.id for task in tasks}
    return [of[each.id] for each in asked]


def test_what_is_asked_is_chosen_anew_after_every_answer(many, tmp_path, start):
    folder = copy_of(many, tmp_path)
    app = start(folder, "--kind", "spot", "--order", "active", "--limit", 26)
    assert app.links["tasks"] == {"spot": 26}
    assert app.call("/api/session")[1]["ahead"] == 2
    workspace = Workspace(folder)
    tasks = make_tasks(workspace.dataset(), workspace.maps(), workspace.suggest(count=999, kind="spot"))
    assert settled(app) == {"words": "nothing is answered yet; 20 typical ones are a good start", "enough": False}
    first = expected(workspace, tasks, {})
    said, ann, ben = {}, Asked(app, "ann"), Asked(app, "ben")
    for number in range(20):  # typical ones first, whoever asks
        one = ben if number % 4 == 3 else ann
        said[one.next()] = "yes" if number % 2 else "no"
        given = one.say(said[one.seen[-1]])
        assert given["foresight"]["spot"]["enough"] is False
    assert list(said) == first[:20]
    assert settled(app)["words"] != "20 of 20 typical ones are answered"
    # Then by what is foretold from the answers of both, as the workspace would.
    for _ in range(3):
        settled(app)
        assert ann.next() == expected(workspace, tasks, said)[0]
        said[ann.seen[-1]] = "yes"
        ann.say("yes")
    # Taken back: the same one is at hand, and what follows from it is gone.
    back = app.call("/api/undo", {"person": "ann"})[1]["task"]["id"]
    del said[back]
    settled(app)
    assert back == ann.seen[-1]
    assert ben.next() == next(task for task in expected(workspace, tasks, said) if task != back)
    assert ann.next() == back
    # A restart goes on, with as many as there were to be.
    app.process.kill()
    app.process.wait()
    app.start()
    assert app.links["open"] == {"spot": 4}
    held = [ann.seen[-1]]
    assert tasks_for(app, "ann", 0, held=held)["progress"]["spot"]["left"] == 4
    assert ben.next() == next(task for task in expected(workspace, tasks, said) if task != back)
    ann.say("no")
    ben.say("no")
    while ann.next():
        ann.say("yes")
    assert len(set(ann.seen + ben.seen)) == 26
    assert app.call("/api/owner")[1]["kinds"] == {"spot": {"tasks": 26, "done": 26}}
    words = settled(app)["words"]
    assert app.stop() == 0
    assert f"About spots: {words}" in app.said()
    assert len(Workspace(folder).answers().spot_answers) == 26
    again = start(folder, "--kind", "spot", "--order", "active", "--limit", 26, log=tmp_path / "again.log")
    assert again.links["open"] == {"spot": 0}
    again.stop()


def test_with_another_order_it_is_said_how_far_one_sees_and_the_order_stays(many, tmp_path, start):
    folder = copy_of(many, tmp_path)
    workspace = Workspace(folder)
    app = start(folder, "--kind", "spot", "--order", "random")
    assert "foresight" not in tasks_for(app, "ann", 1)  # nobody has looked at the pictures
    app.stop()
    workspace.answering.outlook()
    app = start(folder, "--kind", "spot", "--order", "random", log=tmp_path / "seen.log")
    asked = [task["id"] for task in tasks_for(app, "ann")["tasks"]]
    for number, task in enumerate(asked[:24]):
        answer(app, "ann", (f"uid-{number:05}", task, "yes"))
    assert settled(app) == {
        "words": "24 of 24 are yes: the maps are right, and nobody needs to be asked further",
        "enough": True,
    }
    assert [task["id"] for task in tasks_for(app, "ann")["tasks"]] == asked[24:]
    app.stop()


def test_pictures_may_be_asked_actively_and_patches_come_by_chance(many, tmp_path, start):
    app = start(copy_of(many, tmp_path), "--order", "active", "--limit", 2)
    found = tasks_for(app, "ann")
    assert [task["kind"] for task in found["tasks"]] == ["image", "image", "neuron", "neuron"]
    assert set(found["foresight"]) == {"image"}
    app.stop()


def test_two_rounds_on_one_database_hand_nothing_out_twice(postgres):
    address, names = postgres(), [f"{number:020x}" for number in range(12)]
    stores = [AnswerStore(address) for _ in range(2)]
    rounds = [
        Round([], {"image": Desk(names, hold=60.0, clock=time.time)}, each, None, "", "", int, threading.RLock())
        for each in stores
    ]

    def say(number, person, task):
        stores[number].add([Given(f"{person}-{task}", task, person, "yes", None, "annotate", "", ())])
        rounds[number].answered("image", task, person)

    ann, ben = rounds[0].hand_out("ann", 4, []), rounds[1].hand_out("ben", 4, [])
    assert (ann, ben) == (names[:4], names[4:8])
    say(0, "ann", ann[0])
    assert rounds[1].hand_out("cid", 9, []) == names[8:]  # what others have in hand, or have answered, is not for cid
    assert rounds[1].hand_out("dan", 9, []) == []
    with rounds[0].together():
        rounds[0].desks["image"].release(ann[1], "ann")
    assert rounds[1].hand_out("dan", 9, []) == [ann[1]]
    assert rounds[0].hand_out("ann", 9, []) == ann[2:]  # also by another app: what is in hand is handed out again
    say(1, "ben", ben[0])
    with rounds[0].together():
        stores[0].withdraw("ben")
        rounds[0].taken_back("image", ben[0], "ben")
        rounds[0].desks["image"].release(ben[0], "ben")
    assert rounds[1].hand_out("eve", 9, []) == [ben[0]]
    assert [each.desks["image"].done for each in rounds] == [1, 1]
    for each in stores:
        each.close()
