"""The pages in a real browser: keys, undo, reload, two people, the grid, a phone, a server that goes away."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from urllib.parse import urljoin

import pytest

pytest.importorskip("fastapi", reason="needs the extra annotate")
pytest.importorskip("selenium", reason="needs the extra dev")

from conftest import make_pictures
from helpers_browser import apps, open_browser
from helpers_workspace import new_workspace, save_model
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.data.generated import generate
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.workspace import Workspace

LOOK = os.environ.get("CRAYON_SCREENSHOTS")
"""A folder to leave screenshots in, for whoever wants to look."""
BAD_NAME = "zebra<script>document.title=1</script>"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace about cats and a class with a bad name; nobody may change it."""
    root = tmp_path_factory.mktemp("page")
    pictures = make_pictures(root / "pictures", side=160)
    table = (pictures / "metadata.csv").read_text().replace(",cat,", f",{BAD_NAME},")
    (pictures / "metadata.csv").write_text(table)
    new_workspace(root / "ws", pictures, save_model(root / "m")).explain(sheet=0)
    return root / "ws"


@pytest.fixture(scope="module")
def start():
    with apps() as starting:
        yield starting


@pytest.fixture(scope="module")
def images(place, tmp_path_factory, start):
    """Eight tasks about pictures, two votes each."""
    folder = shutil.copytree(place, tmp_path_factory.mktemp("images") / "ws")
    return start(folder, "--votes", 2, "--kind", "image")


@pytest.fixture(scope="module")
def neurons(place, tmp_path_factory, start):
    """Some seventy tasks about patches."""
    folder = shutil.copytree(place, tmp_path_factory.mktemp("neurons") / "ws")
    return start(folder, "--kind", "neuron")


@pytest.fixture(scope="module")
def spots(place, tmp_path_factory, start):
    """Eight tasks about the brightest spots of the same maps."""
    folder = shutil.copytree(place, tmp_path_factory.mktemp("spots") / "ws")
    return start(folder, "--kind", "spot")


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    opened = [open_browser(tmp_path_factory.mktemp(f"profile{number}")) for number in range(2)]
    yield opened
    for each in opened:
        each.quit()


class Page:
    """What a person does on the page."""

    def __init__(self, driver, app, person, size=(1280, 800), path=""):
        self.driver, self.app = driver, app
        driver.set_window_size(*size)
        # No script runs in a picture of the same origin: the page before can keep nothing after this.
        driver.get(urljoin(app.url, "/icon.svg"))
        driver.execute_script("localStorage.clear()")
        driver.get(app.url + path)
        if person:
            self.wait(lambda: self.find("name").is_displayed())
            self.find("name").send_keys(person, Keys.ENTER)
            self.wait(lambda: self.find("who").text == person)

    def find(self, id_):
        return self.driver.find_element(By.ID, id_)

    def wait(self, reached, seconds=60):
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"waited for {seconds} s: {self.driver.page_source[-3000:]}"
            time.sleep(0.02)

    def press(self, *keys):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def sent(self):
        """Wait until nothing waits in the browser."""
        self.wait(lambda: self.driver.execute_script("return outbox.waiting.length") == 0)

    def shown(self):
        """Wait for the pictures; ids of the task that is shown."""
        script = """
            const images = [...document.querySelectorAll('main:not([hidden]) #stage img')];
            return images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)"""
        self.wait(lambda: self.driver.execute_script(script))
        return self.driver.execute_script("return state.at === null ? state.queue[0].id : state.past[state.at].task.id")

    def look(self, name):
        if LOOK:
            self.driver.save_screenshot(str(Path(LOOK) / f"{name}.png"))

    def errors(self):
        """What the console complains of, beside requests that a test let fail."""
        return [entry for entry in self.driver.get_log("browser") if "ERR_CONNECTION" not in entry["message"]]


def rows(app, person):
    found = {each["person"]: each for each in app.call("/api/owner")[1]["people"]}
    return found.get(person, {"answers": 0, "yes": None, "unsure": 0.0})


def test_answer_undo_and_reload(drivers, images):
    page = Page(drivers[0], images, "ann")
    first = page.shown()
    assert page.find("question").text == f"Is the highlight mainly on the {BAD_NAME}?"
    assert "annotate" in drivers[0].title  # the name was not run
    titles = [each.text for each in drivers[0].find_elements(By.TAG_NAME, "figcaption")]
    assert titles == ["Original", "Highlight Overlaid", "Highlight in Orange"]
    page.look("single")
    page.press("y", "n", "U")
    page.sent()
    assert (rows(images, "ann")["answers"], rows(images, "ann")["yes"]) == (3, 0.5)
    assert page.find("facts").text.startswith("3 of 8")
    fourth = page.shown()
    page.press("z")
    assert page.find("said").text.startswith("You said unsure")
    page.press(Keys.BACKSPACE)
    page.press("y")  # in place of no
    page.sent()
    assert (rows(images, "ann")["answers"], rows(images, "ann")["yes"]) == (2, 1.0)

    drivers[0].refresh()  # in the middle: one is where one was
    page.wait(lambda: page.find("who").text == "ann")
    assert page.shown() not in (first, fourth)
    assert page.find("facts").text.startswith("2 of 8")
    page.press("z")  # what the page does not know any more, the server does
    page.wait(lambda: page.find("said").text.startswith("You said yes"))
    page.wait(lambda: rows(images, "ann")["answers"] == 1)
    page.press(*"yyyyyyy")
    page.wait(lambda: page.find("pause").is_displayed())
    assert page.find("pause-title").text == "All done. Thank you!"
    page.sent()
    assert rows(images, "ann")["answers"] == 8
    page.find("pause-undo").click()
    page.wait(lambda: page.find("single").is_displayed())
    page.press("n")
    page.sent()
    assert page.errors() == []


def test_spots_are_answered_with_the_same_keys(drivers, spots):
    page = Page(drivers[0], spots, "ann")
    page.shown()
    assert page.find("question").text == f"Is the bright spot on the {BAD_NAME}?"
    titles = [each.text for each in drivers[0].find_elements(By.TAG_NAME, "figcaption")]
    assert titles == ["Original", "Bright Spot Overlaid", "Bright Spot in Orange"]
    assert page.find("panels-button").is_displayed()
    page.look("spot")
    page.press("y", "n")
    page.sent()
    page.press("?")
    assert "one bright spot" in page.find("help-text").text
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.find("help").is_displayed())  # until then the key would go to its button
    page.press("g")  # all that is left, on one page
    page.wait(lambda: page.find("grid").is_displayed())
    pictures = drivers[0].find_elements(By.CSS_SELECTOR, "#cells img")
    assert len(pictures) == 6
    assert all("/orange?" in each.get_attribute("src") for each in pictures)  # what lies around the spot is seen
    page.wait(lambda: drivers[0].execute_script("return [...document.images].every(i => i.naturalWidth > 0)"))
    page.look("spots")
    assert page.find("facts").text.startswith("2 of 8 spots")
    assert spots.call("/api/owner")[1]["kinds"] == {"spot": {"tasks": 8, "done": 2}}
    spots.call("/api/owner/export", {})
    said = AnnotationSet.load(spots.folder / "answers.jsonl")
    assert [each.answer for each in said.spot_answers] == ["yes", "no"]
    assert said.spot_answers == tuple(said)
    assert page.errors() == []


def test_two_people_at_once(drivers, images):
    """After ann, there is one vote left for each picture: ben and cec share them."""
    ben, cec = Page(drivers[0], images, "ben"), Page(drivers[1], images, "cec")
    ben.shown()
    cec.wait(lambda: cec.find("pause").is_displayed())
    assert "Others have the remaining" in cec.find("pause-text").text  # ben's page holds all eight
    ben.look("waiting")
    ben.press(*"nnnnnnnn")
    ben.sent()
    cec.wait(lambda: cec.find("pause-title").text == "All done. Thank you!", 15)
    summary = images.call("/api/owner")[1]
    assert (summary["kinds"]["image"]["done"], summary["answers"], summary["disagreements"]) == (8, 16, 7)
    assert rows(images, "cec")["answers"] == 0

    cec.driver.get(images.owner_url)
    cec.wait(lambda: len(cec.driver.find_elements(By.CSS_SELECTOR, "#split figure")) == 7)
    text = cec.driver.find_element(By.TAG_NAME, "main").text
    assert "ann" in text
    assert "People disagree about 7" in text
    cec.wait(lambda: cec.driver.execute_script("return [...document.images].every(i => i.naturalWidth > 0)"))
    cec.look("owner")
    cec.find("export").click()
    cec.wait(lambda: "16 new answers written" in cec.find("notice").text)
    assert len(AnnotationSet.load(images.folder / "answers.jsonl")) == 16
    assert ben.errors() == cec.errors() == []


def test_looking_back_and_skipping(drivers, neurons):
    page = Page(drivers[0], neurons, "eve")
    first = page.shown()
    page.press(Keys.ARROW_RIGHT)  # skipped
    second = page.shown()
    assert second != first
    page.press("y", "n")
    page.press(Keys.ARROW_LEFT)
    assert page.find("said").text.startswith("You said no")
    page.press(Keys.ARROW_LEFT)
    assert page.shown() == second
    page.press("u")  # another answer, and on to the next one
    assert page.find("said").text.startswith("You said no")
    page.press(Keys.ARROW_RIGHT)
    assert page.find("said").text == ""
    page.sent()
    assert (rows(neurons, "eve")["answers"], rows(neurons, "eve")["unsure"]) == (2, 0.5)
    assert drivers[0].execute_script("return state.queue.some(task => task.id === arguments[0])", first)
    page.look("neuron")


def test_a_held_key_is_one_answer(drivers, neurons):
    page = Page(drivers[0], neurons, "hal")
    page.shown()
    drivers[0].execute_script(
        "for (let i = 0; i < 30; i++)"
        " document.dispatchEvent(new KeyboardEvent('keydown', {key: 'y', repeat: i > 0, cancelable: true}))"
    )
    page.sent()
    assert rows(neurons, "hal")["answers"] == 1


def test_who_is_quicker_than_the_server_is_told_that_more_is_on_its_way(drivers, neurons):
    page = Page(drivers[0], neurons, "flo")
    page.shown()
    drivers[0].set_network_conditions(latency=3000, download_throughput=10**7, upload_throughput=10**7)
    try:
        for left in range(8, -1, -1):
            page.press("y")
            page.wait(lambda left=left: drivers[0].execute_script("return state.queue.length") <= left)
        assert page.find("pause-title").text == "One moment"  # nobody else has anything in hand
    finally:
        drivers[0].delete_network_conditions()
    page.wait(lambda: page.find("single").is_displayed())
    page.sent()
    assert rows(neurons, "flo")["answers"] == 9


def test_the_grid(drivers, neurons):
    page = Page(drivers[0], neurons, "gus")
    page.shown()
    page.press("g")
    page.wait(lambda: len(drivers[0].find_elements(By.CLASS_NAME, "cell")) == 24)
    cells = drivers[0].find_elements(By.CLASS_NAME, "cell")
    cells[3].click()
    cells[4].click()
    cells[4].click()
    page.wait(lambda: drivers[0].execute_script("return [...document.images].every(i => i.naturalWidth > 0)"))
    drivers[0].execute_script("arguments[0].focus()", cells[0])
    page.press(Keys.ARROW_RIGHT, "n")
    assert [cell.get_attribute("data-answer") for cell in cells[:6]] == ["yes", "no", "yes", "no", "unsure", "yes"]
    assert cells[3].get_attribute("aria-label").endswith("? no")
    page.look("grid")
    page.press(Keys.ENTER)
    page.sent()
    found = rows(neurons, "gus")
    assert (found["answers"], round(found["yes"] * 23), found["flags"]) == (24, 21, [])
    page.wait(lambda: drivers[0].find_elements(By.CLASS_NAME, "cell")[0] != cells[0])
    page.press("z")  # the page is taken back, and stands there as it was
    page.sent()
    assert rows(neurons, "gus")["answers"] == 0
    again = drivers[0].find_elements(By.CLASS_NAME, "cell")
    assert [cell.get_attribute("data-answer") for cell in again[:5]] == ["yes", "no", "yes", "no", "unsure"]
    page.press(Keys.ENTER)
    page.sent()
    neurons.call("/api/owner/export", {})
    saved = [each for each in AnnotationSet.load(neurons.folder / "answers.jsonl") if each.annotator == "gus"]
    assert {each.source for each in saved} == {"grid"}
    assert len({(each.id, each.time, each.seconds) for each in saved}) >= 1
    page.press("g")
    page.wait(lambda: page.find("single").is_displayed())
    assert page.errors() == []


def test_help_and_panels(drivers, images):
    page = Page(drivers[0], images, "pat")
    page.press("?")
    assert page.find("help").is_displayed()
    page.press("y")  # not an answer while the help is open
    assert page.driver.execute_script("return outbox.waiting.length") == 0
    page.look("help")
    page.press(Keys.ESCAPE)
    assert not page.find("help").is_displayed()
    page.press("4", "1")
    assert page.driver.execute_script("return localStorage.getItem('crayon.panels')") == "overlaid orange red"
    page.find("panels-button").click()
    assert page.find("panel-red").is_selected()
    page.find("panel-red").click()
    assert page.driver.execute_script("return localStorage.getItem('crayon.panels')") == "overlaid orange"


def test_a_phone(drivers, neurons, images):
    page = Page(drivers[0], neurons, "fon", size=(390, 844))
    page.shown()
    width = drivers[0].execute_script("return document.documentElement.scrollWidth")
    assert width <= drivers[0].execute_script("return innerWidth")  # nothing to scroll sideways
    for button in drivers[0].find_elements(By.CSS_SELECTOR, "#single .keys button"):
        size = button.size
        assert button.is_displayed()
        assert min(size["width"], size["height"]) >= 44  # what a thumb hits
    drivers[0].find_element(By.CSS_SELECTOR, "[data-answer=yes]").click()
    page.sent()
    assert rows(neurons, "fon")["answers"] == 1
    page.look("phone")
    page.find("mode").click()
    page.wait(lambda: drivers[0].find_elements(By.CLASS_NAME, "cell"))
    assert drivers[0].execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_page_that_is_left_gives_back_what_it_held(drivers, neurons):
    page = Page(drivers[0], neurons, "lea")
    page.shown()
    held = page.driver.execute_script("return state.queue.map(task => task.id)")
    assert len(held) == 9

    def given_to_max():
        found = neurons.call("/api/tasks", {"person": "max", "count": 96})[1]["tasks"]
        neurons.call("/api/release", {"person": "max", "tasks": [task["id"] for task in found]})
        return {task["id"] for task in found}

    assert not given_to_max() & set(held)
    drivers[0].get("about:blank")
    page.wait(lambda: set(held) <= given_to_max())


def test_a_name_that_somebody_has(drivers, neurons):
    page = Page(drivers[0], neurons, "joy")
    page.shown()
    page.press("y")
    page.sent()
    other = Page(drivers[1], neurons, None)
    other.wait(lambda: other.find("name").is_displayed())
    other.find("name").send_keys("joy", Keys.ENTER)
    other.wait(lambda: "joy has given 1 answers already" in other.find("join-note").text)
    assert other.find("who").text == ""
    other.find("name").clear()
    other.find("name").send_keys("joe <b>", Keys.ENTER)
    other.wait(lambda: other.find("who").text == "joe <b>")


def test_a_server_that_goes_away_costs_no_answer(drivers, place, tmp_path, start):
    folder = shutil.copytree(place, tmp_path / "ws")
    app = start(folder, "--kind", "neuron", "--port", "8917")
    page = Page(drivers[0], app, "sam")
    page.shown()
    page.press("y", "n")
    page.sent()
    app.process.kill()
    app.process.wait()
    page.press("y", "y", "n")
    page.wait(lambda: "kept on this device" in page.find("notice").text)
    page.look("offline")
    assert page.driver.execute_script("return outbox.waiting.length") >= 3
    app.start()
    page.sent()
    page.wait(lambda: not page.find("notice").is_displayed())
    assert rows(app, "sam")["answers"] == 5
    page.press("z")
    page.sent()
    assert app.stop() == 0
    assert [each.annotator for each in AnnotationSet.load(folder / "answers.jsonl").neuron_answers][:1] == ["sam"]


def test_two_tabs_of_one_person_lose_nothing(drivers, place, tmp_path, start):
    """Both answer while the server is away; one is closed, and what it had is sent by the other."""
    app = start(shutil.copytree(place, tmp_path / "ws"), "--kind", "neuron", "--port", "8918")
    driver = drivers[0]
    page = Page(driver, app, "tom")
    first = driver.current_window_handle
    page.shown()
    driver.switch_to.new_window("tab")
    driver.get(app.url)
    page.wait(lambda: page.find("who").text == "tom")
    page.shown()
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # not those of the first tab
    app.process.kill()
    app.process.wait()
    own = "return outbox.waiting.map(entry => entry.click.task)"
    driver.switch_to.window(first)
    page.press("y", "n")
    asked = driver.execute_script(own)
    second = next(handle for handle in driver.window_handles if handle != first)
    driver.switch_to.window(second)
    page.press("n", "n", "y")
    page.wait(lambda: len(driver.execute_script(own)) == 5)  # the other tab's, too
    asked = set(driver.execute_script(own)) | set(asked)
    assert len(asked) == 5
    driver.switch_to.window(first)
    page.press("y")
    page.press("z")  # given and taken back while nothing can be sent
    driver.close()
    driver.switch_to.window(second)
    driver.refresh()  # the page of the second one is lost as well
    app.start()
    driver.get(app.url)
    page.wait(lambda: page.find("who").text == "tom")
    page.sent()
    assert driver.execute_script("return Object.keys(localStorage).filter(key => key.includes('outbox'))") == []
    assert (rows(app, "tom")["answers"], round(5 * rows(app, "tom")["yes"])) == (5, 2)
    assert app.stop() == 0
    found = AnnotationSet.load(app.folder / "answers.jsonl").neuron_answers
    assert sorted(each.answer for each in {each.time: each for each in found}.values())  # they came home
    driver.switch_to.new_window("tab")  # the other tests go on in a fresh one
    fresh = driver.current_window_handle
    driver.switch_to.window(second)
    driver.close()
    driver.switch_to.window(fresh)


def test_pictures_then_neurons(drivers, place, tmp_path, start):
    """One round about both: counts of each, and a word before the question is another one."""
    app = start(shutil.copytree(place, tmp_path / "ws"), "--limit", 5)
    page = Page(drivers[0], app, "zoe")
    page.shown()
    assert page.find("facts").text == "0 of 5 pictures · then 5 patches"
    page.look("both-first")
    page.press(*"yyyyy")
    page.wait(lambda: page.find("turn").is_displayed())
    assert page.find("turn-title").text == "Next: 5 patches"
    assert "red rectangle" in page.find("turn-text").text
    page.look("both-turn")
    drivers[0].set_window_size(390, 844)
    page.look("both-turn-phone")
    assert drivers[0].execute_script("return document.documentElement.scrollWidth <= innerWidth")
    drivers[0].set_window_size(1280, 800)
    page.press("y")  # a key too many is no answer to what one has not seen
    page.press("z")
    page.wait(lambda: page.find("single").is_displayed())
    assert page.find("said").text.startswith("You said yes")
    page.press("n")
    page.wait(lambda: page.find("turn").is_displayed())
    page.press("?")
    assert "red rectangle" in page.find("help-text").text
    page.press(Keys.ESCAPE)
    page.find("turn-go").click()
    page.wait(lambda: page.find("single").is_displayed())
    assert page.find("question").text.startswith("Is the red rectangle")
    page.shown()
    page.look("both-neuron")
    page.press("n", "z", "n", "g")
    page.wait(lambda: len(drivers[0].find_elements(By.CLASS_NAME, "cell")) == 4)
    page.press(Keys.ENTER)
    page.wait(lambda: page.find("pause-title").text == "All done. Thank you!")
    assert page.find("pause-text").text.startswith("You answered 10.")
    page.sent()
    assert (rows(app, "zoe")["answers"], rows(app, "zoe")["yes"]) == (10, 0.8)
    drivers[0].get(app.owner_url)
    page.wait(lambda: page.find("facts").text.startswith("5 of 5 pictures, 5 of 5 patches done"))
    page.look("both-owner")
    assert page.errors() == []


def test_the_grid_has_one_kind_on_a_page(drivers, place, tmp_path, start):
    app = start(shutil.copytree(place, tmp_path / "ws"), "--limit", 5)
    page = Page(drivers[0], app, "gil")
    page.shown()
    page.press("g")
    page.wait(lambda: len(drivers[0].find_elements(By.CLASS_NAME, "cell")) == 5)
    page.press(Keys.ENTER)
    page.wait(lambda: page.find("turn").is_displayed())
    page.press(Keys.ENTER)
    page.wait(lambda: page.find("grid").is_displayed())
    assert page.find("grid-question").text.startswith(("Is the red", "Is it so"))
    page.press(Keys.ENTER)
    page.wait(lambda: page.find("pause").is_displayed())
    page.sent()
    assert rows(app, "gil")["answers"] == 10


def test_a_link_of_ones_own_keeps_what_others_left(drivers, place, tmp_path, start):
    """Ann's and Ben's links in one browser: what Ann could not send waits for her link, and is not thrown away."""
    folder = shutil.copytree(place, tmp_path / "ws")
    people = ("--require-token", "--people", "ann", "--people", "ben", "--kind", "image")
    app = start(folder, *people, "--port", "8919")
    page = Page(drivers[0], app, None)
    driver = drivers[0]
    page.wait(lambda: page.find("who").text == "ann")
    page.shown()
    app.process.kill()
    app.process.wait()
    page.press("y")
    driver.get("about:blank")  # before there is a server again, from which Ann's page would take all that is left
    app.start()
    driver.get(app.links["answer"]["ben"])
    page.wait(lambda: page.find("who").text == "ben")
    page.shown()
    page.press("n")
    page.sent()
    assert not page.find("notice").is_displayed()
    driver.get(app.links["answer"]["ann"])
    page.wait(lambda: page.find("who").text == "ann")
    page.sent()
    assert app.stop() == 0
    assert {each.annotator for each in AnnotationSet.load(folder / "answers.jsonl")} == {"ann", "ben"}


@pytest.fixture(scope="module")
def active(tmp_path_factory, start):
    """Some seventy spots, chosen anew after every answer."""
    root = tmp_path_factory.mktemp("active")
    table = generate("box", root / "pictures", size=64, scale=0.1)
    model = ModelSource(source=str(save_model(root / "m")))
    Workspace.create(root / "ws", model, DataSource(csv=str(table))).explain(sheet=0)
    return start(root / "ws", "--kind", "spot", "--order", "active")


def test_a_line_says_when_nobody_needs_to_be_asked(drivers, active):
    for driver in drivers:
        driver.get_log("browser")  # what the tests before let fail
    page = Page(drivers[0], active, "ann")
    page.shown()
    line = page.find("foresight")
    page.wait(lambda: line.text == "nothing is answered yet; 20 typical ones are a good start")
    assert drivers[0].execute_script("return state.queue.length") == 3  # what is at hand is not chosen anew
    for number in range(1, 20):
        page.shown()
        page.press("y")
        page.wait(lambda number=number: line.text == f"{number} of 20 typical ones are answered")
    page.look("foresight")
    assert "enough" not in line.get_attribute("class")
    page.press("y")
    said = "20 of 20 are yes: the maps are right, and nobody needs to be asked further"
    page.wait(lambda: line.text == said)
    assert line.get_attribute("class") == "enough"
    page.look("foresight-enough")
    page.press("y")  # whoever wants to goes on
    page.wait(lambda: line.text.startswith("21 of 21 are yes"))
    page.press("z")
    page.wait(lambda: line.text == said)
    page.press("n", "n", "n")
    page.sent()
    page.wait(lambda: "are yes" not in line.text)
    page.press("g")
    page.wait(lambda: page.find("grid").is_displayed())
    assert line.is_displayed()
    # Another person sees the same, on a phone too; nothing there to scroll sideways, and the keys are in sight.
    other = Page(drivers[1], active, "fon", size=(390, 844))
    other.shown()
    other.wait(lambda: other.find("foresight").text == line.text)
    other.look("foresight-phone")
    assert drivers[1].execute_script("return document.documentElement.scrollWidth <= innerWidth")
    for button in drivers[1].find_elements(By.CSS_SELECTOR, "#single .keys button"):
        assert button.rect["y"] + button.rect["height"] <= drivers[1].execute_script("return innerHeight")
    drivers[1].set_window_size(1280, 800)
    assert page.errors() == other.errors() == []


def test_no_line_where_nobody_looked_at_the_pictures(drivers, images, neurons):
    for app in (images, neurons):
        page = Page(drivers[0], app, "ida")
        page.wait(lambda page=page: page.find("single").is_displayed() or page.find("pause").is_displayed())
        assert not page.find("foresight").is_displayed()


@pytest.mark.slow
def test_pictures_for_the_documentation(drivers, tmp_path, start):
    """Drawn pictures, a network that learned to tell them apart, and the pages as the documentation shows them."""
    from crayon_sdk._base.files import write_json, write_tensors
    from crayon_sdk.cli.demo_model import DemoSettings, train_original
    from crayon_sdk.cli.demo_pictures import write_pictures
    from crayon_sdk.data.dataset import ImageDataset
    from crayon_sdk.models.rebuild import timm_config

    settings = DemoSettings()
    pictures = tmp_path / "pictures"
    write_pictures(pictures, seed=0, train=settings.train, test=settings.test, size=settings.size)
    train = ImageDataset.from_csv(pictures / "metadata.csv", split="train")
    model, _ = train_original(train, settings, seed=0)
    (tmp_path / "m").mkdir()
    write_tensors(tmp_path / "m" / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
    write_json(tmp_path / "m" / "config.json", timm_config(model))
    new_workspace(tmp_path / "birds-and-fish", pictures, tmp_path / "m").explain(sheet=0)

    app = start(tmp_path / "birds-and-fish", "--votes", 2)
    page = Page(drivers[0], app, "Ann", size=(1280, 860))
    page.shown()
    for number in range(12):
        page.press("yynynuyyynyy"[number])
        time.sleep(0.8)
        page.shown()
    page.look("annotate-one")
    page.press("?")
    page.look("annotate-help")
    page.press(Keys.ESCAPE, "g")
    loaded = "return [...document.querySelectorAll('.cell img')].filter(i => i.naturalWidth > 0).length >= 24"
    page.wait(lambda: drivers[0].execute_script(loaded))
    for place in (2, 5, 13):
        drivers[0].find_elements(By.CLASS_NAME, "cell")[place].click()
    page.look("annotate-grid")
    page.sent()
    other = Page(drivers[1], app, "Ben", size=(390, 844))
    other.shown()
    for key in "yyynnuyy":
        other.press(key)
        time.sleep(0.7)
        other.shown()
    other.look("annotate-phone")
    other.sent()
    drivers[1].set_window_size(1280, 860)
    drivers[1].get(app.owner_url)
    other.wait(lambda: drivers[1].find_elements(By.CSS_SELECTOR, "#split img"))
    other.wait(lambda: drivers[1].execute_script("return [...document.images].every(i => i.naturalWidth > 0)"))
    other.look("annotate-owner")
    page.press("g")
    app.stop()

    neurons = start(tmp_path / "birds-and-fish", "--kind", "neuron", "--group-patches", log=tmp_path / "neurons.log")
    page = Page(drivers[0], neurons, "Cleo", size=(1280, 860))
    page.shown()
    page.look("annotate-neuron")
    assert page.errors() == other.errors() == []
