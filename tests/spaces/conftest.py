"""A real browser, and the Space running as its own process."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from support import made_reports

from hf_layertracer import LayerTracerReport


SPACE = Path(__file__).parents[2] / "spaces" / "layertracer-viewer"
# What happens to a visitor who is faster than the page.
_PASSING = (ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException)
_AGAIN = 3  # seconds after which a list that shows nothing is opened again
PATIENCE = 120  # seconds; a shared machine may be slow, and no test asks how fast it is


class Page:
    """The page in a browser, as a visitor sees and uses it.

    Args:
        driver (`webdriver.Chrome`): The browser.
        url (`str`): Where the page is.
        downloads (`Path`): Where files go that the visitor downloads.
    """

    def __init__(self, driver: webdriver.Chrome, url: str, downloads: Path):
        self.driver, self.url, self.downloads = driver, url, downloads

    def open(self, query: str = "") -> None:
        self.driver.get("about:blank")
        self.errors()  # of the page that was left: what it was still waiting for was broken off
        self.driver.get(self.url + query)
        # From then on it listens, and nothing that it was opened with is still to come.
        self.wait(lambda: self.script("return window.layertracer?.isShown"), "the page did not open")
        self.wait(lambda: self.bars() > 0 or "alert" in self.find("#lt-report").get_attribute("innerHTML"))

    def wait(self, condition: Callable[[], object], what: str = "") -> object:
        def holds(_: object) -> object:
            try:
                return condition()
            except (*_PASSING, IndexError):
                return False

        return WebDriverWait(self.driver, PATIENCE, 0.1).until(holds, what)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector: str) -> WebElement:
        return self.wait(lambda: self.all(selector)[0], f"no {selector}")

    def text(self, selector: str) -> str:
        return self.wait(lambda: (" ".join(self.all(selector)[0].text.split()),), f"no {selector}")[0]

    def script(self, code: str, *arguments: object) -> object:
        return self.driver.execute_script(code, *arguments)

    def bars(self, selector: str = "#lt-charts") -> int:
        return len(self.all(f"{selector} .barlayer .point"))

    def tab(self, name: str) -> None:
        """Opens a tab; where the screen is narrow, from the menu of those that it has no room for."""

        def button() -> WebElement:
            places = self.all(".tab-nav button, button[role=tab], .overflow-dropdown button")
            (found, *_) = [place for place in places if place.text == name] or [None]
            return found

        if not [b for b in self.all("button[role=tab]") if b.text == name and b.is_displayed()]:
            self.click(".overflow-menu > button")

        def opened() -> bool:
            button().click()
            return True

        self.wait(opened, name)

    def choose(self, selector: str, option: str) -> None:
        """Chooses from a list; opens it again where it closed, as one that is drawn anew does."""
        opened = -math.inf

        def pressed() -> bool:
            nonlocal opened
            for offered in self.all("[role=option]"):
                if offered.get_attribute("aria-label") == option:
                    self.script("arguments[0].dispatchEvent(new MouseEvent('mousedown', {bubbles: true}))", offered)
                    return True
            if time.monotonic() - opened > _AGAIN:
                self.script("document.activeElement.blur()")
                self.click(f"{selector} input")
                opened = time.monotonic()
            return False

        self.wait(pressed, option)
        self.script("document.activeElement.blur()")

    def click(self, selector: str, number: int = 0) -> None:
        """Clicks the first of what the selector finds, or another; again if it was drawn anew under the pointer."""

        def clicked() -> bool:
            element = self.all(selector)[number]
            self.script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.wait(clicked, f"no {selector}")

    def click_chart(self, selector: str, across: float, down: float) -> None:
        """Clicks into a chart, at a fraction of the width and height of its axes."""
        from selenium.webdriver import ActionChains

        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        area = self.find(f"{selector} .nsewdrag")
        size = area.size
        offset = round(size["width"] * (across - 0.5)), round(size["height"] * (down - 0.5))
        ActionChains(self.driver).move_to_element_with_offset(area, *offset).pause(0.3).click().perform()

    def fill(self, selector: str, text: str, then: str = Keys.ENTER + Keys.TAB) -> None:
        box = self.find(f"{selector} input, {selector} textarea")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(text, then)

    def upload(self, path: Path, button: str = "#lt-upload") -> None:
        find = "return document.querySelector(arguments[0])?.parentElement.querySelector('input[type=file]')"
        self.wait(lambda: self.script(find, button), f"no {button}").send_keys(str(path))

    def tree(self) -> str:
        """All of the page as it is now, to look for what must not be in it."""
        return self.script("return document.documentElement.outerHTML")

    def requests_elsewhere(self) -> list[str]:
        names = self.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return [name for name in names if not name.startswith((self.url, "data:", "blob:"))]

    def errors(self) -> list[str]:
        """What the browser complained of since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def downloaded(self) -> tuple[str, bytes]:
        def whole() -> list[Path]:
            unfinished = (".crdownload", ".tmp")
            return [p for p in self.downloads.iterdir() if p.suffix not in unfinished and not p.name.startswith(".")]

        (path,) = self.wait(whole, "no download")
        content = path.read_bytes()
        path.unlink()
        return path.name, content


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver (as root, make test does)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def _running() -> Iterator[dict[str, subprocess.Popen]]:
    """The pages that run, by address."""
    running: dict[str, subprocess.Popen] = {}
    yield running
    for process in running.values():
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def stop(_running: dict[str, subprocess.Popen]) -> Callable[[str], None]:
    """`stop(url)` ends a page, as a restart of its machine would."""

    def end(url: str) -> None:
        process = _running.pop(url)
        process.kill()
        process.wait(30)

    return end


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, _running: dict[str, subprocess.Popen]) -> Callable[..., str]:
    """`start([command, ...], **environment)` runs a page and returns its address once it answers."""

    def run(command: list[str], **environment: str) -> str:
        log = tmp_path_factory.mktemp("page") / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        for _ in range(10 * 2 * PATIENCE):
            if "http://127.0.0.1:" in log.read_text():
                url = "http://127.0.0.1:" + log.read_text().split("http://127.0.0.1:")[1].split()[0]
                _running[url] = process
                return url
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.kill()
        raise AssertionError(log.read_text())

    return run


@pytest.fixture
def sink() -> Iterator[tuple[str, list[str]]]:
    """Address of somebody else's server, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def space(start: Callable[..., str], _running_hub) -> str:
    """The address of the Space, as it stands in the repository, with the token of an owner who lets visitors diagnose."""
    secrets = {"HF_TOKEN": _running_hub.token, "LAYERTRACER_VIEWER_DIAGNOSE": "1", "GRADIO_SERVER_NAME": "127.0.0.1"}
    return start([sys.executable, str(SPACE / "app.py")], **secrets)


@pytest.fixture
def unopened(driver: webdriver.Chrome, space: str, tmp_path: Path) -> Page:
    """The Space before the browser opens it, for a test that sets the screen first."""
    return _page(driver, space, tmp_path)


@pytest.fixture
def page(unopened: Page) -> Page:
    """The Space in the browser, freshly loaded."""
    unopened.open()
    return unopened


@pytest.fixture
def shown(unopened: Page) -> Page:
    """The Space in the browser, loaded once: for tests that leave what the others look at as it was."""
    if not unopened.script("return document.documentElement.dataset.shown"):
        unopened.driver.get("about:blank")
        unopened.errors()  # of a page that was left while it was waiting for an answer
        unopened.open()
        unopened.script("document.documentElement.dataset.shown = 'yes'")
    unopened.tab("See")
    return unopened


@pytest.fixture
def page_at(driver: webdriver.Chrome, tmp_path: Path) -> Callable[[str], Page]:
    """`page_at(url)`: another page in the browser."""

    def open_page(url: str) -> Page:
        page = _page(driver, url, tmp_path)
        page.open()
        return page

    return open_page


def _page(driver: webdriver.Chrome, url: str, tmp_path: Path) -> Page:
    downloads = tmp_path / "downloads"
    downloads.mkdir(exist_ok=True)
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.set_window_size(1280, 1000)
    driver.get_log("browser")
    return Page(driver, url, downloads)


@pytest.fixture(scope="session")
def examples() -> dict[str, LayerTracerReport]:
    """The reports that the Space ships with, by name."""
    return {
        path.parent.name: LayerTracerReport.load(path)
        for path in sorted((SPACE / "examples").glob("*/layertracer_report.json"))
    }


@pytest.fixture(scope="session")
def make_report() -> Callable[..., LayerTracerReport]:
    """`make_report(num_layers=6, probes=4, history=False, **changes)`."""
    return made_reports.whole_report


@pytest.fixture(scope="session")
def full_of() -> Callable[[str], LayerTracerReport]:
    """`full_of(text)`: a valid report that has the text in every field that may hold text."""
    return made_reports.full_of


@pytest.fixture(scope="session")
def markups() -> tuple[str, ...]:
    """Texts that run where they are not shown as text."""
    return made_reports.MARKUP
