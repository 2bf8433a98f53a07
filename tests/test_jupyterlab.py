"""A notebook in JupyterLab, in a real browser: bars while it works, tables and pictures below its cells.

pip install --group jupyter, then: pytest -m slow tests/test_jupyterlab.py
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_browser import open_browser
from test_notebooks import LESS

pytestmark = pytest.mark.slow

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyterlab", reason="needs the dependency group jupyter")

ROOT = Path(__file__).resolve().parents[1]
LOOK = os.environ.get("CRAYON_SCREENSHOTS")
"""A folder to leave screenshots in, for whoever wants to look."""
MORE = ("maps", "crayon.Explainer(original).explain_neurons(train)", "crayon.simulate_answers(maps, train)")
QUIET = (
    "--LabApp.extension_manager=readonly",
    "--ServerApp.open_browser=False",
    "--ServerApp.allow_root=True",
    "--IdentityProvider.token=",
)
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # nothing is asked of a foreign host
READY = """
    const editors = document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputArea-editor");
    const status = document.getElementById("jp-main-statusbar")?.innerText;
    return editors.length === arguments[0] && /ipykernel.*Idle/.test(status)"""
BARS = """
    window.bars = new Set();
    new MutationObserver(() => {
        for (const output of document.querySelectorAll(".jp-OutputArea-output"))
            for (const [, doing] of output.textContent.matchAll(/(\\w+): +\\d+%\\|/g)) bars.add(doing);
    }).observe(document.body, {subtree: true, childList: true, characterData: true});"""
CELLS = """
    return [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map(cell => [
        cell.querySelector(".jp-InputPrompt").textContent,
        cell.querySelectorAll(".jp-OutputArea-output table").length,
        [...cell.querySelectorAll(".jp-OutputArea-output img")].filter(i => i.complete && i.naturalWidth > 1).length,
        cell.querySelector(".jp-OutputArea")?.textContent ?? ""])"""


@pytest.fixture
def lab(tmp_path):
    """The address of JupyterLab with a notebook, in a process that keeps everything in a folder of its own."""
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1"}
    settings = tmp_path / "SETTINGS" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(NO_NEWS))
    work = tmp_path / "work"
    work.mkdir()
    nbformat.write(notebook(), work / "notebook.ipynb")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={work}", "--ServerApp.port=0", *QUIET]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=work, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        started = time.monotonic()
        while not (found := list((tmp_path / "RUNTIME").glob("jpserver-*.json"))):
            said = (tmp_path / "log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() - started < 120, said
            time.sleep(0.1)
        yield json.loads(found[0].read_text())["url"]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def notebook():
    """The first cells of the first example, on less, and what shows itself without a call."""
    book = nbformat.read(ROOT / "examples" / "explain_answer_correct.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"][:3]
    for cell in code:
        for old, new in LESS.items():
            cell.source = cell.source.replace(old, new)
    book.cells = [*code, *(nbformat.v4.new_code_cell(source) for source in MORE)]
    return book


def test_a_notebook_shows_bars_tables_and_pictures(lab, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = open_browser(tmp_path / "profile", (1280, 1400))
    try:
        driver.get(f"{lab}lab/tree/notebook.ipynb?reset")
        count = 3 + len(MORE)
        wait(driver, lambda: driver.execute_script(READY, count))
        driver.execute_script(BARS)
        driver.find_element("css selector", ".jp-Notebook .jp-CodeCell .jp-InputArea-editor").click()
        for place in range(count):
            ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
            wait(driver, lambda place=place: driver.execute_script(CELLS)[place][0] == f"[{place + 1}]:")
        wait(driver, lambda: driver.execute_script(CELLS)[2][2] == 1)
        cells = driver.execute_script(CELLS)[:count]  # a new one follows the last
        bars = driver.execute_script("return [...bars]")
        if LOOK:
            picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            (Path(LOOK) / "jupyterlab.png").write_bytes(base64.b64decode(picture["data"]))
    finally:
        driver.quit()
    assert not [text for *_, text in cells if "Error" in text]
    tables, pictures = ([cell[kind] for cell in cells] for kind in (1, 2))
    assert tables == [0, 1, 0, 0, 0, 1]  # the evaluation and the answers
    assert pictures[:3] == [0, 0, 1]
    assert pictures[3] == 12  # of the maps
    assert pictures[4] > 6  # places of patches
    assert {"training", "explaining"} & set(bars), bars


def wait(driver, reached, seconds=120):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, driver.execute_script("return document.body.innerText")[-3000:]
        time.sleep(0.05)
