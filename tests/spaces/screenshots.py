"""Makes the pictures of the viewer in docs/: `make screenshots`."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from PIL import Image


DOCS = Path(__file__).parents[2] / "docs"
SETTLED = 2  # seconds in which charts finish to move


def shoot(page, name: str, width: int, height: int) -> None:
    """Saves what the window shows, with few enough colours to be small."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    time.sleep(SETTLED)
    picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    DOCS.mkdir(exist_ok=True)
    picture.quantize(200).save(DOCS / name, optimize=True)


@pytest.fixture
def freeze_deep(page):
    page.choose("#lt-name", "smollm2-135m-freeze-deep")
    page.wait(lambda: page.bars() == 30)
    return page


def test_see(freeze_deep):
    shoot(freeze_deep, "viewer-see.png", 1200, 1000)


def test_compare(unopened):
    unopened.open("/?report=smollm2-135m-freeze-deep&tab=compare")
    unopened.wait(lambda: len(unopened.all("#lt-compare-sensitivity .scatterlayer .trace")) == 2)
    unopened.wait(lambda: unopened.text("#lt-differences"))
    shoot(unopened, "viewer-compare.png", 1200, 1000)


def test_probes(unopened):
    unopened.open("/?report=smollm2-135m&tab=probes&probe=31&list=2")
    unopened.wait(lambda: "probe 31" in unopened.text("#lt-readings"))
    shoot(unopened, "viewer-probes.png", 1200, 1000)


def test_try_in_the_dark(unopened):
    unopened.open("/?__theme=dark")
    unopened.tab("Try an allocation")
    unopened.wait(lambda: "freeze_ratio" in unopened.text("#lt-snippet .cm-content"))
    shoot(unopened, "viewer-try.png", 1200, 1000)


def test_phone(unopened):
    size = {"width": 390, "height": 1000, "deviceScaleFactor": 1, "mobile": True}
    unopened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    unopened.open()
    shoot(unopened, "viewer-phone.png", 390, 1000)
