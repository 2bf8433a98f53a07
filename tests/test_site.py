"""The documentation opened from a disk in a real browser that reaches no network: whole, legible, searchable.

pytest -m slow tests/test_site.py     after: npm ci --prefix tests, for axe-core

CRAYON_SCREENSHOTS names a folder to leave screenshots in, for whoever wants to look.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from helpers_browser import axe, open_browser

pytestmark = pytest.mark.slow  # the site is built for it

LOOK = os.environ.get("CRAYON_SCREENSHOTS")
PAGES = (
    "index.html",
    "method.html",  # equations
    "how-to/publish.html",
    "concepts/maps.html",
    "reference/maps.html",
    "benchmarks/birds.html",
    "notebooks/explain_answer_correct.html",
)
WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = {"light": "default", "dark": "slate"}  # as systems and as the theme call them

every_page = pytest.mark.parametrize("page", PAGES)
every_width = pytest.mark.parametrize("width", WIDTHS)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    opened = open_browser(tmp_path_factory.mktemp("profile"), (1280, 800), nowhere, requests=True)
    opened.set_script_timeout(120)
    yield opened
    opened.quit()


def load(driver, site: Path, page: str, width: str = "desktop", scheme: str = "light") -> None:
    """Open a page as somebody who was never there, and wait until its scripts have done their work."""
    screen = {"width": WIDTHS[width], "height": 844, "deviceScaleFactor": 1, "mobile": width == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    driver.get((site / "javascripts" / "scrolling.js").as_uri())  # of the same origin, and no page that keeps anything
    driver.execute_script("localStorage.clear()")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get((site / page).as_uri())
    assert driver.execute_script("return document.body.dataset.mdColorScheme") == SCHEMES[scheme]
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)))"
    driver.execute_async_script(frames)


def foreign(driver) -> list[str]:
    """What was asked for beyond the disk since the page was opened."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in asked)
    return [url for url in asked if not url.startswith(("file:", "data:", "chrome:"))]


def faults(driver) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def overflow(driver, width: str) -> int:
    """By how many pixels a page is wider than its window."""
    return driver.execute_script("return document.documentElement.scrollWidth") - WIDTHS[width]


LACKING = """
    const whole = image => image.alt && image.complete && image.naturalWidth;
    return [...document.images].filter(image => !whole(image)).map(image => image.src)"""
AXE = """
    const [done] = arguments;
    axe.run({preload: false, resultTypes: ["violations"]}).then(found => done(found.violations))"""


@every_scheme
@every_width
@every_page
def test_a_page_is_whole(driver, site, page, width, scheme):
    load(driver, site, page, width, scheme)
    assert not foreign(driver)
    assert not faults(driver)
    assert overflow(driver, width) <= 0
    assert not driver.execute_script(LACKING)
    if LOOK:
        name = page.removesuffix(".html").replace("/", "-")
        driver.save_screenshot(str(Path(LOOK) / f"site-{name}-{width}-{scheme}.png"))


@every_scheme
@every_width
@every_page
def test_nothing_keeps_people_from_reading_a_page(driver, site, page, width, scheme):
    script = axe()
    load(driver, site, page, width, scheme)
    driver.execute_script(script)
    found = driver.execute_async_script(AXE)
    assert not [
        (rule["id"], node["html"], node["failureSummary"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]


def test_every_page_fits_on_a_phone_and_has_its_pictures(driver, site):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages.remove("404.html")  # a server's: its links begin at the root of the server
    assert len(pages) > 100
    load(driver, site, pages[0], "phone")
    wrong = []
    for page in pages:
        driver.get((site / page).as_uri())
        if overflow(driver, "phone") > 0 or driver.execute_script(LACKING):
            wrong.append(page)
    assert not wrong
    assert not foreign(driver)
    assert not faults(driver)


def test_search_works_from_a_disk(driver, site):
    load(driver, site, "how-to/publish.html")
    box = driver.find_element("css selector", "input.md-search__input")
    box.click()
    box.send_keys("worst_group")
    links = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    end = time.monotonic() + 60
    while not (found := driver.execute_script(links)):
        assert time.monotonic() < end, "the search found nothing"
        time.sleep(0.1)
    assert (site / "reference" / "functional" / "metrics.html").as_uri() in {
        link.split("#")[0].split("?")[0] for link in found
    }
    driver.get(found[0])
    assert "worst" in driver.find_element("tag name", "body").text.lower()
    assert not foreign(driver)
    assert not faults(driver)
