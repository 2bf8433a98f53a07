"""Many people answer at once while the server is killed; and how fast the next picture is on the screen.

python benchmarks/annotate.py [--clients 20] [--answers 5000] [--kills 3] [--pictures] [--browser] [--json]
    [--store postgresql://USER@HOST/DATABASE [--apps 2]]

Makes pictures, a random network and a workspace in a temporary folder, starts ``crayon annotate`` on
loopback, and lets every client answer one picture after the other as fast as it can. The server is killed
with SIGKILL on the way and started again; clients send again what was not acknowledged. At the end every
acknowledged answer must be in answers.jsonl exactly once: the exit code says so. With ``--browser`` a
Chromium without a window presses Y, and measures from the key to the frame with the next pictures.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import timm
import torch
from machine import machine, write_csv
from PIL import Image
from rich.console import Console

from crayon_sdk._base.files import write_json, write_tensors
from crayon_sdk.annotate.store import AnswerStore
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.models.rebuild import timm_config
from crayon_sdk.models.split import SplitModel
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.workspace import Workspace

SIDE = 224


def main() -> None:
    """Run, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--answers", type=int, default=5000, help="in all")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--pictures", action="store_true", help="clients fetch three pictures per answer too")
    parser.add_argument("--browser", action="store_true", help="measure the page in Chromium as well")
    parser.add_argument("--store", help="a PostgreSQL database that is empty; default SQLite in the workspace")
    parser.add_argument("--apps", type=int, default=1, help="that work on it; clients take turns")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.apps > 1 and chosen.store is None:
        parser.error("several apps need --store")
    with tempfile.TemporaryDirectory() as folder:
        each = -(-chosen.answers // chosen.clients)
        workspace = make_workspace(Path(folder), tasks=each)
        row: dict[str, object] = load(workspace, chosen, each)
        if chosen.browser:
            row |= page(workspace, Path(folder))
    if chosen.json:
        print(json.dumps(row | {"machine": machine()}))
    else:
        Console().print(row)
        Console().print(f"written to {write_csv('annotate.csv', [row])}")
    sys.exit(bool(row["lost"] or row["doubled"] or row["not_acknowledged"]))


def make_workspace(root: Path, *, tasks: int) -> Workspace:
    """At least ``tasks`` pictures with evidence, and a random network that has looked at them."""
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / "data" / label).mkdir(parents=True)
        for number in range(max(tasks, 8)):
            coarse = Image.fromarray(generator.integers(0, 255, (7, 7, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / "data" / label / f"{number:05}.jpg")
    torch.manual_seed(0)
    model = SplitModel(timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2).eval())
    (root / "model").mkdir()
    write_tensors(root / "model" / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
    write_json(root / "model" / "config.json", timm_config(model))
    source = DataSource(folder=str(root / "data"))
    workspace = Workspace.create(root / "ws", ModelSource(source=str(root / "model")), source)
    workspace.explain(sheet=0)
    return workspace


@dataclass
class Server:
    """``crayon annotate`` on a port of its own, that can be killed and started again."""

    folder: Path
    votes: int
    store: str | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with closing(socket.create_server(("127.0.0.1", self.port))) as free:
            self.port = free.getsockname()[1]
        options = ["--kind", "image", "--votes", str(self.votes), "--port", str(self.port)]
        options += [] if self.store is None else ["--store", self.store]
        command = [sys.executable, "-m", "crayon_sdk", "annotate", "-q", "-w", str(self.folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            try:
                request(HTTPConnection("127.0.0.1", self.port, timeout=5), "/api/session")
                return
            except (OSError, HTTPException):  # noqa: PERF203 - each try fails on its own
                if self.process.poll() is not None:
                    raise
                time.sleep(0.1)

    def stop(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait()


@dataclass
class Tally:
    """What the clients saw."""

    wanted: int
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    picture_seconds: list[float] = field(default_factory=list)
    retries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def request(connection: HTTPConnection, path: str, body: object = None) -> object:
    """JSON in, JSON or bytes out."""
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"} if data else {}
    connection.request("POST" if data else "GET", path, body=data, headers=headers)
    response = connection.getresponse()
    raw = response.read()
    if response.status != 200:
        raise HTTPException(f"{path}: {response.status} {raw[:200]!r}")
    return json.loads(raw) if response.headers.get_content_type() == "application/json" else raw


def patiently(
    port: int, connection: list[HTTPConnection], path: str, body: object, tally: Tally
) -> tuple[object, float]:
    """Ask until there is an answer, as the page does; seconds of the try that had one."""
    while True:
        started = time.perf_counter()
        try:
            return request(connection[0], path, body), time.perf_counter() - started
        except (OSError, HTTPException):
            with tally.lock:
                tally.retries += 1
            connection[0].close()
            connection[0] = HTTPConnection("127.0.0.1", port, timeout=30)
            time.sleep(0.1 + 0.2 * random.random())


def client(person: str, port: int, count: int, pictures: bool, tally: Tally) -> None:
    """One person: eight tasks ahead, one answer after the other."""
    connection = [HTTPConnection("127.0.0.1", port, timeout=30)]
    queue: list[str] = []
    for number in range(count):
        if len(queue) < 8:
            found, _ = patiently(port, connection, "/api/tasks", {"person": person, "count": 8, "held": queue}, tally)
            queue += [task["id"] for task in found["tasks"] if task["id"] not in queue]
        task = queue.pop(0)
        if pictures:
            for panel in ("original", "overlaid", "orange"):
                _, seconds = patiently(port, connection, f"/api/pictures/{task}/0/{panel}", None, tally)
                tally.picture_seconds.append(seconds)
        click = {"uid": f"{person}-{number:06}", "task": task, "answer": "yes", "seconds": 1.0}
        _, seconds = patiently(port, connection, "/api/answers", {"person": person, "answers": [click]}, tally)
        with tally.lock:
            tally.acknowledged.append((person, task))
            tally.seconds.append(seconds)


def load(workspace: Workspace, chosen: argparse.Namespace, each: int) -> dict[str, object]:
    """All clients at once, the server killed on the way."""
    servers = [Server(workspace.folder, chosen.clients, chosen.store) for _ in range(chosen.apps)]
    for server in servers:
        server.start()
    tally = Tally(each * chosen.clients)
    people = [f"client{number:02}" for number in range(chosen.clients)]
    threads = [
        threading.Thread(target=client, args=(person, servers[at % chosen.apps].port, each, chosen.pictures, tally))
        for at, person in enumerate(people)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    down = 0.0
    for kill in range(1, chosen.kills + 1):
        while len(tally.acknowledged) < tally.wanted * kill / (chosen.kills + 1):
            time.sleep(0.005)
        stopped, server = time.perf_counter(), servers[kill % chosen.apps]
        server.stop(signal.SIGKILL)
        server.start()
        down += time.perf_counter() - stopped
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    for server in servers:
        server.stop(signal.SIGINT)
    return {
        "store": "SQLite" if chosen.store is None else "PostgreSQL",
        "apps": chosen.apps,
        "clients": chosen.clients,
        "answers": tally.wanted,
        "kills": chosen.kills,
        "answers_per_second": round(tally.wanted / (passed - down), 1),
        **milliseconds("answer", tally.seconds),
        **(milliseconds("picture", tally.picture_seconds) if chosen.pictures else {}),
        "retries": tally.retries,
        "seconds_down": round(down, 1),
        **checked(workspace.folder, chosen.store, tally),
    }


def milliseconds(what: str, seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    ordered = sorted(seconds)
    place = min(int(0.99 * len(ordered)), len(ordered) - 1)
    median = statistics.median(ordered)
    return {f"{what}_median_ms": round(1000 * median, 1), f"{what}_p99_ms": round(1000 * ordered[place], 1)}


def checked(folder: Path, address: str | None, tally: Tally) -> dict[str, int]:
    """Look for every acknowledged answer in answers.jsonl."""
    with closing(AnswerStore(address or folder / "annotate.sqlite")) as store:
        rows = store.database.read("SELECT task, records FROM given")
    sample_of = {task: json.loads(record)["id"] for task, record in rows}
    exported = Counter((answer.annotator, answer.id) for answer in AnnotationSet.load(folder / "answers.jsonl"))
    told = [(person, sample_of.get(task)) for person, task in tally.acknowledged]
    return {
        "not_acknowledged": tally.wanted - len(set(told)),
        "lost": sum(exported[one] == 0 for one in told),
        "doubled": sum(count > 1 for count in exported.values()),
    }


MEASURE = """
const done = arguments[arguments.length - 1];
const started = performance.now();
document.dispatchEvent(new KeyboardEvent("keydown", {key: "y", cancelable: true}));
(function look() {
  const images = [...document.querySelectorAll("#stage img")];
  if (images.length > 0 && images.every((image) => image.complete && image.naturalWidth > 0)) {
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
  } else {
    setTimeout(look, 1);
  }
})();
"""


def page(workspace: Workspace, root: Path, *, keys: int = 60, pace: float = 1.0) -> dict[str, float]:
    """Press Y at a pace of people, and measure until the frame after the next pictures are there."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    server = Server(workspace.folder, 10_000)
    server.start()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    for flag in (*flags.split(), "disable-component-update", f"user-data-dir={root / 'profile'}"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(f"http://127.0.0.1:{server.port}/")
        browser.find_element(By.ID, "name").send_keys("ann", Keys.ENTER)
        time.sleep(5)
        found = []
        for _ in range(keys):
            found.append(browser.execute_async_script(MEASURE) / 1000)
            time.sleep(pace)
    finally:
        browser.quit()
        server.stop(signal.SIGINT)
    return milliseconds("next_picture", found)


if __name__ == "__main__":
    main()
