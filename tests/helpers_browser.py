"""A real browser without a window, and the annotation app in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def open_browser(profile: Path, size: tuple[int, int] = (1280, 800), *flags: str, requests: bool = False):
    """Chromium with an empty profile and more flags, which may keep what it asks for; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium and chromedriver here; install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    logs = ("browser", "performance") if requests else ("browser",)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def axe() -> str:
    """The script of axe-core, which looks for what keeps people from reading a page; skips where there is none."""
    path = Path(__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("no axe-core here: npm ci --prefix tests")
    return path.read_text(encoding="utf-8")


def answer_as_the_masks_say(url: str, folder: Path) -> None:
    """Two people sit down at the page of a workspace and press Y and N until all is answered, knowing the masks."""
    for person, words in _words_of_masks(folder).items():
        with tempfile.TemporaryDirectory() as profile:
            driver = open_browser(Path(profile))
            try:
                driver.get(url)
                _answer_all(driver, person, words)
            finally:
                driver.quit()


def _answer_all(driver: Any, person: str, words: dict[str, str]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver.implicitly_wait(60)
    driver.find_element(By.CSS_SELECTOR, "dialog[open] #name").send_keys(person, Keys.ENTER)
    while True:
        view, task = driver.execute_script(
            "const main = document.querySelector('main:not([hidden])');"
            "return [main && main.id, state.queue.length > 0 ? state.queue[0].id : null]"
        )
        if view == "turn":
            ActionChains(driver).send_keys(Keys.ENTER).perform()
        elif view == "single" and task is not None:
            ActionChains(driver).send_keys(words[task][0]).perform()
        elif view == "pause" and "All done" in driver.find_element(By.ID, "pause-title").text:
            break
        else:
            time.sleep(0.05)
    while driver.execute_script("return outbox.waiting.length") > 0:
        time.sleep(0.05)


def _words_of_masks(folder: Path) -> dict[str, dict[str, str]]:
    """What two people who know the object masks say to every task of a workspace."""
    from crayon_sdk.annotate.tasks import make_tasks
    from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers
    from crayon_sdk.workspace.workspace import Workspace

    workspace = Workspace(folder)
    dataset, maps, patches = workspace.dataset(), workspace.maps(), workspace.patches()
    everything: dict[str, Any] = {"count": 2**31, "votes": 2**31}
    pictures = make_tasks(dataset, maps, workspace.suggest(kind="image", **everything))
    rectangles = make_tasks(dataset, patches, workspace.suggest(kind="neuron", **everything))
    about = simulate_neuron_answers(patches, dataset, annotators=1).neuron_answers
    neuron = {(each.neuron, each.patch): each.answer for each in about}
    made = simulate_answers(maps, dataset, annotators=2)
    found = {}
    for person, annotator in zip(("Ann", "Ben"), sorted(made.annotators), strict=True):
        image = {each.id: each.answer for each in made.image_answers if each.annotator == annotator}
        found[person] = {task.id: image[task.sample] for task in pictures}
        found[person] |= {task.id: neuron[task.about[0][:2]] for task in rectangles}
    return found


class App:
    """``crayon annotate`` in a process, reached over HTTP."""

    def __init__(self, folder: Path, *options: object, log: Path | None = None) -> None:
        self.folder = folder
        self.log = log or folder / "annotate.log"
        self.options = [str(option) for option in options]
        self.start()

    def start(self) -> None:
        port = [] if "--port" in self.options else ["--port", "0"]
        command = [sys.executable, "-m", "crayon_sdk", "annotate", "--json", "-w", str(self.folder), *port]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as said, self.log.with_suffix(".err").open("ab") as errors:
            at = said.tell()
            self.process = subprocess.Popen([*command, *self.options], stdout=said, stderr=errors, env=environment)
        started = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"crayon annotate ended: {self.said()}")
            text = self.log.read_bytes()[at:].decode()
            with contextlib.suppress(ValueError):
                self.links = json.loads(text)
                break
            if time.monotonic() - started > 120:
                self.end()
                raise RuntimeError(f"crayon annotate did not start: {text} {self.said()}")
            time.sleep(0.05)
        self.url = next(iter(self.links["answer"].values()))
        self.owner_url = self.links["owner"]

    def said(self) -> str:
        return self.log.with_suffix(".err").read_text()

    def call(self, path: str, body: object = None, token: str | None = None, **headers: str):
        """Status and JSON of a request; a body of bytes is sent as it is."""
        root = self.url.split("?")[0].removesuffix("/")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"{root}{path}", data=data, headers={"Content-Type": "application/json", **headers})
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urlopen(request, timeout=60) as response:
                return response.status, _body(response)
        except URLError as error:
            if not hasattr(error, "code"):
                raise
            return error.code, _body(error)

    def stop(self, number: int = signal.SIGINT, seconds: float = 60.0) -> int:
        """End it as Ctrl-C does, or otherwise; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def end(self) -> None:
        """See to it that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def apps():
    """Starts apps, ``start(folder, *options, log=...)``, and ends those that are left."""
    started: list[App] = []

    def start(*arguments, **more) -> App:
        started.append(App(*arguments, **more))
        return started[-1]

    try:
        yield start
    finally:
        for app in started:
            app.end()


def _body(response):
    raw = response.read()
    return json.loads(raw) if response.headers.get_content_type() == "application/json" else raw
